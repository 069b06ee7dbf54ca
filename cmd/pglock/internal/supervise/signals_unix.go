//go:build unix

package supervise

import (
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// Forwarded are the signals that a person or the system sends to a program to
// make it end, stop or take notice, and that are to be passed on to a command
// with [Process.Signal]. What this program was started to ignore, as by
// nohup(1), is not among them: the command is to ignore it too. Ask before
// catching any.
func Forwarded() []os.Signal {
	all := []os.Signal{
		syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM,
		syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGTSTP, syscall.SIGWINCH,
	}
	var forwarded []os.Signal
	for _, sig := range all {
		if !signal.Ignored(sig) {
			forwarded = append(forwarded, sig)
		}
	}
	return forwarded
}

// Continued is the signal after which [Process.Continue] is to be called.
func Continued() []os.Signal { return []os.Signal{syscall.SIGCONT} }

// SurviveClosedPipes keeps this program alive when nobody reads what it writes: without
// that, a line on a closed stderr ends a Go program by SIGPIPE.
func SurviveClosedPipes() { signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) }

// Stop stops this program as Ctrl-Z does, until it is continued. It does nothing and
// reports false if no shell could continue it: then its process group is orphaned, and
// the kernel itself ignores Ctrl-Z for such groups (PID 1 of a container, ssh -t).
func Stop() bool {
	if isOrphaned() {
		return false
	}
	return syscall.Kill(os.Getpid(), syscall.SIGSTOP) == nil
}

// isOrphaned reports whether none of this program's ancestors is in its session and
// outside its process group (POSIX, 3.264 "Orphaned Process Group"). It reports false
// where it cannot find out.
func isOrphaned() bool {
	session, err := unix.Getsid(0)
	if err != nil {
		return false
	}
	for parent := os.Getppid(); parent > 0; {
		s, err := unix.Getsid(parent)
		if err != nil || s != session {
			return err == nil
		}
		if group, err := unix.Getpgid(parent); err != nil || group != unix.Getpgrp() {
			return false
		}
		var ok bool
		if parent, ok = parentOf(parent); !ok {
			return false
		}
	}
	return true
}
