package prioritize

import (
	"fmt"
	"strings"
	"time"

	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/internal/termtext"
)

// An Event is something that happened. Which of its fields mean something depends
// on its Kind. String is what happened, for a person.
type Event struct {
	Kind EventKind
	Time time.Time

	// PID is the session whose way is cleared; 0 where it is about none.
	PID int32

	// Application and User are that session's, where the event is about its
	// coming and going.
	Application, User string

	// Blocked are who keeps the session waiting, holders first: of a Blocked
	// event all of them, of one that is about a single blocker that one.
	Blocked []inspect.Pair

	// Waited is how long the session has waited, or waited in all.
	Waited time.Duration

	// Reason is why a blocker was spared.
	Reason Reason

	// Try is the number of the try, from 1, and Pause how long it is until the
	// next one; 0 when there is none.
	Try   int
	Pause time.Duration

	// Err is what went wrong, or nil.
	Err error
}

// EventKind is what happened.
type EventKind string

// What happens. A watcher's events come in the order in which it saw them.
const (
	Watching   EventKind = "watching"   // a session is watched from now on
	Left       EventKind = "left"       // it has ended
	Unseen     EventKind = "unseen"     // RunFor has looked for 3 s, and none of the sessions it is to watch was there
	Blocked    EventKind = "blocked"    // it waits, and who blocks it is new or has changed
	Freed      EventKind = "freed"      // it waits no more
	Overdue    EventKind = "overdue"    // a blocker is past its grace, and the policy is to report
	Cancelled  EventKind = "cancelled"  // a cancel was sent to a blocker
	Terminated EventKind = "terminated" // a blocker was sent the signal to end
	Called     EventKind = "called"     // the user's function was called about a blocker; Err is what it returned
	Spared     EventKind = "spared"     // a blocker is past its grace, and is left alone for a Reason
	WatchLost  EventKind = "watch lost" // the watcher's session is lost; it opens another
	WatchBack  EventKind = "watch back" // it has another
	Tried      EventKind = "tried"      // a try of Retry has ended; Err is nil when it succeeded
)

// Reason is why a blocker was spared.
type Reason string

// The reasons.
const (
	SparedQueued      Reason = "queued"        // it only stands ahead in the queue; see ClearQueue
	SparedIdle        Reason = "idle"          // it runs nothing that could be cancelled
	SparedSuperuser   Reason = "superuser"     // of a superuser, and of another role than ours; see Allow
	SparedAutovacuum  Reason = "autovacuum"    // it yields by itself
	SparedWraparound  Reason = "wraparound"    // autovacuum that prevents wraparound, and does not yield
	SparedBackground  Reason = "background"    // no client's session; see Allow
	SparedOwn         Reason = "own"           // of this run
	SparedRun         Reason = "another run"   // of another run of this package, or its watcher
	SparedHidden      Reason = "hidden"        // our role sees too little of it to tell it from another with its PID
	SparedPrepared    Reason = "prepared"      // a prepared transaction, which no signal ends
	SparedFiltered    Reason = "filtered"      // Only does not match it
	SparedMax         Reason = "max"           // Max is reached
	SparedLate        Reason = "late"          // it came after those that Once is for
	SparedNotAllowed  Reason = "not permitted" // our role may not signal it; Err has what Postgres says
	SparedNotBlocking Reason = "not blocking"  // it blocked when last looked at, and no more when it was to be signalled
)

// says is the reason as the end of a sentence.
func (r Reason) says() string {
	switch r {
	case SparedQueued:
		return "it only stands ahead in the queue"
	case SparedIdle:
		return "it runs nothing, so that a cancel would free nothing: terminating it would"
	case SparedSuperuser:
		return "its role is a superuser and not ours, and superusers were not named to be ended"
	case SparedAutovacuum:
		return "autovacuum yields by itself when the wait has lasted for deadlock_timeout"
	case SparedWraparound:
		return "autovacuum prevents transaction ID wraparound here, does not yield, and would start again: let it finish"
	case SparedBackground:
		return "it is no client's session, and those were not named to be ended"
	case SparedOwn:
		return "it belongs to this run"
	case SparedRun:
		return "it belongs to another run of pglock prioritize, which goes first: this one waits until it has ended"
	case SparedHidden:
		return "this role does not see when its session began, nor anything else that tells it from another with the same PID: a superuser can permit it with GRANT pg_read_all_stats"
	case SparedPrepared:
		return "no signal ends a prepared transaction"
	case SparedFiltered:
		return "the filters do not match it"
	case SparedMax:
		return "as many as allowed were ended"
	case SparedLate:
		return "it came later than those that were to be ended"
	case SparedNotAllowed:
		return "this role may not end it: it takes membership in its role or in pg_signal_backend, and a superuser for a superuser"
	case SparedNotBlocking:
		return "it is in the way no more"
	}
	return string(r)
}

