package supervise

import (
	"os"
	"syscall"
)

// Forwarded returns the signals to pass on to a command with [Process.Signal]: those with
// which people or the system end a program. Go reports Ctrl-C and Ctrl-Break as
// os.Interrupt, and closing the console, logging off and shutting down as SIGTERM. After
// the latter the system soon ends this program, and the job.
func Forwarded() []os.Signal { return []os.Signal{os.Interrupt, syscall.SIGTERM} }

// Continued returns nil: there is no job control.
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
