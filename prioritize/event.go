package prioritize

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/internal/termtext"
)

// An Event is something that happened. Its Kind determines which fields are set.
// String describes it for a person.
type Event struct {
	Kind EventKind
	Time time.Time

	// PID is the session whose way is cleared; 0 if the event is about no session.
	PID int32

	// Application and User are that session's, in Watching and Left events.
	Application, User string

	// Blocked lists the session's blockers, holders first: all of them in a Blocked
	// event, a single one in an event about one blocker.
	Blocked []inspect.Pair

	// Waited is how long the session has waited so far, or waited in total.
	Waited time.Duration

	// Reason is why a blocker was spared, and Class why it is Protected.
	Reason inspect.Reason
	Class  inspect.Class

	// Try is the number of the try, from 1. Pause is the time until the next one, or
	// 0 if there is none.
	Try   int
	Pause time.Duration

	// Err is the error, or nil.
	Err error
}

// EventKind is the kind of an [Event].
type EventKind string

// The kinds of events. A watcher's events come in the order in which it saw them.
const (
	Watching   EventKind = "watching"   // a session is watched from now on
	Left       EventKind = "left"       // it has ended
	Unseen     EventKind = "unseen"     // RunFor has found none of its sessions for 3 s
	Blocked    EventKind = "blocked"    // it waits, and its blockers are new or have changed
	Freed      EventKind = "freed"      // it no longer waits
	Overdue    EventKind = "overdue"    // a blocker is past its grace, and the policy is to report
	Canceled   EventKind = "canceled"   // a cancel was sent to a blocker
	Terminated EventKind = "terminated" // a blocker was sent SIGTERM
	Called     EventKind = "called"     // the user's function was called about a blocker; Err is what it returned
	Spared     EventKind = "spared"     // a blocker is past its grace and was left alone for a Reason
	Watcher    EventKind = "watcher"    // the watcher lost its session and is opening another; Err is nil once it has one again
	Tried      EventKind = "tried"      // a try of Retry has ended; Err is nil if it succeeded
)

// spareText returns why a blocker was spared, as the end of a sentence.
func spareText(reason inspect.Reason, class inspect.Class) string {
	switch reason {
	case inspect.Protected:
		return protectedText(class)
	case inspect.Queued:
		return "it is only ahead in the lock queue"
	case inspect.Idle:
		return "it runs no statement to cancel: only terminating it would release its locks"
	case inspect.Wraparound:
		return "it is an autovacuum to prevent transaction ID wraparound, which does not yield and would start again: let it finish"
	case inspect.Hidden:
		return "this role cannot verify that its PID is still the same session: a superuser can permit it with GRANT pg_read_all_stats"
	case inspect.NoProcess:
		return "no signal ends a prepared transaction"
	case inspect.Excluded:
		return "the filters do not match it"
	case inspect.MaxReached:
		return "the maximum number of sessions was ended"
	case inspect.TooLate:
		return "it came too late to be among those to be ended"
	case inspect.NotPermitted:
		return "this role may not end it: that needs membership in its role or in pg_signal_backend, and for a superuser's session a superuser"
	case inspect.NotBlocking:
		return "it no longer blocks"
	}
	return string(reason)
}

// protectedText returns why a blocker of that class was spared.
func protectedText(class inspect.Class) string {
	switch class {
	case inspect.Superusers:
		return "its role is a superuser and not ours, so it is ended only if superusers are allowed"
	case inspect.Autovacuum:
		return "autovacuum yields by itself after deadlock_timeout"
	case inspect.Background:
		return "it is not a client session, so it is ended only if background processes are allowed"
	case inspect.Ourselves:
		return "it belongs to this run"
	case inspect.OtherRuns:
		return "it belongs to another run of pglock prioritize, which goes first: wait until that run has ended"
	}
	return string(class)
}