// String is the event on one line, without the text of queries. It is safe to be
// shown on a terminal, whatever names others have given themselves.
func (e Event) String() string { return termtext.Line(e.text()) }

func (e Event) text() string {
	switch e.Kind {
	case Watching:
		return fmt.Sprintf("watching pid %d (%s)", e.PID, whose(e.Application, e.User))
	case Left:
		return fmt.Sprintf("pid %d has ended", e.PID)
	case Unseen:
		return fmt.Sprintf("none of the sessions to watch has been there for %v", round(e.Waited))
	case Blocked:
		return fmt.Sprintf("pid %d has waited for %v%s, blocked by %s", e.PID, round(e.Waited), waitsFor(e.Blocked), blockers(e.Blocked))
	case Freed:
		return fmt.Sprintf("pid %d runs on after %v", e.PID, round(e.Waited))
	case Overdue:
		return fmt.Sprintf("past its grace, and only reported: %s", blockers(e.Blocked))
	case Cancelled:
		return fmt.Sprintf("cancelled what it runs: %s", blockers(e.Blocked))
	case Terminated:
		return fmt.Sprintf("terminated: %s", blockers(e.Blocked))
	case Called:
		if e.Err != nil {
			return fmt.Sprintf("called about %s: %v", blockers(e.Blocked), e.Err)
		}
		return fmt.Sprintf("called about %s", blockers(e.Blocked))
	case Spared:
		return fmt.Sprintf("spared: %s: %s", blockers(e.Blocked), e.Reason.says())
	case WatchLost:
		return fmt.Sprintf("the watcher has lost its session and opens another: %v", e.Err)
	case WatchBack:
		return "the watcher has a session again"
	case Tried:
		switch {
		case e.Err == nil:
			return fmt.Sprintf("try %d: done", e.Try)
		case e.Pause > 0:
			return fmt.Sprintf("try %d: %v%s; next in %v", e.Try, e.Err, blockedBy(e.Blocked), round(e.Pause))
		}
		return fmt.Sprintf("try %d: %v%s", e.Try, e.Err, blockedBy(e.Blocked))
	}
	return string(e.Kind)
}

// whose describes a session by what it says of itself.
func whose(application, user string) string {
	var parts []string
	if application != "" {
		parts = append(parts, fmt.Sprintf("%q", application))
	}
	if user != "" {
		parts = append(parts, "user "+user)
	}
	if len(parts) == 0 {
		return "of the server's own"
	}
	return strings.Join(parts, ", ")
}

// blockedBy is who blocks, as the end of a sentence; "" when nobody is known.
func blockedBy(pairs []inspect.Pair) string {
	if len(pairs) == 0 {
		return ""
	}
	return ": blocked by " + blockers(pairs)
}

// waitsFor is what is waited for.
func waitsFor(pairs []inspect.Pair) string {
	if len(pairs) == 0 {
		return ""
	}
	return fmt.Sprintf(" for %s on %s", pairs[0].Mode, pairs[0].Target())
}

// manyBlockers is how many blockers are named on one line.
const manyBlockers = 4

func blockers(pairs []inspect.Pair) string {
	var parts []string
	for i, p := range pairs {
		if i == manyBlockers {
			parts = append(parts, fmt.Sprintf("and %d more", len(pairs)-i))
			break
		}
		parts = append(parts, describe(p))
	}
	return strings.Join(parts, "; ")
}

// describe is who blocks, and how. It leaves out the query, which may hold what
// is not for a log.
func describe(p inspect.Pair) string {
	s := p.Blocking
	if s.Prepared != nil {
		return fmt.Sprintf("prepared transaction %q of %s since %s, which %s ends (in database %s)",
			s.Prepared.GID, s.Prepared.Owner, s.Prepared.PreparedAt.UTC().Format(time.RFC3339),
			s.Prepared.Remedy(), s.Prepared.Database)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "pid %d (", s.PID)
	if s.User == "" && s.BackendType != "" {
		b.WriteString(s.BackendType)
	} else {
		b.WriteString(whose(s.Application, s.User))
	}
	if s.State != "" {
		fmt.Fprintf(&b, ", %s", s.State)
		if s.Duration > 0 {
			fmt.Fprintf(&b, " for %v", round(s.Duration))
		}
	}
	b.WriteString(")")
	if p.Block == inspect.Soft {
		b.WriteString(" ahead in the queue")
	}
	return b.String()
}

// round makes a duration readable.
func round(d time.Duration) time.Duration {
	switch {
	case d >= time.Minute:
		return d.Round(time.Second)
	case d >= time.Second:
		return d.Round(10 * time.Millisecond)
	}
	return d.Round(time.Millisecond)
}
