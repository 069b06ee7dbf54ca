package prioritize

import (
	"fmt"
	"strings"
	"time"

	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/internal/termtext"
)

// An Error is returned by the functions of this package if the function failed because
// of a lock. It wraps the function's error and lists the blockers.
type Error struct {
	// Op is "prioritize" or "retry".
	Op string

	// Blocked lists the blockers that the watcher last saw, holders first, and Seen
	// is when it saw them. Blocked is empty if the watcher saw no wait, which may
	// have been too short.
	Blocked []inspect.Pair
	Seen    time.Time

	// Spared lists the blockers that were past their grace and were left alone, each
	// as the last [Spared] event about it, in the order in which they were spared. A
	// blocker that was signaled later is not listed.
	Spared []Event

	// Calls lists the last error that the function of [Call] returned for each
	// blocker. errors.Is and errors.As find them.
	Calls []error

	// Tries is how often Retry tried, and Elapsed is the total time.
	Tries   int
	Elapsed time.Duration

	// Err is the function's error; with Retry, that of the last try.
	Err error

	// Cause is context.Cause(ctx) if Retry stopped because ctx ended.
	Cause error
}

// Error returns one line that reports what failed, why, and which sessions blocked
// it. It leaves out the text of queries, which [Error.Blocked] has, and is safe to
// show on a terminal.
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "pglock: %s: ", e.Op)
	if e.Tries > 0 {
		tries := "tries"
		if e.Tries == 1 {
			tries = "try"
		}
		fmt.Fprintf(&b, "gave up after %d %s in %v: ", e.Tries, tries, round(e.Elapsed))
	}
	if e.Cause != nil {
		fmt.Fprintf(&b, "%v: ", e.Cause)
	}
	fmt.Fprintf(&b, "%v", e.Err)
	if len(e.Blocked) > 0 {
		fmt.Fprintf(&b, ": waited%s, blocked by %s", awaited(e.Blocked), blockers(e.Blocked))
	}
	for i, s := range e.Spared {
		if i == maxBlockers {
			fmt.Fprintf(&b, "; %d more were spared", len(e.Spared)-i)
			break
		}
		blocker := s.Blocked[0].Blocking
		who := fmt.Sprintf("pid %d", blocker.PID)
		if blocker.Prepared != nil {
			who = fmt.Sprintf("prepared transaction %q", blocker.Prepared.GID)
		}
		fmt.Fprintf(&b, "; %s was spared: %s", who, spareText(s.Reason, s.Class))
	}
	for _, err := range e.Calls {
		fmt.Fprintf(&b, "; %v", err)
	}
	return termtext.Line(b.String())
}

// Unwrap returns the function's error, the errors of Call's function, and the error
// of ctx if that ended the retries.
func (e *Error) Unwrap() []error {
	errs := append([]error{e.Err}, e.Calls...)
	if e.Cause != nil {
		errs = append(errs, e.Cause)
	}
	return errs
}
