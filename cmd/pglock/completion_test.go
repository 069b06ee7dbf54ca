//go:build unix

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// shell finds a shell, or skips the test. In CI a missing shell is a failure.
func shell(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("in CI this must be tested: ", err)
		}
		t.Skip("not tested: ", err)
	}
	return path
}

// completionFolder creates a directory with pglock and the script for a shell.
func completionFolder(t *testing.T, shell, script string) (dir string, env []string) {
	t.Helper()
	dir = t.TempDir()
	if err := os.Symlink(testBinary(t), filepath.Join(dir, "pglock")); err != nil {
		t.Fatal(err)
	}
	env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"), "HOME="+dir, "ZDOTDIR="+dir, "TERM=dumb")
	cmd := exec.Command(filepath.Join(dir, "pglock"), "completion", shell)
	cmd.Env = env
	text, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, script), text, 0o644); err != nil {
		t.Fatal(err)
	}
	return dir, env
}

func TestFishCompletes(t *testing.T) {
	t.Parallel()
	fish := shell(t, "fish")
	dir, env := completionFolder(t, "fish", "pglock.fish")
	if err := os.WriteFile(filepath.Join(dir, "echolalia"), nil, 0o755); err != nil {
		t.Fatal(err)
	}
	for line, want := range map[string][]string{
		"pglock pri":                      {"prioritize"},
		"pglock ls -f granted=":           {"granted=false", "granted=true"},
		"pglock ls --filter=granted=":     {"--filter=granted=false", "--filter=granted=true"},
		"pglock ls -a pid,qu":             {"pid,query", "pid,query_id", "pid,query_start"},
		"pglock ls -o ":                   {"csv", "json", "table", "tsv"},
		"pglock ls --output=":             {"--output=csv", "--output=json", "--output=table", "--output=tsv"},
		"pglock cancel --allow ":          {"autovacuum", "background", "self", "walsender"},
		"pglock completion ":              {"bash", "fish", "powershell", "zsh"},
		"pglock run some-name -- echolal": {"echolalia"},
		"pglock prioritize -- echolal":    {"echolalia"},
	} {
		cmd := exec.Command(fish, "-N", "-c", "source $argv[1]; complete -C $argv[2]", filepath.Join(dir, "pglock.fish"), line)
		cmd.Env = env
		cmd.Dir = dir
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for said := range strings.Lines(string(out)) {
			choice, description, _ := strings.Cut(strings.TrimSpace(said), "\t")
			got = append(got, choice)
			if strings.ContainsAny(description, "`\"") {
				t.Errorf("fish shows %q", said)
			}
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("fish completes %q with %q, not %q", line, got, want)
		}
	}
}

func TestZshCompletes(t *testing.T) {
	t.Parallel()
	zsh := shell(t, "zsh")
	dir, env := completionFolder(t, "zsh", "_pglock")
	if err := os.WriteFile(filepath.Join(dir, "echolalia"), nil, 0o755); err != nil {
		t.Fatal(err)
	}
	term := inTerminal(t, env, zsh, "zsh", "-f", "-i")
	// Ctrl-P prints the current line, Ctrl-U clears it.
	term.types(`fpath=($HOME $fpath); autoload -U compinit; compinit -u -d $HOME/dump; ` +
		`show() { print -r -- "<$BUFFER>" }; zle -N show; bindkey '^P' show; bindkey '^U' kill-whole-line; print rea''dy` + "\n")
	term.sees("ready")
	for line, want := range map[string]string{
		"pglock pri":                      "pglock prioritize ",
		"pglock ls -f granted=t":          "pglock ls -f granted=true ",
		"pglock ls --filter=granted=t":    "pglock ls --filter=granted=true ",
		"pglock ls -a pid,database":       "pglock ls -a pid,database ",
		"pglock ls --output=j":            "pglock ls --output=json ",
		"pglock cancel --allow w":         "pglock cancel --allow walsender ",
		"pglock run some-name -- echolal": "pglock run some-name -- echolalia ",
	} {
		term.types("\x15" + line + "\t\x10")
		term.sees("<" + want + ">")
	}
	term.types("\x15exit\n")
	term.want(0)
}
