package prioritize

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/internal/signal"
)

// A tracker records which sessions block which others, and since when, and decides
// when each blocker is due. It sends no query and reads no clock: its owner passes in
// what it saw and when, in local time, since the server's clock may differ.
type tracker struct {
	config *config
	waits  map[int32]*wait // by the waiter's PID
	ended  map[victim]bool // those that were signaled
	closed bool            // with Once: new blockers come too late

	seen      time.Time // when the waits were last seen
	timedOut  time.Time // by when a wait had last ended that lock_timeout may have ended
	pollBegan time.Time // when the previous poll began
}

// A wait is one wait of one session.
type wait struct {
	id      string    // identifies the wait among those of the session
	began   time.Time // as far as known
	exact   bool      // began is the server's
	start   time.Time // when it began by the server's clock, if exact
	first   time.Time // when it began at the earliest
	pairs   []inspect.Pair
	entries map[victim]*entry
}

// A victim identifies a blocker: a session or a prepared transaction.
type victim struct {
	pid   int32
	start int64  // backend_start in microseconds, which is Postgres' precision
	gid   string // of a prepared transaction

	// transaction is the virtual transaction ID under which it holds its lock, if its
	// start is hidden.
	transaction string
}

func victimOf(p *inspect.Pair) victim {
	s := p.Blocking
	v := victim{pid: s.PID}
	if !s.BackendStart.IsZero() {
		v.start = s.BackendStart.UnixMicro()
	} else if p.Held != nil && p.Type != "advisory" { // an advisory lock may be held across transactions
		v.transaction = p.Held.Transaction
	}
	if s.Prepared != nil {
		v.gid = s.Prepared.GID
	}
	return v
}

// An entry is one blocker of a waiting session.
type entry struct {
	victim
	pair      inspect.Pair
	since     time.Time     // when the grace began
	next      time.Time     // when it is due next; zero is never
	sparedFor signal.Result // why it was spared, as last reported

	yieldedAt time.Time // when it was first spared as another run's

	firstAction time.Time // when CancelThenTerminate first acted on it
	terminated  bool      // it was terminated, or Call was called about it
	early       bool      // it blocked when the first blocker was past its grace
}

func newTracker(c *config) *tracker {
	return &tracker{config: c, waits: map[int32]*wait{}, ended: map[victim]bool{}}
}

// update records the blockers of the sessions pids. A session without a pair no longer
// waits. If unobserved is not zero, no new blocker counts as blocking before it. update
// returns the sessions whose wait is new or whose blockers have changed, and how long
// the sessions had waited whose wait is over.
func (t *tracker) update(now, unobserved time.Time, pids []int32, pairs []inspect.Pair) (changed []int32, over map[int32]time.Duration) {
	over = map[int32]time.Duration{}
	byWaiter := map[int32][]inspect.Pair{}
	for _, p := range pairs {
		byWaiter[p.PID] = append(byWaiter[p.PID], p)
	}
	for pid, w := range t.waits {
		if len(byWaiter[pid]) == 0 {
			over[pid] = now.Sub(w.began)
			t.noteEnd(w, now)
			delete(t.waits, pid)
		}
	}
	for _, pid := range pids {
		mine := byWaiter[pid]
		if len(mine) == 0 {
			continue
		}
		slices.SortStableFunc(mine, func(a, b inspect.Pair) int { return cmp.Compare(rank(a), rank(b)) })
		if t.updateWait(now, unobserved, pid, mine) {
			changed = append(changed, pid)
		}
	}
	t.seen = now
	return changed, over
}

// stillWait records that all waits go on.
func (t *tracker) stillWait(now time.Time) { t.seen = now }

// maxTimeoutError is how much the time of a wait may differ from what was seen.
const maxTimeoutError = 100 * time.Millisecond

