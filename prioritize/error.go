package prioritize

import (
	"fmt"
	"strings"
	"time"

	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/internal/termtext"
)

// An Error is what [Run], [RunFor] and [Retry] return when the function failed
// because of a lock: its error, which errors.Is and errors.As find in it, and who
// was in the way.
type Error struct {
	// Op is "prioritize" or "retry".
	Op string

	// Blocked are who kept the session waiting when the watcher last saw it wait,
	// holders first, and Seen is when that was. Empty when it never saw it: the
	// wait may have been too short.
	Blocked []inspect.Pair
	Seen    time.Time

	// Spared are the blockers that were past their grace and were left alone, each
	// with the last reason, in the order in which they were spared. Whoever was dealt
	// with afterwards is not among them.
	Spared []Spare

	// Calls is what the function of [Call] returned last about each blocker, where
	// that was an error. errors.Is and errors.As find it.
	Calls []error

	// Tries is how often Retry tried, and Elapsed how long that took in all.
	Tries   int
	Elapsed time.Duration

	// Err is the function's error; of Retry, that of the last try.
	Err error

	// Cause is why Retry tried no more when that was ctx: context.Cause of it.
	Cause error
}

// A Spare is a blocker that was left alone, and why. Err is the server's error if it
// refused, or nil.
type Spare struct {
	inspect.Pair
	Reason Reason
	Err    error
}

// Error is one line: what failed, why, and who was in the way. It leaves out the
// text of queries, which [Error.Blocked] has, and is safe to be shown on a terminal.
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
		fmt.Fprintf(&b, ": waited%s, blocked by %s", waitsFor(e.Blocked), blockers(e.Blocked))
	}
	for i, s := range e.Spared {
		if i == manyBlockers {
			fmt.Fprintf(&b, "; %d more were spared", len(e.Spared)-i)
			break
		}
		who := fmt.Sprintf("pid %d", s.Blocking.PID)
		if s.Blocking.Prepared != nil {
			who = fmt.Sprintf("prepared transaction %q", s.Blocking.Prepared.GID)
		}
		fmt.Fprintf(&b, "; %s was spared: %s", who, s.Reason.says())
	}
	for _, err := range e.Calls {
		fmt.Fprintf(&b, "; %v", err)
	}
	return termtext.Line(b.String())
}

// Unwrap returns the function's error, those of Call's function, and ctx's if that
// ended the trying.
func (e *Error) Unwrap() []error {
	errs := append([]error{e.Err}, e.Calls...)
	if e.Cause != nil {
		errs = append(errs, e.Cause)
	}
	return errs
}
