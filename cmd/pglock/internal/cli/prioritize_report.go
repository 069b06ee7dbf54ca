package cli

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pglock-go/pglock/cmd/pglock/internal/render"
	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/prioritize"
)

// A blockerReport logs on stderr how the way is cleared for a command: each event as it
// happens, and a summary of the blockers at the end. It leaves out queries, whose data
// does not belong in the log of a migration.
type blockerReport struct {
	*app
	r prioritizeRequest

	mu        sync.Mutex // guards the fields below; events and the command are concurrent
	started   time.Time
	warned    bool                  // it was logged that the command runs again
	late      map[int32]*time.Timer // logs that a wait outlasts lock_timeout, by PID
	waitedFor time.Duration         // the longest wait in this try
	seen      bool                  // a session of the command was seen
	ended     bool                  // the command has ended
	overdue   bool                  // a blocker was only reported
	waits     map[int32][]blockerID
	blockers  map[blockerID]*blocker
	order     []blockerID
}

type blockerID struct {
	pid   int32
	start time.Time
	gid   string // of a prepared transaction
}

// A blocker is a session that blocks or blocked the command.
type blocker struct {
	pair    inspect.Pair // as last seen
	waits   int          // sessions of the command that it blocks now
	since   time.Time    // when it began to block the first of these
	total   time.Duration
	actions []string
}

// maxSummaryLines is how many blockers the summary lists.
const maxSummaryLines = 50

func newBlockerReport(a *app, r prioritizeRequest) *blockerReport {
	return &blockerReport{app: a, r: r, waits: map[int32][]blockerID{}, blockers: map[blockerID]*blocker{}, late: map[int32]*time.Timer{}}
}

// logf writes a line to stderr, one at a time.
func (s *blockerReport) logf(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.app.logf(format, args...)
}

// begin records that the command started.
func (s *blockerReport) begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = false
	if s.started.IsZero() {
		s.started = time.Now()
	}
}

// hasBegun reports whether the command was started.
func (s *blockerReport) hasBegun() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.started.IsZero()
}

// end records that nothing of the command is left.
func (s *blockerReport) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
}

// missing describes which sessions were looked for in vain, and what helps.
func (s *blockerReport) missing() string {
	var what []string
	for i, name := range s.r.who.Applications {
		text := render.Quote(name)
		if i == 0 {
			text = "application_name " + text + " (passed in PGAPPNAME)"
		}
		what = append(what, text)
	}
	for _, user := range s.r.who.Users {
		what = append(what, "user "+render.Quote(user))
	}
	for _, pid := range s.r.who.PIDs {
		what = append(what, fmt.Sprintf("pid %d", pid))
	}
	return fmt.Sprintf("none has %s; use --application-name, --user or --pid", strings.Join(what, ", or "))
}

// onEvent handles an event.
func (s *blockerReport) onEvent(e prioritize.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.record(e)
	switch e.Kind {
	case prioritize.Left:
		return
	case prioritize.Watching:
		s.seen = true
	case prioritize.Unseen:
		if !s.ended && !s.started.IsZero() {
			s.app.logf("no session of the command was seen in %v: %s", e.Waited, s.missing())
		}
		return
	case prioritize.Overdue:
		s.overdue = true
	}
	if e.Kind == prioritize.Freed && s.r.retry != nil && s.r.isTimeout(e.Waited) {
		s.app.logf("pid %d waited for about lock_timeout (%v)", e.PID, s.r.lockTimeout)
	} else {
		s.app.logf("%s%s", e, advice(e))
	}
	if s.r.retry != nil {
		s.onRetryEvent(e)
	}
}

// advice returns the flag that would end a blocker that was spared, or "".
func advice(e prioritize.Event) string {
	switch {
	case e.Reason == inspect.Idle:
		return " (only --terminate, or --escalate after its time, ends it)"
	case e.Reason != inspect.Protected:
		return ""
	}
	switch e.Class {
	case inspect.Superusers:
		return " (use --allow superusers)"
	case inspect.Autovacuum:
		return " (or use --allow autovacuum)"
	case inspect.Background:
		return " (use --allow background)"
	}
	return ""
}