// noteEnd records that a wait ended between when it was last seen and by. lock_timeout may
// have ended it if it expired in that time.
func (t *tracker) noteEnd(w *wait, by time.Time) {
	limit := t.config.lockTimeout
	if limit == 0 {
		return
	}
	slack := min(limit/4, maxTimeoutError)
	if t.seen.Sub(w.began) <= limit+slack && by.Sub(w.first) >= limit-slack {
		t.timedOut = by
	}
}

func rank(p inspect.Pair) int {
	if p.Hard {
		return 0
	}
	return 1
}

// updateWait records the blockers of one session and reports whether anything changed.
func (t *tracker) updateWait(now, unobserved time.Time, pid int32, pairs []inspect.Pair) bool {
	first := &pairs[0]
	began, exact := now, !first.WaitApprox && !first.WaitStart.IsZero()
	if exact {
		// The pairs are slightly older than now, so this is slightly late and never
		// early.
		began = now.Add(-first.WaitDuration)
	}
	w := t.waits[pid]
	// Waits are told apart by the server's time, so a late answer does not make an
	// old wait look new.
	fresh := w == nil || w.id != waitID(first) ||
		exact && w.exact && !first.WaitStart.Equal(w.start)
	if fresh {
		if w != nil {
			t.noteEnd(w, now)
		}
		w = &wait{id: waitID(first), began: began, exact: exact, first: t.pollBegan, entries: map[victim]*entry{}}
		t.waits[pid] = w
	}
	if exact && began.Before(w.began) {
		w.began = began
	}
	if exact {
		w.exact, w.start, w.first = true, first.WaitStart, w.began
	}

	changed := fresh || len(pairs) != len(w.pairs)
	entries := make(map[victim]*entry, len(pairs))
	for _, p := range pairs {
		v := victimOf(&p)
		e := w.entries[v]
		switch {
		case e == nil:
			changed = true
			e = &entry{victim: v, since: now}
			if fresh {
				e.since = w.began
				for _, later := range []time.Time{unobserved, heldSince(now, &p)} {
					if later.After(e.since) {
						e.since = later
					}
				}
			}
			e.next = e.since.Add(t.config.after)
		case e.pair.Hard != p.Hard:
			changed = true
			if p.Hard && !t.config.queue {
				// It has acquired the lock, so its grace begins.
				e.since, e.sparedFor = now, signal.Result{}
				e.next = now.Add(t.config.after)
			}
		}
		e.pair = p
		entries[v] = e
	}
	w.pairs, w.entries = pairs, entries
	return changed
}

// waitID returns a string that identifies what is waited for. It leaves out the row
// that a wait for a transaction is about, because that is not always known.
func waitID(p *inspect.Pair) string {
	what := fmt.Sprint(p.Type, p.Mode, p.VirtualXID, p.TransactionID, p.ClassID, p.ObjectID, p.ObjectSubID)
	if p.TransactionID == 0 {
		what += fmt.Sprint(p.DatabaseOID, p.RelationOID, p.Page, p.Tuple)
	}
	return what
}

// heldSince returns the earliest time from which the blocker can have blocked. A
// transaction has acquired its locks since it began; only an advisory lock may be
// older. Zero means unknown.
func heldSince(now time.Time, p *inspect.Pair) time.Time {
	if p.Blocking.XactStart.IsZero() || p.Type == "advisory" || p.WaitStart.IsZero() {
		return time.Time{}
	}
	server := p.WaitStart.Add(p.WaitDuration) // the server's clock when pairs were read
	return now.Add(-server.Sub(p.Blocking.XactStart))
}

// closeOnce marks the moment that [Once] acts on.
func (t *tracker) closeOnce() {
	if !t.config.once || t.closed {
		return
	}
	t.closed = true
	for _, w := range t.waits {
		for _, e := range w.entries {
			e.early = true
		}
	}
}

// due returns the blockers that are due, holders first, then by how long they have
// blocked.
func (t *tracker) due(now time.Time) []*entry {
	var due []*entry
	for _, w := range t.waits {
		for _, e := range w.entries {
			if !e.next.IsZero() && !e.next.After(now) {
				due = append(due, e)
			}
		}
	}
	slices.SortFunc(due, func(a, b *entry) int {
		return cmp.Or(cmp.Compare(rank(a.pair), rank(b.pair)), a.since.Compare(b.since),
			cmp.Compare(a.pid, b.pid), cmp.Compare(a.start, b.start))
	})
	return due
}

