//go:build unix && newcomer

package doctest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestNewcomer follows the README and the quick start from top to bottom by copy and
// paste: it installs the command, runs its examples, gets the library into a new
// module, builds the program and runs it. Command and library come from a module proxy
// on disk that serves this checkout. Everything is compiled anew, so "make test" does
// not run this test; scripts/newcomer does.
func TestNewcomer(t *testing.T) {
	stage := newStage(t)
	if err := os.Remove(filepath.Join(stage.bin, "pglock")); err != nil { // a new user does not have it yet
		t.Fatal(err)
	}
	folder := t.TempDir()
	fill := exec.Command("scripts/proxy", folder, "v0.0.1-newcomer")
	fill.Dir = root
	fill.Stderr = os.Stderr
	environment, err := fill.Output()
	if err != nil {
		t.Fatal(err)
	}
	s := stage.play(t, "none")
	s.timeout = 10 * time.Minute
	s.env = append(s.env, strings.Fields(string(environment))...)
	// Without the folders' names, one run can reuse what another compiled.
	s.env = append(s.env, "GOFLAGS=-modcacherw -trimpath", "GOBIN="+stage.bin, "GOCACHE="+goEnv(t, "GOCACHE"),
		"DATABASE_URL=postgres:///shop?host="+stage.server.Host())

	done := map[string]bool{}
	for _, b := range readPage(t, "README.md").blocks(t, "sh") {
		if t.Failed() {
			return
		}
		switch {
		case strings.HasPrefix(b.text, "go get"):
			s.run(t, "go mod init example.com/first\n"+b.text, 0)
			done["get"] = true
		case strings.HasPrefix(b.text, "make"):
			for line := range strings.Lines(b.text) {
				command, _, _ := strings.Cut(line, "#")
				if strings.TrimSpace(command) == "make test" {
					command = "make -n test" // it would run this test again
				}
				s.run(t, "cd "+absolute(".")+"; unset GOWORK GOPROXY; export GOMODCACHE="+goEnv(t, "GOMODCACHE")+"; "+command, 0)
				done["make"] = true
			}
		default:
			t.Run(b.String(), func(t *testing.T) { // the scene ends with the subtest
				scene, _ := b.mark("scene")
				playing := stage.play(t, scene)
				playing.timeout = s.timeout
				playing.env = append(playing.env, s.env[len(playing.env):]...)
				playing.run(t, b.text, exitCode(t, b))
			})
			done[strings.Fields(b.text)[0]] = true
		}
	}
	for _, name := range []string{"go", "get", "make", "pglock"} {
		if !done[name] {
			t.Errorf("the README has no block that uses %s", name)
		}
	}

	guide := readPage(t, "docs/quickstart.md")
	for _, b := range guide.blocks(t, "sh", "go") {
		if _, newcomer := b.mark("newcomer"); newcomer {
			s.run(t, b.text, 0)
			s.folder = filepath.Join(s.folder, "nightly")
		}
		if strings.HasPrefix(b.text, "package main") {
			if err := os.WriteFile(filepath.Join(s.folder, "main.go"), []byte(b.text), 0o600); err != nil {
				t.Fatal(err)
			}
			if shown := s.run(t, "go mod tidy && go run .", 0); !strings.Contains(shown, "making the report\ndone\n") {
				t.Errorf("the quick start's program printed\n%s", shown)
			}
			return
		}
	}
	t.Error("the quick start has no program")
}

func goEnv(t *testing.T, name string) string {
	t.Helper()
	out, err := exec.Command("go", "env", name).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}