// spareReason returns why a blocker was spared, in a word or two.
func spareReason(e prioritize.Event) string {
	switch e.Reason {
	case inspect.Protected:
		switch e.Class {
		case inspect.Ourselves:
			return "own"
		case inspect.OtherRuns:
			return "another run"
		case inspect.Superusers:
			return "superuser"
		}
		return string(e.Class)
	case inspect.NoProcess:
		return "prepared"
	case inspect.Excluded:
		return "filtered"
	case inspect.MaxReached:
		return "max"
	case inspect.TooLate:
		return "late"
	}
	return string(e.Reason)
}

// record records who blocks, since when, and what was done about it.
func (s *blockerReport) record(e prioritize.Event) {
	switch e.Kind {
	case prioritize.Blocked, prioritize.Freed:
		var now []blockerID
		for _, p := range e.Blocked {
			if id := s.track(p); !slices.Contains(now, id) {
				now = append(now, id)
			}
		}
		before, since := s.waits[e.PID], e.Time
		if len(before) == 0 { // a new wait, which began earlier
			since = e.Time.Add(-e.Waited)
		}
		for _, id := range now {
			if b := s.blockers[id]; !slices.Contains(before, id) {
				if b.waits++; b.waits == 1 {
					b.since = since
				}
			}
		}
		for _, id := range before {
			if b := s.blockers[id]; !slices.Contains(now, id) {
				if b.waits--; b.waits == 0 {
					b.total += e.Time.Sub(b.since)
				}
			}
		}
		s.waits[e.PID] = now
		if len(now) == 0 {
			delete(s.waits, e.PID)
		}
		return
	}
	action := string(e.Kind)
	switch e.Kind {
	case prioritize.Overdue:
		action = "only reported"
	case prioritize.Spared:
		if e.Reason == inspect.NotBlocking {
			return // the summary reports no action
		}
		action = "spared (" + spareReason(e) + ")"
	case prioritize.Canceled, prioritize.Terminated:
	default:
		return
	}
	for _, p := range e.Blocked {
		if b := s.blockers[s.track(p)]; !slices.Contains(b.actions, action) {
			b.actions = append(b.actions, action)
		}
	}
}

// track returns the id of the blocking session of p, and adds it to the blockers.
func (s *blockerReport) track(p inspect.Pair) blockerID {
	id := blockerID{pid: p.Blocking.PID, start: p.Blocking.BackendStart}
	if p.Blocking.Prepared != nil {
		id.gid = p.Blocking.Prepared.GID
	}
	b := s.blockers[id]
	if b == nil {
		b = &blocker{}
		s.blockers[id] = b
		s.order = append(s.order, id)
	}
	b.pair = p
	return id
}

// writeSummary writes the summary.
func (s *blockerReport) writeSummary() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, id := range s.order {
		if i == maxSummaryLines {
			s.app.logf("summary: %d more blockers", len(s.order)-i)
			break
		}
		b := s.blockers[id]
		actions := "no action, as it did not block for longer than " + s.r.after.String()
		if s.r.retry != nil {
			actions = "not ended"
		}
		if len(b.actions) > 0 {
			actions = strings.Join(b.actions, ", then ")
		}
		s.app.logf("summary: %s blocked for %s, on %s: %s", render.Session(b.pair.Blocking), render.Duration(b.total), b.pair.Target(), actions)
	}
	switch took := time.Since(s.started); {
	case s.overdue && !s.r.dryRun:
		s.app.logf("no session was ended; use --cancel, --terminate or --escalate")
	case s.seen:
	case took < time.Second:
		s.app.logf("no session of the command was seen in the %s that it ran: %s", render.Duration(took), s.missing())
	default:
		s.app.logf("no session of the command was seen: %s", s.missing())
	}
}
