//go:build unix

package main

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pglock-go/pglock"
)

// A signal reaches the whole group, and the exit code is the command's.
func TestSignalsReachTheGroup(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		signal syscall.Signal
		trap   string
		code   int
	}{
		{syscall.SIGTERM, "TERM", 42},
		{syscall.SIGINT, "INT", 42},
		{syscall.SIGHUP, "HUP", 42},
		{syscall.SIGUSR1, "USR1", 42},
		{syscall.SIGTERM, "", 128 + 15},
		{syscall.SIGINT, "", 128 + 2},
		{syscall.SIGQUIT, "", 128 + 3},
	} {
		t.Run(fmt.Sprint(test.signal, test.trap), func(t *testing.T) {
			t.Parallel()
			reaches(t, test.signal)
			s := newSite(t)
			child, grandchild := "", ""
			if test.trap != "" {
				child = "trap 'echo child; exit 42' " + test.trap + "; "
				grandchild = "trap 'echo grandchild; exit' " + test.trap + "; "
			}
			// The grandchild prints its PID after it has set its trap.
			grandchild += "echo $$; while :; do sleep 0.01; done"
			script := child + "sh -c '" + strings.ReplaceAll(grandchild, "'", `'\''`) + "'; exit 1"
			c := s.start(t, "run", "x", "--", "sh", "-c", script)
			pid := c.pid()
			c.signal(test.signal)
			c.want(test.code)
			if alive(pid) {
				t.Error("the grandchild is still alive")
			}
			if test.trap != "" {
				got := map[string]bool{c.line(): true, c.line(): true}
				if !got["child"] || !got["grandchild"] {
					t.Errorf("the signal reached only %v", got)
				}
			}
			if e := c.errors(); strings.Contains(e, "pglock") {
				t.Errorf("stderr: %s", e)
			}
		})
	}
}

// reaches skips a test of a signal that the tests were started to ignore, as by nohup:
// pglock ignores it too.
func reaches(t *testing.T, s os.Signal) {
	t.Helper()
	if signal.Ignored(s) {
		t.Skipf("%v is ignored where the tests were started, as nohup does", s)
	}
}

// A signal ends the wait for a lock, also in the database.
func TestSignalsEndTheWaiting(t *testing.T) {
	t.Parallel()
	for _, number := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT} {
		t.Run(number.String(), func(t *testing.T) {
			t.Parallel()
			reaches(t, number)
			s := newSite(t)
			s.exec(t, "SELECT pg_advisory_lock($1)", pglock.Name("x").ID())
			c := s.start(t, "run", "x", "--", "echo", "ran")
			if err := s.awaitLock(pglock.Name("x"), "NOT granted", true); err != nil {
				t.Fatal(err)
			}
			c.signal(number)
			c.want(128 + int(number))
			if line, ok := <-c.output; ok {
				t.Errorf("the command ran: %s", line)
			}
			if err := s.awaitLock(pglock.Name("x"), "NOT granted", false); err != nil {
				t.Error(err)
			}
		})
	}
}

// family returns a script that starts three processes: one in its process group, one in
// another session, and an orphan. It prints the PIDs of all, and then runs end. If
// stubborn, all of them ignore SIGTERM.
func family(stubborn bool, end string) string {
	trap := ""
	if stubborn {
		trap = "trap '' TERM; "
	}
	one := `sh -c "` + trap + `echo \$\$; exec sleep 1000"`
	return trap + "echo $$; " + one + " & setsid " + one + " & (setsid " + one + " &); " + end
}

func (c *command) family() []int {
	c.t.Helper()
	return []int{c.pid(), c.pid(), c.pid(), c.pid()}
}

// The processes that the command leaves behind are gone before the lock is released.
func TestNothingIsLeftBehind(t *testing.T) {
	t.Parallel()
	for _, stubborn := range []bool{false, true} {
		t.Run(fmt.Sprintf("stubborn=%v", stubborn), func(t *testing.T) {
			t.Parallel()
			wantNothingLeftBehind(t, newSite(t), stubborn, (*command).family)
		})
	}
}

// wantNothingLeftBehind runs a command that leaves processes behind, stubborn or not.
// pidsOf returns the PIDs of all of them.
func wantNothingLeftBehind(t *testing.T, s site, stubborn bool, pidsOf func(*command) []int) {
	t.Helper()
	c := s.start(t, "run", "--grace", "200ms", "x", "--", "sh", "-c", family(stubborn, "read line; exit 5"))
	pids := pidsOf(c)
	s.place = place{}
	look := "for p in " + strings.Trim(fmt.Sprint(pids), "[]") + "; do kill -0 $p 2>/dev/null && echo $p; done; echo none"
	next := s.start(t, "run", "x", "--", "sh", "-c", look)
	if err := s.awaitLock(pglock.Name("x"), "NOT granted", true); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(c.stdin)
	c.want(5)
	for _, pid := range pids {
		if alive(pid) {
			t.Errorf("process %d is still alive", pid)
		}
	}
	if got := next.line(); got != "none" {
		t.Errorf("the next run acquired the lock while process %s was there", got)
	}
	next.want(0)
	if e := c.errors(); e != "" {
		t.Errorf("stderr: %s", e)
	}
}

