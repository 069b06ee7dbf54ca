package supervise

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// GuardName is the args[0] of the guard. It differs from the program's name, so that
// killing all processes with that name does not kill the guards, which must clean up.
const GuardName = "lockguard"

// A Command describes a command to run.
type Command struct {
	Path string   // the executable, as [Find] returns it
	Args []string // starts with the command's name
	Env  []string

	// The command's streams. The command inherits an *os.File; anything else is
	// copied through a pipe.
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer

	// Grace is the time from SIGTERM to SIGKILL.
	Grace time.Duration

	// Hold lists connections to keep open until nothing of the command is left, even
	// if this program is gone before.
	Hold []syscall.Conn
}

// A Status is how a command ended.
type Status struct {
	Code   int            // its exit code, if Signal is 0
	Signal syscall.Signal // the signal that ended it, or 0
}

// ExitCode returns the status as shells do: the command's exit code, or 128 plus the
// number of the signal that ended it.
func (s Status) ExitCode() int {
	if s.Signal != 0 {
		return 128 + int(s.Signal)
	}
	return s.Code
}

// A StartError reports that a command could not be started. NotFound is true if it does
// not exist, and false if it cannot be executed.
type StartError struct {
	Path     string
	NotFound bool
	Err      error
}

func (e *StartError) Error() string { return fmt.Sprintf("%s: %v", e.Path, e.Err) }

func (e *StartError) Unwrap() error { return e.Err }

// An InterruptedError is a signal that ended the guard before it started the command.
// The signal was sent to all processes, so the command would have received it.
type InterruptedError struct{ Signal syscall.Signal }

func (e *InterruptedError) Error() string { return e.Signal.String() }

// Executable returns the path of this program, even without /proc.
func Executable() (string, error) {
	if path, err := os.Executable(); err == nil {
		return path, nil
	}
	path, err := ownExecutable()
	if err != nil {
		return "", err
	}
	return filepath.Abs(path)
}

// file returns f as an *os.File, or nil if it is not one.
func file(f any) *os.File {
	if f, ok := f.(*os.File); ok {
		return f
	}
	return nil
}
