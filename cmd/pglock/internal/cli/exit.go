package cli

import (
	"errors"
	"fmt"
	"strings"
	"syscall"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/cmd/pglock/internal/connect"
	"github.com/pglock-go/pglock/cmd/pglock/internal/supervise"
	"github.com/pglock-go/pglock/inspect"
)

// The exit codes, as docs/command.md promises them. 69 and 75 are those of
// sysexits.h, EX_UNAVAILABLE and EX_TEMPFAIL; 126 and up are the shell's.
const (
	exitOK            = 0
	exitError         = 1
	exitUsage         = 2
	exitDeclined      = 3
	exitUnavailable   = 69
	exitNotAcquired   = 75
	exitLost          = 76
	exitNotExecutable = 126
	exitNotFound      = 127
	exitSignal        = 128 // and the signal's number
)

// usageError says that the command line is wrong. hint says where to read more.
type usageError struct {
	text string
	hint string
}

func (e *usageError) Error() string { return e.text }

// childError is a command that was run and did not end with 0. There is nothing
// to say about it: the exit code is the command's own.
type childError struct{ status supervise.Status }

func (e *childError) Error() string { return fmt.Sprintf("exit code %d", e.status.ExitCode()) }

// notAcquiredError is a lock that was not had, with the exit code that was asked
// for.
type notAcquiredError struct {
	err  error
	code int
	text string
}

func (e *notAcquiredError) Error() string { return e.text }
func (e *notAcquiredError) Unwrap() error { return e.err }

// errDeclined says that a person was asked, and said no.
var errDeclined = errors.New("no session was ended")

// toldError is an error that the person was told of when it happened.
type toldError struct{ err error }

func (e *toldError) Error() string { return e.err.Error() }
func (e *toldError) Unwrap() error { return e.err }

// signalError is a signal that ended pglock before there was a command to pass
// it on to.
type signalError struct{ signal syscall.Signal }

func (e *signalError) Error() string { return e.signal.String() }

// exitCode is where every exit code comes from.
func exitCode(err error) int {
	var (
		usage       *usageError
		settings    *connect.SettingsError
		child       *childError
		notAcquired *notAcquiredError
		signal      *signalError
		start       *supervise.StartError
		interrupted *supervise.InterruptedError
	)
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &usage), errors.As(err, &settings), errors.Is(err, inspect.ErrFilter):
		return exitUsage
	case errors.Is(err, errDeclined):
		return exitDeclined
	case errors.As(err, &signal):
		return exitSignal + int(signal.signal)
	case errors.As(err, &interrupted):
		return exitSignal + int(interrupted.Signal)
	case errors.Is(err, pglock.ErrLost):
		return exitLost
	case errors.As(err, &child):
		return child.status.ExitCode()
	case errors.As(err, &notAcquired):
		return notAcquired.code
	case errors.As(err, &start) && start.NotFound:
		return exitNotFound
	case errors.As(err, &start):
		return exitNotExecutable
	case isUnavailable(err):
		return exitUnavailable
	}
	return exitError
}

// isUnavailable reports whether a later try may succeed: no server answered, or one
// that takes no session for now. A server that refuses us, because of a wrong password
// for instance, is there.
func isUnavailable(err error) bool {
	var failed *connect.Error
	if errors.As(err, &failed) {
		return failed.MayPass()
	}
	return errors.Is(err, pglock.ErrUnavailable) && !isRefusal(err)
}

// isRefusal reports whether the server itself said no, and not for lack of room
// or because it is starting or stopping (SQLSTATE classes 53 and 57).
func isRefusal(err error) bool {
	var state interface{ SQLState() string }
	if !errors.As(err, &state) {
		return false
	}
	code := state.SQLState()
	return !strings.HasPrefix(code, "53") && !strings.HasPrefix(code, "57")
}

// message is the one line that an error is told with, or "" for one that says
// nothing of its own.
func message(err error) string {
	var child *childError
	var signal *signalError
	var told *toldError
	var interrupted *supervise.InterruptedError
	if err == nil || errors.As(err, &child) || errors.As(err, &signal) || errors.As(err, &told) || errors.As(err, &interrupted) {
		return ""
	}
	text := err.Error()
	var usage *usageError
	if errors.As(err, &usage) {
		if usage.hint != "" {
			text += "; " + usage.hint
		}
	} else if failed := new(connect.Error); errors.As(err, &failed) {
		text = failed.Error()
	}
	return printable(strings.TrimPrefix(strings.TrimPrefix(text, "pglock: "), "inspect: "))
}
