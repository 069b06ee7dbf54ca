package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/pglock-go/pglock"
)

// TestPlaces runs pglock without /proc, as in some chroots, with the /proc of another PID
// namespace, and as PID 1, as in a container. The same guarantees hold there.
func TestPlaces(t *testing.T) {
	t.Parallel()
	// The race detector needs /proc.
	binary := filepath.Join(t.TempDir(), "pglock")
	build := exec.Command("go", "build", "-o", binary, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	// Only /proc is made private: the root of a chroot may not be a mount, and then no
	// propagation can be set on it.
	mounted := func(mount string) []string {
		return []string{"sh", "-c", "mount --make-rprivate /proc && " + mount + ` && exec "$@"`, "sh"}
	}
	for name, p := range map[string]place{
		"without proc":              {binary, mounted("mount -t tmpfs none /proc"), &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}},
		"another's proc, and PID 1": {binary, nil, &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}},
		"PID 1": {binary, mounted("mount -t proc proc /proc"), &syscall.SysProcAttr{
			Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS,
		}},
	} {
		t.Run(name, func(t *testing.T) {
			needNamespaces(t)
			t.Parallel()
			t.Run("left behind", func(t *testing.T) {
				t.Parallel()
				for _, stubborn := range []bool{false, true} {
					wantNothingLeftBehind(t, siteIn(t, p), stubborn, (*command).offspring)
				}
			})
			t.Run("killed", func(t *testing.T) { t.Parallel(); killed(t, p) })
			t.Run("guard killed", func(t *testing.T) { t.Parallel(); guardKilled(t, p) })
			t.Run("lost", func(t *testing.T) { t.Parallel(); lost(t, p) })
			t.Run("signal", func(t *testing.T) { t.Parallel(); signaled(t, p) })
			t.Run("demo", func(t *testing.T) { t.Parallel(); demonstrated(t, p) })
			if strings.Contains(name, "PID 1") {
				t.Run("zombies", func(t *testing.T) { t.Parallel(); zombies(t, p) })
			}
		})
	}
}

// needNamespaces skips a test if namespaces cannot be created. In CI that is a failure.
func needNamespaces(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("this test needs root, to make namespaces")
	}
	t.Skip("this test needs root, to make namespaces")
}

func siteIn(t *testing.T, p place) site {
	s := newSite(t)
	s.place = p
	return s
}

// offspring waits until the family has printed its PIDs, and returns the PIDs of all
// descendants of pglock outside the namespace.
func (c *command) offspring() []int {
	c.t.Helper()
	c.family()
	return descendantsOf(c.cmd.Process.Pid)
}

func descendantsOf(pid int) []int {
	var all []int
	for next := []int{pid}; len(next) > 0; next = next[1:] {
		children := childrenOf(next[0])
		all, next = append(all, children...), append(next, children...)
	}
	return all
}

// If pglock is killed, the command and all it started are killed too.
func killed(t *testing.T, p place) {
	s := siteIn(t, p)
	c := s.start(t, "run", "x", "--", "sh", "-c", family(true, "wait"))
	pids := c.offspring()
	c.signal(syscall.SIGKILL)
	if code := c.wait(); code != -int(syscall.SIGKILL) {
		t.Errorf("exit code %d", code)
	}
	if err := s.awaitLock(pglock.Name("x"), "granted", false); err != nil {
		t.Fatal(err)
	}
	for _, pid := range pids[1:] { // the first is the guard, which is just ending
		if alive(pid) {
			t.Errorf("process %d is alive when the lock is free", pid)
		}
	}
	awaitGone(t, pids...)
}

// If the guard is killed, pglock ends the rest.
func guardKilled(t *testing.T, p place) {
	s := siteIn(t, p)
	c := s.start(t, "run", "x", "--", "sh", "-c", family(true, "wait"))
	pids := c.offspring()
	if err := syscall.Kill(pids[0], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	c.want(128 + 9)
	for _, pid := range pids {
		if alive(pid) {
			t.Errorf("process %d is still alive", pid)
		}
	}
	if err := s.awaitLock(pglock.Name("x"), "granted", false); err != nil {
		t.Error(err)
	}
}

// A lost lock ends the command and all that it started.
func lost(t *testing.T, p place) {
	s := siteIn(t, p)
	c := s.start(t, "run", "--grace", "200ms", "x", "--", "sh", "-c", family(true, "wait"))
	pids := c.offspring()
	s.exec(t, "SELECT pg_terminate_backend($1)", s.holder(t, "x"))
	c.want(76)
	for _, pid := range pids {
		if alive(pid) {
			t.Errorf("process %d is still alive", pid)
		}
	}
}

// A signal to pglock alone, as docker stop and the kubelet send to PID 1, reaches the
// command once. While pglock waits for the lock, the signal ends pglock.
func signaled(t *testing.T, p place) {
	s := siteIn(t, p)
	c := s.start(t, "run", "x", "--", counterIn(t))
	c.pid()
	waiter := s.start(t, "run", "x", "--", "echo", "ran")
	if err := s.awaitLock(pglock.Name("x"), "NOT granted", true); err != nil {
		t.Fatal(err)
	}
	waiter.signal(syscall.SIGTERM)
	waiter.want(128 + 15)
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGWINCH} {
		c.signal(sig)
		if got := c.line(); got != sig.String() {
			t.Errorf("the command received %s, not %s", got, sig)
		}
	}
	c.want(7)
}

// The demo runs with its own server.
func demonstrated(t *testing.T, p place) {
	c := siteIn(t, p).start(t, "demo")
	for line := ""; line != "The server was stopped and removed."; {
		line = c.line()
	}
	c.want(0)
}

// PID 1 becomes the parent of orphans in its container, such as those of docker exec. It
// reaps them, both while it waits for the lock and while the command runs.
func zombies(t *testing.T, p place) {
	s := siteIn(t, p)
	orphan := func(c *command) {
		t.Helper()
		pid := c.cmd.Process.Pid
		before := childrenOf(pid)
		out, err := exec.Command("nsenter", "--target", fmt.Sprint(pid), "--pid", "sh", "-c", "sleep 1000 >&- 2>&- &").CombinedOutput()
		if err != nil {
			t.Fatalf("nsenter: %v\n%s", err, out)
		}
		var left []int
		eventually(t, "a process that pglock has inherited", func() bool {
			left = slices.DeleteFunc(childrenOf(pid), func(child int) bool { return slices.Contains(before, child) })
			return len(left) == 1
		})
		if err := syscall.Kill(left[0], syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the end of a zombie", func() bool {
			_, _, there := processStatus(left[0])
			return !there
		})
	}
	c := s.start(t, "run", "x", "--", counterIn(t))
	c.pid()
	orphan(c)
	waiter := s.start(t, "run", "x", "--", "echo", "ran")
	if err := s.awaitLock(pglock.Name("x"), "NOT granted", true); err != nil {
		t.Fatal(err)
	}
	orphan(waiter)
	c.signal(syscall.SIGWINCH)
	c.want(7)
	waiter.want(0)
}
