//go:build unix

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/charmbracelet/x/vt"

	"github.com/pglock-go/pglock/internal/sessiontest"
)

// queries are the sequences that a terminal answers, which nobody reads here.
var queries = regexp.MustCompile("\x1b\\[[?>=]?[0-9;]*(?:[ucn]|\\$p|q)")

// screen returns what the terminal shows now.
func (term *terminal) screen() string {
	emulator := vt.NewEmulator(120, 24)
	_, _ = emulator.WriteString(queries.ReplaceAllString(term.shown(), ""))
	return emulator.String()
}

// shows waits until the terminal's screen has a text.
func (term *terminal) shows(text string) {
	term.t.Helper()
	awaitScreen(term.t, text, term.screen)
}

// awaitScreen waits until a screen, of which capture returns the text, has a text.
func awaitScreen(t *testing.T, text string, capture func() string) {
	t.Helper()
	var screen string
	defer func() {
		if t.Failed() {
			t.Logf("%q is not on the screen:\n%s", text, screen)
		}
	}()
	eventually(t, "the screen has "+text, func() bool {
		screen = capture()
		return strings.Contains(screen, text)
	})
}

// queue lets a migration wait for a session that is idle in a transaction.
func queue(t *testing.T, s site) (idle, migration *sessiontest.Session) {
	dsn := s.server.ConnString(s.name)
	observer := sessiontest.Connect(t, dsn, "")
	idle, migration = sessiontest.Open(t, dsn, "forgotten"), sessiontest.Open(t, dsn, "alembic")
	idle.Do("CREATE TABLE orders (id int)", "BEGIN", "INSERT INTO orders VALUES (1)")
	migration.Background("ALTER TABLE orders ADD COLUMN region text")
	migration.AwaitWait(observer)
	return idle, migration
}

// At a terminal, the session that blocks a migration is ended after its PID was typed, and
// what was done is printed at the end.
func TestTopFreesMigration(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	idle, migration := queue(t, s)
	term := s.inTerminal(t, "top", "--on", "orders", "--every", "200ms")
	term.shows(fmt.Sprintf(`> ! pid %d "forgotten"  idle in transaction`, idle.PID))
	term.shows(fmt.Sprintf("pid %d", migration.PID))
	term.types("t")
	term.shows("[ enter keeps it ]")
	term.types("\r") // keeps it
	term.shows("nothing was ended")
	term.types("t")
	term.shows(fmt.Sprintf("type %d and enter to terminate", idle.PID))
	term.types(fmt.Sprintf("%d\r", idle.PID))
	if err := migration.Join(); err != nil {
		t.Errorf("the migration: %v", err)
	}
	term.shows(fmt.Sprintf(`pid %d ("forgotten", user`, idle.PID))
	term.shows("was terminated")
	term.types("q")
	term.want(0)
	if shown := term.screen(); strings.Count(shown, "was terminated") != 1 {
		t.Errorf("at the end:\n%s", shown)
	}
}

// A terminal that is too small, resized, or without colors and line characters.
func TestTopAppearance(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.needs = append(s.needs, "NO_COLOR=1", "LC_ALL=C")
	idle, _ := queue(t, s)
	term := s.inTerminal(t, "top", "--on", "orders", "--read-only")
	term.shows(fmt.Sprintf("> ! pid %d", idle.PID))
	term.shows("`- ")
	term.types("t")
	term.shows("nothing can be ended: --read-only is given")
	shown := term.shown()
	for _, avoid := range []string{"\x1b[31m", "\x1b[33m", "\x1b[7m", "─", "●"} {
		if strings.Contains(shown, avoid) {
			t.Errorf("the terminal gets %q", avoid)
		}
	}
	term.types("\x03")
	term.want(0)
}