// next returns when the next blocker is due, or zero if none is.
func (t *tracker) next() time.Time {
	var next time.Time
	for _, w := range t.waits {
		for _, e := range w.entries {
			if !e.next.IsZero() && (next.IsZero() || e.next.Before(next)) {
				next = e.next
			}
		}
	}
	return next
}

// action returns what to do to e now.
func (t *tracker) action(now time.Time, e *entry) signal.Action {
	switch t.config.policy {
	case policyCancel:
		return signal.Cancel
	case policyTerminate:
		return signal.Terminate
	case policyEscalate:
		if e.firstAction.IsZero() || now.Before(e.firstAction.Add(t.config.escalate)) {
			return signal.Cancel
		}
		return signal.Terminate
	}
	return signal.Check
}

// spareReason returns why e is spared without asking the server, or the zero Result.
func (t *tracker) spareReason(e *entry, own func(*inspect.Session) bool) signal.Result {
	s := e.pair.Blocking
	switch {
	case s.Prepared != nil || s.PID == 0:
		return signal.Result{Reason: inspect.NoProcess}
	case own(s):
		return signal.Result{Reason: inspect.Protected, Class: inspect.Ourselves}
	case t.closed && !e.early:
		return signal.Result{Reason: inspect.TooLate}
	case !e.pair.Hard && !t.config.queue:
		return signal.Result{Reason: inspect.Queued}
	case t.config.max > 0 && len(t.ended) >= t.config.max && !t.ended[e.victim]:
		return signal.Result{Reason: inspect.MaxReached}
	}
	return signal.Result{}
}

// spare records that e is left alone and reports whether the reason is new.
func (t *tracker) spare(now time.Time, e *entry, why signal.Result) bool {
	news := e.sparedFor != why
	if news && why.Class == inspect.OtherRuns {
		e.yieldedAt = now
	}
	e.sparedFor = why
	e.next = now.Add(t.config.every)
	if why.Reason == inspect.Idle {
		// It may start a statement, which can be canceled.
		e.next = now.Add(max(t.config.interval, idleInterval))
		t.untilEscalation(now, e)
	}
	return news
}

// idleInterval is the shortest time between two checks of an idle session.
const idleInterval = 20 * time.Millisecond

// acted records that action was taken on e.
func (t *tracker) acted(now time.Time, e *entry, action signal.Action) {
	e.sparedFor = signal.Result{}
	switch action {
	case signal.Cancel:
		t.ended[e.victim] = true
	case signal.Terminate:
		e.terminated = true
		t.ended[e.victim] = true
	default: // reported, or Call was called
		e.terminated = true
	}
	e.next = now.Add(t.config.every)
	if t.config.once {
		e.next = time.Time{}
	}
	if t.config.policy == policyReport {
		e.next = time.Time{} // reported once
	}
	t.untilEscalation(now, e)
}

// untilEscalation makes sure that the second step of CancelThenTerminate is not late.
func (t *tracker) untilEscalation(now time.Time, e *entry) {
	if t.config.policy != policyEscalate || e.terminated {
		return
	}
	if e.firstAction.IsZero() {
		e.firstAction = now
	}
	second := e.firstAction.Add(t.config.escalate)
	if now.Before(second) && (e.next.IsZero() || second.Before(e.next)) {
		e.next = second
	}
}

// pairs returns all pairs, sorted by waiter, for an error.
func (t *tracker) pairs() []inspect.Pair {
	var pids []int32
	for pid := range t.waits {
		pids = append(pids, pid)
	}
	slices.Sort(pids)
	var pairs []inspect.Pair
	for _, pid := range pids {
		pairs = append(pairs, t.waits[pid].pairs...)
	}
	return pairs
}
