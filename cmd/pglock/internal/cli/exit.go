package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/cmd/pglock/internal/connect"
	"github.com/pglock-go/pglock/cmd/pglock/internal/supervise"
	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/internal/termtext"
)

// The exit codes, which docs/command.md documents. 69 and 75 are those of
// sysexits.h, EX_UNAVAILABLE and EX_TEMPFAIL; 126 and up are the shell's.
const (
	exitOK            = 0
	exitError         = 1
	exitFree          = 1
	exitUsage         = 2
	exitUndecided     = 2
	exitDeclined      = 3
	exitUnavailable   = 69
	exitNotAcquired   = 75
	exitLost          = 76
	exitNotExecutable = 126
	exitNotFound      = 127
	exitSignal        = 128 // plus the signal's number
)

// A usageError reports a wrong command line. hint is where to read more.
type usageError struct {
	text string
	hint string
}

func (e *usageError) Error() string { return e.text }

// A childError reports a command that did not exit with 0. It prints no message: the
// exit code is the command's own.
type childError struct{ status supervise.Status }

func (e *childError) Error() string { return fmt.Sprintf("exit code %d", e.status.ExitCode()) }

// A notAcquiredError reports a lock that was not acquired, with the exit code to use.
type notAcquiredError struct {
	err  error
	code int
	text string
}

func (e *notAcquiredError) Error() string { return e.text }
func (e *notAcquiredError) Unwrap() error { return e.err }

// A declinedError is returned if the user was asked and answered no. Its text is what was
// not done.
type declinedError struct{ text string }

func (e *declinedError) Error() string { return e.text }

// A loggedError is an error that was printed when it happened.
type loggedError struct{ err error }

func (e *loggedError) Error() string { return e.err.Error() }
func (e *loggedError) Unwrap() error { return e.err }

// A silentError reports a database, of several, that did not answer in time.
type silentError struct{ limit time.Duration }

func (e *silentError) Error() string { return fmt.Sprintf("no answer within %v", e.limit) }

// A signalError is a signal that ended pglock before there was a command to pass it to.
type signalError struct{ signal syscall.Signal }

func (e *signalError) Error() string { return e.signal.String() }

// untilSignal returns a ctx that a signal to end cancels, with a [*signalError] as its cause. stop
// releases it.
func untilSignal(ctx context.Context) (_ context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	go func() {
		select {
		case sig := <-signals:
			if number, ok := sig.(syscall.Signal); ok {
				cancel(&signalError{number})
			}
		case <-ctx.Done():
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		cancel(nil)
	}
}

// signalOr returns the signal that ended ctx, if one did, or else err.
func signalOr(ctx context.Context, err error) error {
	interrupted := new(signalError)
	if errors.As(context.Cause(ctx), &interrupted) {
		return interrupted
	}
	return err
}

// exitCode maps an error to the exit code. Every exit code comes from here.
func exitCode(err error) int {
	var (
		usage       *usageError
		settings    *connect.SettingsError
		child       *childError
		notAcquired *notAcquiredError
		signal      *signalError
		start       *supervise.StartError
		interrupted *supervise.InterruptedError
		undecided   *undecidedError
		declined    *declinedError
	)
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errFree):
		return exitFree
	case errors.As(err, &usage), errors.As(err, &settings), errors.Is(err, inspect.ErrFilter):
		return exitUsage
	case errors.As(err, &declined):
		return exitDeclined
	case errors.As(err, &signal):
		return exitSignal + int(signal.signal)
	case errors.As(err, &interrupted):
		return exitSignal + int(interrupted.Signal)
	case errors.Is(err, pglock.ErrLost):
		return exitLost
	case errors.As(err, &notAcquired):
		return notAcquired.code
	case errors.As(err, &child):
		return child.status.ExitCode()
	case errors.As(err, &start) && start.NotFound:
		return exitNotFound
	case errors.As(err, &start):
		return exitNotExecutable
	case isUnavailable(err):
		return exitUnavailable
	case errors.As(err, &undecided):
		return exitUndecided
	}
	return exitError
}

// isUnavailable reports whether a later try may succeed, because no server answered or
// the server accepts no sessions now. A server that refuses the connection, such as for
// a wrong password, is available.
func isUnavailable(err error) bool {
	var failed *connect.Error
	if errors.As(err, &failed) {
		return failed.MayPass()
	}
	var silent *silentError
	if errors.As(err, &silent) {
		return true
	}
	return errors.Is(err, pglock.ErrUnavailable) && !isRefusal(err)
}

// isRefusal reports whether the server refused the connection for a reason other than
// insufficient resources, starting or stopping (SQLSTATE classes 53 and 57).
func isRefusal(err error) bool {
	var state interface{ SQLState() string }
	if !errors.As(err, &state) {
		return false
	}
	code := state.SQLState()
	return !strings.HasPrefix(code, "53") && !strings.HasPrefix(code, "57")
}

// message returns the line to print for an error, or "" for an error without one.
func message(err error) string {
	var child *childError
	var signal *signalError
	var logged *loggedError
	var notAcquired *notAcquiredError
	var interrupted *supervise.InterruptedError
	if errors.As(err, &notAcquired) { // also if it is because the command failed
		return termtext.Line(notAcquired.text)
	}
	if err == nil || errors.Is(err, errFree) || errors.As(err, &child) || errors.As(err, &signal) || errors.As(err, &logged) || errors.As(err, &interrupted) {
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
	return termtext.Line(strings.TrimPrefix(strings.TrimPrefix(text, "pglock: "), "inspect: "))
}