// If pglock is killed, the command and all it started are killed too, before the lock is
// released: the guard keeps the session's socket open.
func TestKilled(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	c := s.start(t, "run", "x", "--", "sh", "-c", family(true, "wait"))
	pids := c.family()
	guard := guardOf(t, pids[0])

	// A stopped guard shows that the lock is held until the guard ends. The kernel
	// continues the stopped processes of a group that becomes orphaned, so add a
	// child of this process to the guard's group.
	tie := exec.Command("sleep", "1000")
	tie.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pgid: guard}
	if err := tie.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = tie.Process.Kill()
		_ = tie.Wait()
	}()
	if err := syscall.Kill(guard, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	c.signal(syscall.SIGKILL)
	if code := c.wait(); code != -int(syscall.SIGKILL) {
		t.Errorf("exit code %d", code)
	}
	// Long enough for the server to notice a closed socket.
	for range 50 {
		if holders, err := s.locks(pglock.Name("x"), "granted"); err != nil || len(holders) != 1 {
			t.Fatalf("the lock is free while the command runs: %v, %v", holders, err)
		}
		time.Sleep(2 * time.Millisecond)
	}
	for _, pid := range pids {
		if !alive(pid) {
			t.Errorf("process %d is gone while its guard is stopped", pid)
		}
	}
	if err := syscall.Kill(guard, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if err := s.awaitLock(pglock.Name("x"), "granted", false); err != nil {
		t.Fatal(err)
	}
	for _, pid := range pids {
		if alive(pid) {
			t.Errorf("process %d is alive when the lock is free", pid)
		}
	}
	awaitGone(t, guard)
}

// If the guard is killed, pglock ends the rest.
func TestGuardKilled(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	c := s.start(t, "run", "x", "--", "sh", "-c", family(true, "wait"))
	pids := c.family()
	if err := syscall.Kill(guardOf(t, pids[0]), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	c.want(128 + 9)
	for _, pid := range pids {
		if alive(pid) {
			t.Errorf("process %d is still alive", pid)
		}
	}
	if e := c.errors(); !strings.Contains(e, "the guard of the command was killed") {
		t.Errorf("stderr: %s", e)
	}
	if err := s.awaitLock(pglock.Name("x"), "granted", false); err != nil {
		t.Error(err)
	}
}

// If the guard is killed while pglock is stopped, the kernel kills the command, and
// pglock ends the rest when it continues.
func TestGuardKilledWhileStopped(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	c := s.start(t, "run", "x", "--", "sh", "-c", family(true, "wait"))
	pids := c.family()
	guard := guardOf(t, pids[0])
	c.signal(syscall.SIGSTOP)
	if err := syscall.Kill(guard, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	awaitGone(t, pids[0])
	c.signal(syscall.SIGCONT)
	c.want(128 + 9)
	awaitGone(t, pids...)
}

// A lost lock ends the command, with SIGTERM first.
func TestLost(t *testing.T) {
	t.Parallel()
	for _, stubborn := range []bool{false, true} {
		t.Run(fmt.Sprintf("stubborn=%v", stubborn), func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			c := s.start(t, "run", "--grace", "200ms", "x", "--", "sh", "-c", family(stubborn, "wait"))
			pids := c.family()
			s.exec(t, "SELECT pg_terminate_backend($1)", s.holder(t, "x"))
			c.want(76)
			for _, pid := range pids {
				if alive(pid) {
					t.Errorf("process %d is still alive", pid)
				}
			}
			oneLine(t, c.errors())
			if e := c.errors(); !strings.Contains(e, `lock "x" lost`) || !strings.Contains(e, "administrator command") {
				t.Errorf("stderr: %s", e)
			}
		})
	}
}

// A command that cleans up on SIGTERM has the time for it, and gets the signal once.
func TestLostWithCleanup(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	c := s.start(t, "run", "x", "--", "sh", "-c", "trap 'echo cleaned up; exit 0' TERM; echo ready; while :; do sleep 0.01; done")
	c.line()
	s.exec(t, "SELECT pg_terminate_backend($1)", s.holder(t, "x"))
	c.want(76)
	if line := c.line(); line != "cleaned up" {
		t.Errorf("%q", line)
	}
}

// The command inherits ignored signals and the descriptors that pglock's caller left
// open, but not those of the guard.
func TestInheritance(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "three"), []byte("three"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := s.start(t, "run", "outer", "--", "sh", "-c",
		`trap '' HUP; exec 3<"$0"/three; ls /proc/$$/fd >"$0"/fds; echo $(cat "$0"/fds)
		exec "$1" run inner -- sh -c 'ls /proc/$$/fd >"$0"/fds; echo $(cat "$0"/fds); cat <&3; echo; grep SigIgn /proc/$$/status; echo $PGLOCK_NAME' "$0"`,
		dir, pglockIn(t))
	if before, got := c.line(), c.line(); got != before {
		t.Errorf("open descriptors: %q, not %q", got, before)
	}
	if got := c.line(); got != "three" {
		t.Errorf("descriptor 3: %q", got)
	}
	// The last 31 bits are the signals 1 to 31. Ignore the others: the program that
	// started the tests, such as make, may ignore some of the C library's.
	ignored := strings.Fields(c.line())
	if mask, err := strconv.ParseUint(ignored[len(ignored)-1], 16, 64); err != nil || mask&(1<<31-1) != 1 {
		t.Errorf("ignored signals: %q", ignored)
	}
	if got := c.line(); got != "inner" {
		t.Errorf("PGLOCK_NAME: %q", got)
	}
	c.want(0)
}

// pglockIn returns a path under which the test binary is pglock.
func pglockIn(t *testing.T) string {
	path := filepath.Join(t.TempDir(), "pglock")
	if err := os.Symlink(testBinary(t), path); err != nil {
		t.Fatal(err)
	}
	return path
}
