package supervise

import (
	"os"
	"syscall"
)

// Forwarded are what a person or the system makes a program end with, and what is
// to be passed on to a command with [Process.Signal]. Go gives Ctrl-C and
// Ctrl-Break as os.Interrupt, and the closing of the console, logging off and
// shutting down as SIGTERM; after those the system soon ends us, and the job.
func Forwarded() []os.Signal { return []os.Signal{os.Interrupt, syscall.SIGTERM} }

// Continued is empty: there is no job control.
func Continued() []os.Signal { return nil }

// SurviveClosedPipes does nothing: there is no SIGPIPE.
func SurviveClosedPipes() {}

// ReapOrphans does nothing: there are no zombies.
func ReapOrphans() (end func()) { return func() {} }

func ownExecutable() (string, error) { return os.Executable() }

// Check returns nil: there is no guard.
func Check() error { return nil }

// Stop does nothing: there is no job control.
func Stop() bool { return false }
