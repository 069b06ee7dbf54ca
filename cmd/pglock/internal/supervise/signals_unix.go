//go:build unix

package supervise

import (
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// Forwarded returns the signals to pass on to a command with [Process.Signal]: those with
// which people or the system end, stop or notify a program. Signals that this program was
// started to ignore, as by nohup(1), are left out, because the command must ignore them
// too. Call it before catching any signal.
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

// Continued returns the signal after which to call [Process.Continue].
func Continued() []os.Signal { return []os.Signal{syscall.SIGCONT} }

// SurviveClosedPipes keeps this program alive if its output is closed. By default,
// SIGPIPE ends a Go program that writes to a closed stdout or stderr.
func SurviveClosedPipes() { signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) }

// Stop stops this program as Ctrl-Z does, until it is continued. It does nothing and
// returns false if no shell could continue it, because its process group is orphaned (PID
// 1 of a container, ssh -t). The kernel ignores Ctrl-Z for such groups too.
func Stop() bool {
	if isOrphaned() {
		return false
	}
	return syscall.Kill(os.Getpid(), syscall.SIGSTOP) == nil
}

// isOrphaned reports whether none of this program's ancestors is in its session and
// outside its process group (POSIX, 3.264 "Orphaned Process Group"). It returns false if
// it cannot find out.
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
