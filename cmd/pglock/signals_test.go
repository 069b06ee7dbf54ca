//go:build unix

package main

import (
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// counterName is the name under which the test binary is a command that prints each signal
// that it receives.
const counterName = "pglock-test-counter"

// counter prints its PID, then each signal, and ends at SIGWINCH.
func counter() int {
	signals := make(chan os.Signal, 64)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM,
		syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGCONT, syscall.SIGWINCH)
	fmt.Println(os.Getpid())
	for sig := range signals {
		fmt.Println(sig)
		if sig == syscall.SIGWINCH {
			break
		}
	}
	return 7
}

// counterIn returns a path under which the test binary is the counter.
func counterIn(t *testing.T) string {
	path := filepath.Join(t.TempDir(), counterName)
	if err := os.Symlink(testBinary(t), path); err != nil {
		t.Fatal(err)
	}
	return path
}

// The command gets each signal once, whether the sender signals pglock alone, its process
// group, or every process in any order.
func TestEachSignalOnce(t *testing.T) {
	t.Parallel()
	const cont, hup, term, usr1 = syscall.SIGCONT, syscall.SIGHUP, syscall.SIGTERM, syscall.SIGUSR1
	for _, test := range []struct {
		sender  string
		to      string // p pglock, g its guard, c the command, P pglock's process group
		signals []syscall.Signal
	}{
		{"docker stop, the kubelet, systemd with KillMode=mixed or process, supervisord, kill", "p", []syscall.Signal{term}},
		{"a program that makes it look at its files again, twice", "p", []syscall.Signal{usr1, usr1}},
		{"a shell, timeout, GitLab's runner, tini -g: the process group", "P", []syscall.Signal{term}},
		{"a terminal that hangs up: the process group", "P", []syscall.Signal{hup}},
		{"systemd: every process of the unit, the main one first", "pgc", []syscall.Signal{term}},
		{"systemd with SendSIGHUP", "pgc", []syscall.Signal{term, hup}},
		{"systemd, which lets go on what is stopped", "pgc", []syscall.Signal{term, cont}},
		{"systemctl kill -s USR1, twice", "pgc", []syscall.Signal{usr1, usr1}},
		{"a shutdown, pkill -s: every process, in any order", "gpc", []syscall.Signal{term}},
		{"Jenkins: every process of the job, children first", "cgp", []syscall.Signal{term}},
	} {
		t.Run(test.sender, func(t *testing.T) {
			t.Parallel()
			for _, sig := range test.signals {
				reaches(t, sig)
			}
			s := newSite(t)
			c := s.start(t, "run", "x", "--", counterIn(t))
			command := c.pid()
			guard := guardOf(t, command)
			pids := map[rune]int{'p': c.cmd.Process.Pid, 'P': -c.cmd.Process.Pid, 'g': guard, 'c': command}
			for _, sig := range test.signals {
				// Stop the guard, so that a slow machine does not delay one kill
				// too long after the other.
				if strings.Contains(test.to, "g") {
					stop(t, guard)
				}
				for _, to := range test.to {
					if err := syscall.Kill(pids[to], sig); err != nil {
						t.Fatal(err)
					}
				}
				if strings.Contains(test.to, "g") {
					proceed(t, guard)
				}
				if got := c.line(); got != sig.String() {
					t.Fatalf("the command received %s, not %s", got, sig)
				}
				// The kernel and Go's runtime deliver a signal once if it repeats
				// one that is still pending.
				waitUntilIdle(t, c.cmd.Process.Pid)
				waitUntilIdle(t, guard)
			}
			// A repeated signal would arrive before this one.
			c.signal(syscall.SIGWINCH)
			if got := c.line(); got != syscall.SIGWINCH.String() {
				t.Errorf("the command received another signal: %s", got)
			}
			c.want(7)
		})
	}
}

// stop stops a process, as SIGSTOP does, and waits until it is.
func stop(t *testing.T, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	eventually(t, fmt.Sprintf("process %d is stopped", pid), func() bool {
		state, _, _ := processStatus(pid)
		return state == "T"
	})
}

// waitUntilIdle waits until a process has nothing left to do: all its threads sleep, and
// none has run between two looks.
func waitUntilIdle(t *testing.T, pid int) {
	t.Helper()
	var last string
	eventually(t, fmt.Sprintf("process %d is idle", pid), func() bool {
		before := last
		var asleep bool
		last, asleep = threads(t, pid)
		return asleep && last == before
	})
}

// threads returns how often each thread of a process has given up the CPU, and whether
// all sleep.
func threads(t *testing.T, pid int) (switches string, asleep bool) {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil || len(files) == 0 {
		t.Fatalf("the threads of process %d: %v", pid, err)
	}
	asleep = true
	for _, file := range files {
		status, err := os.ReadFile(file)
		if err != nil {
			return "", false // the thread has ended
		}
		for _, line := range lines(string(status)) {
			switch {
			case strings.HasPrefix(line, "State:"):
				asleep = asleep && strings.Contains(line, "S (sleeping)")
			case strings.Contains(line, "ctxt_switches"):
				switches += line
			}
		}
	}
	return switches, asleep
}

// proceed continues a stopped process.
func proceed(t *testing.T, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
}

// If pglock's output is closed, as when a CI server or cron has ended, the command still
// has time to clean up after a lost lock.
func TestClosedPipes(t *testing.T) {
	t.Parallel()
	for _, verb := range []string{"run", "prioritize"} {
		t.Run(verb, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			reader, writer, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer writer.Close()
			s.stderr = writer
			command := []string{"--", "sh", "-c", `exec 2>&-; trap 'echo cleaned up; exit 5' TERM; echo ready; while :; do sleep 0.01; done`}
			if verb == "run" {
				c := s.start(t, append([]string{"run", "x"}, command...)...)
				c.line()
				reader.Close()
				s.exec(t, "SELECT pg_terminate_backend($1)", s.holder(t, "x"))
				if got := c.line(); got != "cleaned up" {
					t.Errorf("%q", got)
				}
				c.want(76)
				return
			}
			c := s.start(t, append([]string{"prioritize"}, command...)...)
			c.line()
			reader.Close()
			// It reports on stderr that it has seen no session, after some time and at
			// the end.
			c.signal(syscall.SIGTERM)
			if got := c.line(); got != "cleaned up" {
				t.Errorf("%q", got)
			}
			c.want(5)
		})
	}
}
