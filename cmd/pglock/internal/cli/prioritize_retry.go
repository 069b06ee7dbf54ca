package cli

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/cmd/pglock/internal/render"
	"github.com/pglock-go/pglock/prioritize"
)

// retryLockTimeout is the lock_timeout of a command that is tried again, unless
// --lock-timeout is given.
const retryLockTimeout = 2 * time.Second

// retryFlags are the flags of pglock prioritize --retry.
type retryFlags struct {
	on     bool
	budget durationFlag
	tries  countFlag
	codes  codesFlag
}

func (f *retryFlags) register(flags *pflag.FlagSet) {
	f.budget = durationFlag{min: time.Nanosecond, what: "must be longer than 0; use --tries 1 to try once"}
	f.tries = countFlag{what: "must be 1 or more"}
	flags.BoolVar(&f.on, "retry", false, "run COMMAND again if it did not acquire a lock within --lock-timeout (2s)")
	flags.Var(&f.budget, "budget", "retry for this time (10m without --tries)")
	flags.Var(&f.tries, "tries", "run COMMAND at most `N` times")
	flags.Var(&f.codes, "retry-on", "exit `CODE` by which COMMAND reports a lock that it did not acquire; repeat for several")
}

// request returns what the flags ask for, or nil without --retry.
func (f *retryFlags) request(cmd *cobra.Command) (*retryRequest, error) {
	if f.on {
		return &retryRequest{budget: f.budget.value, tries: f.tries.value, codes: f.codes}, nil
	}
	for _, name := range []string{"budget", "tries", "retry-on"} {
		if cmd.Flags().Changed(name) {
			return nil, usagef(cmd, "--%s needs --retry", name)
		}
	}
	return nil, nil
}

// A retryRequest says how often a command is tried again.
type retryRequest struct {
	budget time.Duration // 0 for the default
	tries  int           // 0 for no limit
	codes  []int
}

func (r prioritizeRequest) retryOptions(onEvent func(prioritize.Event)) []prioritize.RetryForOption {
	options := []prioritize.RetryForOption{prioritize.LockTimeout(r.lockTimeout)}
	for _, o := range r.options(onEvent) {
		options = append(options, o)
	}
	if r.retry.budget > 0 {
		options = append(options, prioritize.Budget(r.retry.budget))
	}
	if r.retry.tries > 0 {
		options = append(options, prioritize.Tries(r.retry.tries))
	}
	return options
}

// classify returns err, as a lock that was not acquired if its exit code is one of
// --retry-on. r may be nil.
func (r *retryRequest) classify(err *childError) error {
	if r != nil && slices.Contains(r.codes, err.status.ExitCode()) {
		return &lockCodeError{err}
	}
	return err
}

// A lockCodeError is an exit code that reports a lock that was not acquired.
type lockCodeError struct{ *childError }

func (e *lockCodeError) Unwrap() []error { return []error{e.childError, pglock.ErrNotAcquired} }

// isTimeout reports whether lock_timeout may have ended a wait that was seen for d. Before
// Postgres 14, the beginning of a wait is not seen.
func (r prioritizeRequest) isTimeout(d time.Duration) bool {
	return d >= r.lockTimeout-min(r.lockTimeout/4, 250*time.Millisecond)
}

// errInterrupted ends the retries after a signal that ends programs, which was passed to
// the command.
var errInterrupted = errors.New("interrupted")

// onRetryEvent logs what concerns retries. s.mu is held.
func (s *blockerReport) onRetryEvent(e prioritize.Event) {
	limit := s.r.lockTimeout
	switch {
	case e.Kind == prioritize.Tried && e.Pause > 0 && !s.warned:
		s.warned = true
		s.app.logf("%s runs again from its beginning; what it has committed stays", render.Quote(s.r.command[0]))
	case e.Kind == prioritize.Blocked && s.late[e.PID] == nil:
		pid := e.PID
		s.late[pid] = time.AfterFunc(2*limit+time.Second-e.Waited, func() {
			s.logf("pid %d waits for longer than lock_timeout (%v): PGOPTIONS did not reach it, or it sets its own; give --lock-timeout the same value", pid, limit)
		})
	case e.Kind == prioritize.Freed && s.late[e.PID] != nil:
		s.late[e.PID].Stop()
		delete(s.late, e.PID)
		s.waitedFor = max(s.waitedFor, e.Waited)
	case e.Kind == prioritize.Tried && e.Err == nil && s.r.isTimeout(s.waitedFor):
		s.app.logf("a session of the command waited for about lock_timeout (%v), but the command exited with 0: if a statement failed, let the command fail too (psql: -v ON_ERROR_STOP=1)", limit)
	}
	if e.Kind == prioritize.Tried {
		s.waitedFor = 0
	}
}

// retryEnded returns the error to exit with after RetryFor returned err.
func (s *blockerReport) retryEnded(ctx context.Context, err error) error {
	var failure *prioritize.Error
	var child *childError
	cause := context.Cause(ctx)
	switch {
	case errors.Is(cause, errInterrupted) && errors.As(err, &child):
		return child
	case errors.As(err, &failure) && (cause == nil || errors.Is(cause, errTooMuchInput)):
		text := strings.TrimPrefix(failure.Error(), "pglock: retry: ")
		return &notAcquiredError{err: err, code: exitNotAcquired, text: text}
	case errors.As(err, &child) && cause == nil:
		s.logf("not tried again: none of the command's sessions waited until lock_timeout (%v), so a lock does not seem to be the reason", s.r.lockTimeout)
	}
	return err
}

// codesFlag is --retry-on: exit codes.
type codesFlag []int

func (f *codesFlag) Type() string { return "CODE" }

func (f *codesFlag) String() string {
	var codes []string
	for _, code := range *f {
		codes = append(codes, strconv.Itoa(code))
	}
	return strings.Join(codes, ",")
}

func (f *codesFlag) Set(s string) error {
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > 255 {
		return errors.New("an exit code that reports a failure is a number from 1 to 255")
	}
	*f = append(*f, n)
	return nil
}
