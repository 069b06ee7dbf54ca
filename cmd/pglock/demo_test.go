//go:build unix

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// The demo runs completely, keeps the server with --keep, and leaves nothing behind.
func TestDemo(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	c := s.start(t, "demo", "--keep")
	var told []string
	exports := map[string]string{}
	for {
		line := c.line()
		told = append(told, line)
		if kv, ok := strings.CutPrefix(line, "  export "); ok {
			name, value, _ := strings.Cut(kv, "=")
			exports[name] = strings.Trim(value, "'")
		}
		if line == "  pglock ls" {
			break
		}
	}
	story := strings.Join(told, "\n")
	for _, want := range []string{
		"\nA  at work\n",
		`advisory "nightly-report" (-8663603374018903193)`,
		`pglock: lock "nightly-report" is held by pid `,
		"(exit code 75)",
		"\nA  done\n",
		"\nB  at work\n",
		"\n$ kill -9 ",
		"\nC  done\n",
		"\nno locks\n",
	} {
		if !strings.Contains(story, want) {
			t.Errorf("%q is missing", want)
		}
	}
	if strings.Contains(story, "B  done") || strings.Contains(story, "never\nnever") {
		t.Error("what must not run did")
	}

	ls := exec.Command(testBinary(t), "ls")
	ls.Args[0] = "pglock"
	ls.Env = os.Environ()
	for name, value := range exports {
		ls.Env = append(ls.Env, name+"="+value)
	}
	if out, err := ls.CombinedOutput(); err != nil {
		t.Errorf("the server that stays: %v: %s", err, out)
	}
	socket := filepath.Join(exports["PGHOST"], ".s.PGSQL."+exports["PGPORT"])
	if _, err := os.Stat(socket); err != nil {
		t.Errorf("the server that stays: %v", err)
	}
	c.signal(syscall.SIGINT)
	c.want(0)
	if _, err := os.Stat(exports["PGHOST"]); !os.IsNotExist(err) {
		t.Errorf("the server's folder is left: %v", err)
	}
	if t.Failed() {
		t.Log(story)
	}
}

// The demo needs only programs that every Debian has. kill(1), for example, is in a
// separate package.
func TestDemoOnABareSystem(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	bin := t.TempDir()
	// The server's user must have access too.
	for _, dir := range []string{bin, filepath.Dir(bin)} {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"sh", "sleep", "cat", "cp", "mkdir", "rm", "sed", "ipcrm"} {
		path, err := exec.LookPath(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(path, filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	s.needs = append(s.needs, "PATH="+bin)
	if dir := s.server.Binaries().Dir; dir != "" {
		s.needs = append(s.needs, "PGLOCK_TEST_POSTGRES_BIN="+dir)
	}
	c := s.start(t, "demo")
	for line := ""; line != "The server was stopped and removed."; {
		line = c.line()
	}
	c.want(0)
}

// An interrupted demo leaves nothing behind.
func TestDemoInterrupted(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	c := s.start(t, "demo")
	for line := ""; line != "A  at work"; {
		line = c.line()
	}
	c.signal(syscall.SIGINT)
	c.want(130)
	for line := ""; line != "The server was stopped and removed."; {
		line = c.line()
	}
}
