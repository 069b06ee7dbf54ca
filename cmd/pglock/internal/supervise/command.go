package supervise

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// GuardName is the name under which the guard is started, as its args[0]. It
// differs from the program's so that killing all that is called like the
// program does not kill the guards, which would be left with nobody to clean up.
const GuardName = "lockguard"

// A Command is what to run, and how.
type Command struct {
	Path string   // of the executable, as [Find] gives it
	Args []string // with the command's own name first
	Env  []string

	// The command's streams. An *os.File is handed to the command as it is;
	// anything else is copied by way of a pipe.
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer

	// Grace is how long what is told to end may take before it is killed.
	Grace time.Duration

	// Hold are connections that shall stay open until nothing of the command is
	// left, even when this program is gone before.
	Hold []syscall.Conn
}

// A Status says how a command ended.
type Status struct {
	Code   int            // its exit code, when Signal is 0
	Signal syscall.Signal // what ended it, or 0
}

// ExitCode is the status as a shell has it: the command's own exit code, or 128
// and the number of the signal that ended it.
func (s Status) ExitCode() int {
	if s.Signal != 0 {
		return 128 + int(s.Signal)
	}
	return s.Code
}

// A StartError says that a command could not be started. NotFound tells why: it
// is not there, or else it is there and cannot be executed.
type StartError struct {
	Path     string
	NotFound bool
	Err      error
}

func (e *StartError) Error() string { return fmt.Sprintf("%s: %v", e.Path, e.Err) }

func (e *StartError) Unwrap() error { return e.Err }

// An InterruptedError is a signal that ended the guard before the command was started:
// somebody signals all processes, and the command would have been among them.
type InterruptedError struct{ Signal syscall.Signal }

func (e *InterruptedError) Error() string { return e.Signal.String() }

// Executable returns a path of this program, without /proc too.
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

// file is f's file, or nil when it is not one.
func file(f any) *os.File {
	if f, ok := f.(*os.File); ok {
		return f
	}
	return nil
}