// In tmux, a migration is freed by ending the right session; Ctrl-Z and fg, and another
// size of the window, do no harm.
func TestTopInTmux(t *testing.T) {
	t.Parallel()
	tmux := shell(t, "tmux")
	s := newSite(t)
	idle, migration := queue(t, s)
	dir := t.TempDir()
	if err := os.Symlink(testBinary(t), filepath.Join(dir, "pglock")); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) string {
		t.Helper()
		cmd := exec.Command(tmux, append([]string{"-f", os.DevNull, "-S", filepath.Join(dir, "tmux")}, args...)...)
		cmd.Env = append(s.env(), "PATH="+dir+":"+os.Getenv("PATH"), "LC_ALL=C.UTF-8", "HISTFILE=")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("tmux %v: %v: %s", args, err, out)
		}
		return string(out)
	}
	shows := func(text string) {
		t.Helper()
		awaitScreen(t, text, func() string { return run("capture-pane", "-p") })
	}
	run("new-session", "-d", "-x", "120", "-y", "30", "env PS1='prompt> ' bash --norc --noprofile -i")
	t.Cleanup(func() { run("kill-server") })
	shows("prompt>")
	run("send-keys", "pglock top --on orders", "Enter")
	shows(fmt.Sprintf(`> ! pid %d "forgotten"`, idle.PID))
	shows("┬─ pid")
	run("resize-window", "-x", "70", "-y", "20")
	shows(fmt.Sprintf("─ pid %d ─", idle.PID))
	run("resize-window", "-x", "30", "-y", "6")
	shows("pglock top needs 40 x 8")
	run("resize-window", "-x", "120", "-y", "30")
	shows("┬─ pid")
	run("send-keys", "C-z")
	shows("Stopped")
	run("send-keys", "fg", "Enter")
	shows(fmt.Sprintf(`> ! pid %d "forgotten"`, idle.PID))
	run("send-keys", "t")
	shows("[ enter keeps it ]")
	run("send-keys", fmt.Sprint(idle.PID), "Enter")
	if err := migration.Join(); err != nil {
		t.Errorf("the migration: %v", err)
	}
	shows("was terminated")
	run("send-keys", "q")
	shows("was terminated\nprompt>")
}

// The same in GNU screen, whose terminal can do less.
func TestTopInScreen(t *testing.T) {
	t.Parallel()
	screen := shell(t, "screen")
	s := newSite(t)
	idle, migration := queue(t, s)
	dir, sockets := t.TempDir(), filepath.Join(t.TempDir(), "screens")
	if err := os.Mkdir(sockets, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "rc"), []byte("startup_message off\ndefutf8 on\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(testBinary(t), filepath.Join(dir, "pglock")); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) error {
		t.Helper()
		cmd := exec.Command(screen, append([]string{"-c", filepath.Join(dir, "rc"), "-S", "top"}, args...)...)
		cmd.Env = append(s.env(), "PATH="+dir+":"+os.Getenv("PATH"), "LC_ALL=C.UTF-8", "HISTFILE=", "SCREENDIR="+sockets, "TERM=screen")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("screen %v: %w: %s", args, err, out)
		}
		return nil
	}
	copied := filepath.Join(dir, "hardcopy")
	shows := func(text string) {
		t.Helper()
		awaitScreen(t, text, func() string {
			// The session may not be there yet, and the copy is written a moment later.
			if err := run("-p", "0", "-X", "hardcopy", copied); err != nil {
				return err.Error()
			}
			shown, _ := os.ReadFile(copied)
			return string(shown)
		})
	}
	types := func(text string) {
		t.Helper()
		if err := run("-p", "0", "-X", "stuff", text); err != nil {
			t.Fatal(err)
		}
	}
	if err := run("-d", "-m", "env", "PS1=prompt> ", "bash", "--norc", "--noprofile", "-i"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = run("-X", "quit") }) // it may have ended
	shows("prompt>")
	types("pglock top --on orders\r")
	shows(fmt.Sprintf(`> ! pid %d "forgotten"`, idle.PID))
	types("\x1a")
	shows("Stopped")
	types("fg\r")
	shows(fmt.Sprintf(`> ! pid %d "forgotten"`, idle.PID))
	types("t")
	shows("[ enter keeps it ]")
	types(fmt.Sprint(idle.PID) + "\r")
	if err := migration.Join(); err != nil {
		t.Errorf("the migration: %v", err)
	}
	shows("was terminated")
	types("q")
	shows("was terminated\nprompt>")
}

// The command stays small, whatever it imports.
func TestSize(t *testing.T) {
	t.Parallel()
	const limit = 15.5e6
	path := filepath.Join(t.TempDir(), "pglock")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", path, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	if output, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() > limit {
		t.Errorf("%.2f MB, more than %.1f", float64(info.Size())/1e6, limit/1e6)
	}
}