// String returns the event on one line, without the text of queries. It is safe to
// show on a terminal, whatever names other sessions have chosen.
func (e Event) String() string { return termtext.Line(e.text()) }

func (e Event) text() string {
	switch e.Kind {
	case Watching:
		return "watching " + sessionText(e.PID, e.Application, e.User, "")
	case Left:
		return fmt.Sprintf("pid %d has ended", e.PID)
	case Unseen:
		return fmt.Sprintf("none of the sessions to watch was found for %v", round(e.Waited))
	case Blocked:
		return fmt.Sprintf("pid %d has waited for %v%s, blocked by %s", e.PID, round(e.Waited), awaited(e.Blocked), blockers(e.Blocked))
	case Freed:
		return fmt.Sprintf("pid %d runs on after %v", e.PID, round(e.Waited))
	case Overdue:
		return fmt.Sprintf("past its grace, and only reported: %s", blockers(e.Blocked))
	case Canceled:
		return fmt.Sprintf("canceled: %s", blockers(e.Blocked))
	case Terminated:
		return fmt.Sprintf("terminated: %s", blockers(e.Blocked))
	case Called:
		if e.Err != nil {
			return fmt.Sprintf("called about %s: %v", blockers(e.Blocked), e.Err)
		}
		return fmt.Sprintf("called about %s", blockers(e.Blocked))
	case Spared:
		return fmt.Sprintf("spared: %s: %s", blockers(e.Blocked), spareText(e.Reason, e.Class))
	case Watcher:
		if e.Err != nil {
			return fmt.Sprintf("the watcher lost its session and is opening another: %v", e.Err)
		}
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

// sessionText describes a session. One without a role is a process of the server.
func sessionText(pid int32, application, user, backendType string, more ...string) string {
	if user == "" && (backendType != "" || application == "") {
		application, more = "", append([]string{cmp.Or(backendType, "server process")}, more...)
	}
	return termtext.Session(pid, application, user, more...)
}

// blockedBy returns the blockers as the end of a sentence, or "" if there are none.
func blockedBy(pairs []inspect.Pair) string {
	if len(pairs) == 0 {
		return ""
	}
	return ": blocked by " + blockers(pairs)
}

// awaited returns which lock the pairs wait for.
func awaited(pairs []inspect.Pair) string {
	if len(pairs) == 0 {
		return ""
	}
	return fmt.Sprintf(" for %s on %s", pairs[0].Mode, pairs[0].Target())
}

// maxBlockers limits how many blockers one line names.
const maxBlockers = 4

func blockers(pairs []inspect.Pair) string {
	var parts []string
	for i, p := range pairs {
		if i == maxBlockers {
			parts = append(parts, fmt.Sprintf("and %d more", len(pairs)-i))
			break
		}
		parts = append(parts, describe(p))
	}
	return strings.Join(parts, "; ")
}

// describe returns one blocker and how it blocks. It leaves out the query, which may
// hold text that does not belong in a log.
func describe(p inspect.Pair) string {
	s := p.Blocking
	if s.Prepared != nil {
		return fmt.Sprintf("prepared transaction %q of %s since %s, which %s ends (in database %s)",
			s.Prepared.GID, s.Prepared.Owner, s.Prepared.PreparedAt.UTC().Format(time.RFC3339),
			s.Prepared.Remedy(), s.Prepared.Database)
	}
	var state []string
	if s.State != "" {
		state = []string{s.State}
		if s.Duration > 0 {
			state[0] += fmt.Sprintf(" for %v", round(s.Duration))
		}
	}
	text := sessionText(s.PID, s.Application, s.User, s.BackendType, state...)
	if !p.Hard {
		text += " ahead in the queue"
	}
	return text
}

// round returns d with a precision that people can read.
func round(d time.Duration) time.Duration {
	switch {
	case d >= time.Minute:
		return d.Round(time.Second)
	case d >= time.Second:
		return d.Round(10 * time.Millisecond)
	}
	return d.Round(time.Millisecond)
}
