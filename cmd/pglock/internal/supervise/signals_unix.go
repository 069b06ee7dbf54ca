//go:build unix

package supervise

import (
	"os"
	"os/signal"
	"syscall"
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

// Stop stops this program as Ctrl-Z does, until it is continued.
func Stop() { _ = syscall.Kill(os.Getpid(), syscall.SIGSTOP) }
