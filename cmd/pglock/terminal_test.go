//go:build unix

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"

	"github.com/pglock-go/pglock"
)

// A terminal is a pseudo-terminal with a program in it.
type terminal struct {
	t      *testing.T
	file   *os.File
	cmd    *exec.Cmd
	exited chan struct{}

	mu   sync.Mutex
	text string // everything that was shown
	seen int    // how much of it sees has found
}

// inTerminal starts a program under name in a new terminal.
func inTerminal(t *testing.T, env []string, path, name string, args ...string) *terminal {
	t.Helper()
	cmd := exec.Command(path, args...)
	cmd.Args[0] = name
	cmd.Env = env
	file, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 24, Cols: 120})
	if err != nil {
		t.Fatal(err)
	}
	term := &terminal{t: t, file: file, cmd: cmd, exited: make(chan struct{})}
	read := make(chan struct{})
	go func() {
		defer close(read)
		buffer := make([]byte, 4096)
		for {
			n, err := file.Read(buffer)
			term.mu.Lock()
			term.text += string(buffer[:n])
			term.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	go func() {
		defer close(term.exited)
		_ = cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-term.exited
		file.Close()
		<-read
		if t.Failed() {
			t.Logf("the terminal showed:\n%s", term.text)
		}
	})
	return term
}

// sees waits until text is shown after the last text it found.
func (term *terminal) sees(text string) {
	term.t.Helper()
	eventually(term.t, "the terminal shows "+text, func() bool {
		term.mu.Lock()
		defer term.mu.Unlock()
		i := strings.Index(term.text[term.seen:], text)
		if i < 0 {
			return false
		}
		term.seen += i + len(text)
		return true
	})
}

// shown returns everything that was shown so far.
func (term *terminal) shown() string {
	term.mu.Lock()
	defer term.mu.Unlock()
	return term.text
}

func (term *terminal) types(text string) {
	term.t.Helper()
	if _, err := term.file.WriteString(text); err != nil {
		term.t.Fatal(err)
	}
}

func (term *terminal) want(code int) {
	term.t.Helper()
	select {
	case <-term.exited:
	case <-time.After(bound):
		term.t.Fatal("the program has not ended")
	}
	status := term.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if status.Signaled() || status.ExitStatus() != code {
		term.t.Errorf("%v, not exit code %d", term.cmd.ProcessState, code)
	}
}

func (s site) inTerminal(t *testing.T, args ...string) *terminal {
	return inTerminal(t, s.env(), s.binary(t), "pglock", args...)
}

// A command at a terminal reads from it, and Ctrl-C is for the command.
func TestTerminal(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	term := s.inTerminal(t, "run", "x", "--", "sh", "-c",
		`trap 'echo interrupted; exit 5' INT; read line; echo "read <$line>"; while :; do sleep 0.01; done`)
	term.types("hello\n")
	term.sees("read <hello>")
	term.types("\x03")
	term.sees("interrupted")
	term.want(5)
}

// The command has the terminal from its start.
func TestTerminalForeground(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	term := s.inTerminal(t, "run", "x", "--", "sh", "-c",
		// The fifth and the eighth field: its group, and the terminal's foreground group.
		`until set -- $(cat /proc/$$/stat); [ "$5" = "$8" ]; do sleep 0.01; done; echo in front; stty -a | head -1`)
	term.sees("in front")
	term.sees("rows 24")
	term.want(0)
}

// At a terminal, pglock reports the holder that it waits for, and Ctrl-C ends the wait.
func TestTerminalWaiting(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.exec(t, "SET application_name = 'the other one'")
	s.exec(t, "SELECT pg_advisory_lock($1)", pglock.Name("x").ID())
	term := s.inTerminal(t, "run", "x", "--", "echo", "ran")
	term.sees(`pglock: waiting: lock "x" is held by pid`)
	term.sees(`"the other one"`)
	if err := s.awaitLock(pglock.Name("x"), "NOT granted", true); err != nil {
		t.Fatal(err)
	}
	term.types("\x03")
	term.want(130)
}

// Ctrl-Z stops neither process if no shell could continue them, as with ssh -t or in a
// container.
func TestTerminalWithoutShell(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	term := s.inTerminal(t, "run", "x", "--", "sh", "-c", `echo ready; read line; echo "read <$line>"`)
	term.sees("ready")
	term.types("\x1a")
	term.sees("^Z")
	term.types("hello\n")
	term.sees("read <hello>")
	term.want(0)
}

// In a shell with job control, Ctrl-Z stops the command and pglock, and fg continues both.
// In a pipeline, the command gets the terminal when it reads from it.
func TestTerminalJobControl(t *testing.T) {
	t.Parallel()
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Fatal("this test needs bash: ", err)
	}
	s := newSite(t)
	dir := t.TempDir()
	if err := os.Symlink(testBinary(t), filepath.Join(dir, "pglock")); err != nil {
		t.Fatal(err)
	}
	env := append(s.env(), "PATH="+dir+":"+os.Getenv("PATH"), "PS1=prompt> ", "TERM=dumb", "HISTFILE=")
	term := inTerminal(t, env, bash, "bash", "--norc", "--noprofile", "-i")
	term.sees("prompt> ")
	term.types("stty -echo; set -b\n")
	term.sees("prompt> ")

	term.types(`pglock run x -- sh -c 'echo ready; read line; echo "read <$line>"; read line; echo "read <$line>"; exit 3'` + "\n")
	term.sees("ready")
	term.types("one\n")
	term.sees("read <one>")
	for range 2 {
		term.types("\x1a")
		term.sees("Stopped")
		term.sees("prompt> ")
		s.holder(t, "x") // still
		term.types("fg\n")
		term.sees("pglock run x")
	}
	term.types("two\n")
	term.sees("read <two>")
	term.sees("prompt> ")
	term.types("echo code $?\n")
	term.sees("code 3")

	term.types("pglock run x -- sh -c 'echo ready >&2; exec cat' | sed 's/.*/<&>/'\n")
	term.sees("ready")
	term.types("piped\n\x04")
	term.sees("<piped>")
	term.sees("prompt> ")

	term.types("pglock run x -- sh -c 'read line; echo \"read <$line>\"' &\n")
	term.sees("Stopped")
	term.types("fg\n")
	term.sees("pglock run x")
	term.types("three\n")
	term.sees("read <three>")
	term.types("exit\n")
	term.want(0)
}
