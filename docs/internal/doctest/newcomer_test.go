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

// TestNewcomer does what the README and the quick start say, from top to bottom, by
// copy and paste: install the command, run what it can do, get the library into a
// new module, build and run the program. Both come by their module paths, from a
// module proxy on disk with this checkout in it. It compiles everything anew, so it
// is not among the tests of "make test": scripts/newcomer runs it.
func TestNewcomer(t *testing.T) {
	stage := newStage(t)
	if err := os.Remove(filepath.Join(stage.bin, "pglock")); err != nil { // what a newcomer does not have
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
	s.patience = 10 * time.Minute
	s.env = append(s.env, strings.Fields(string(environment))...)
	// Without the folders' names, what one run compiled serves the next.
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
					command = "make -n test" // it would come by here
				}
				s.run(t, "cd "+absolute(".")+"; unset GOWORK GOPROXY; export GOMODCACHE="+goEnv(t, "GOMODCACHE")+"; "+command, 0)
				done["make"] = true
			}
		default:
			t.Run(b.String(), func(t *testing.T) { // at its end the scene is over
				scene, _ := b.mark("scene")
				playing := stage.play(t, scene)
				playing.patience = s.patience
				playing.env = append(playing.env, s.env[len(playing.env):]...)
				playing.run(t, b.text, exitCode(t, b))
			})
			done[strings.Fields(b.text)[0]] = true
		}
	}
	for _, what := range []string{"go", "get", "make", "pglock"} {
		if !done[what] {
			t.Errorf("the README has nothing for %s", what)
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
				t.Errorf("the quick start's program says\n%s", shown)
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
