package prioritize

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/pglock-go/pglock/inspect"
)

// A ledger knows who keeps whom waiting since when, and whose turn it is. It asks
// nobody and never looks at a clock: its owner tells it what it saw and when, in
// local time, since the server's clock may show another.
type ledger struct {
	config *config
	waits  map[int32]*wait // by the session that waits
	ended  map[victim]bool // whom we signalled
	closed bool            // Once: whoever comes now came too late
}

// wait is one wait of one session.
type wait struct {
	what    string    // tells this wait from another one of the session's
	began   time.Time // as far as it is known
	exact   bool      // the server told
	start   time.Time // when it began by the server's clock, if exact
	pairs   []inspect.Pair
	entries map[victim]*entry
}

// victim is who is in the way: one session, or a prepared transaction.
type victim struct {
	pid   int32
	start int64  // when it began, in microseconds, which is all that Postgres knows
	gid   string // of a prepared transaction

	// transaction is the virtual number of the transaction that it holds its lock in,
	// if its start is hidden.
	transaction string
}

func victimOf(p *inspect.Pair) victim {
	s := p.Blocking
	v := victim{pid: s.PID}
	if !s.BackendStart.IsZero() {
		v.start = s.BackendStart.UnixMicro()
	} else if p.Held != nil && p.Type != "advisory" { // which it may hold across transactions
		v.transaction = p.Held.Transaction
	}
	if s.Prepared != nil {
		v.gid = s.Prepared.GID
	}
	return v
}

// entry is one who keeps a session waiting.
type entry struct {
	victim
	pair  inspect.Pair
	since time.Time // from when the grace counts
	next  time.Time // when it is dealt with; zero is never again
	said  Reason    // why it was spared last, so as not to say so again

	yielded time.Time // since when it is spared as another run's

	stepped    time.Time // when CancelThenTerminate first had its turn with it
	terminated bool      // it was sent the signal to end, or told of
	early      bool      // it was there when the first was past its grace
}

func newLedger(c *config) *ledger {
	return &ledger{config: c, waits: map[int32]*wait{}, ended: map[victim]bool{}}
}

// see takes in who blocks the sessions with these numbers: whoever of them is in
// no pair waits no more. Nobody who is new is taken to have been in the way before
// blind, if that is not zero. It returns the waits that are new or whose blockers have
// changed, and those that are over.
func (l *ledger) see(now, blind time.Time, pids []int32, pairs []inspect.Pair) (changed []int32, over map[int32]time.Duration) {
	over = map[int32]time.Duration{}
	byWaiter := map[int32][]inspect.Pair{}
	for _, p := range pairs {
		byWaiter[p.PID] = append(byWaiter[p.PID], p)
	}
	for pid, w := range l.waits {
		if len(byWaiter[pid]) == 0 {
			over[pid] = now.Sub(w.began)
			delete(l.waits, pid)
		}
	}
	for _, pid := range pids {
		mine := byWaiter[pid]
		if len(mine) == 0 {
			continue
		}
		slices.SortStableFunc(mine, func(a, b inspect.Pair) int { return cmp.Compare(rank(a), rank(b)) })
		if l.seeWait(now, blind, pid, mine) {
			changed = append(changed, pid)
		}
	}
	return changed, over
}

func rank(p inspect.Pair) int {
	if p.Block == inspect.Hard {
		return 0
	}
	return 1
}

// seeWait takes in who blocks one session, and reports whether that is news.
func (l *ledger) seeWait(now, blind time.Time, pid int32, pairs []inspect.Pair) bool {
	first := &pairs[0]
	began, exact := now, !first.WaitApprox && !first.WaitStart.IsZero()
	if exact {
		// The picture is a little older than now, so this is a little late, and
		// never early.
		began = now.Add(-first.WaitDuration)
	}
	w := l.waits[pid]
	// The server's own time tells one wait from another: how late an answer is does not
	// change it.
	fresh := w == nil || w.what != whatOf(first) ||
		exact && w.exact && !first.WaitStart.Equal(w.start)
	if fresh {
		w = &wait{what: whatOf(first), began: began, exact: exact, entries: map[victim]*entry{}}
		l.waits[pid] = w
	}
	if exact && began.Before(w.began) {
		w.began = began
	}
	if exact {
		w.exact, w.start = true, first.WaitStart
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
				for _, later := range []time.Time{blind, tookHold(now, &p)} {
					if later.After(e.since) {
						e.since = later
					}
				}
			}
			e.next = e.since.Add(l.config.after)
		case e.pair.Block != p.Block:
			changed = true
			if p.Block == inspect.Hard && !l.config.queue {
				// It has what it waited for: its grace begins.
				e.since, e.said = now, ""
				e.next = now.Add(l.config.after)
			}
		}
		e.pair = p
		entries[v] = e
	}
	w.pairs, w.entries = pairs, entries
	return changed
}

// whatOf names what is waited for. The row that belongs to a wait for a
// transaction is left out: it is not always known.
func whatOf(p *inspect.Pair) string {
	what := fmt.Sprint(p.Type, p.Mode, p.VirtualXID, p.TransactionID, p.ClassID, p.ObjectID, p.ObjectSubID)
	if p.TransactionID == 0 {
		what += fmt.Sprint(p.DatabaseOID, p.RelationOID, p.Page, p.Tuple)
	}
	return what
}

// tookHold is from when a blocker can have been in the way at the earliest: its
// transaction has what it has since that began. Only an advisory lock may be
// older. Zero is not known.
func tookHold(now time.Time, p *inspect.Pair) time.Time {
	if p.Blocking.XactStart.IsZero() || p.Type == "advisory" || p.WaitStart.IsZero() {
		return time.Time{}
	}
	server := p.WaitStart.Add(p.WaitDuration) // its clock at the picture
	return now.Add(-server.Sub(p.Blocking.XactStart))
}

// close is the moment that [Once] is about.
func (l *ledger) close() {
	if !l.config.once || l.closed {
		return
	}
	l.closed = true
	for _, w := range l.waits {
		for _, e := range w.entries {
			e.early = true
		}
	}
}

// due are those whose turn it is, holders first, the longest in the way before
// others.
func (l *ledger) due(now time.Time) []*entry {
	var due []*entry
	for _, w := range l.waits {
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

// next is when somebody's turn comes; zero is never.
func (l *ledger) next() time.Time {
	var next time.Time
	for _, w := range l.waits {
		for _, e := range w.entries {
			if !e.next.IsZero() && (next.IsZero() || e.next.Before(next)) {
				next = e.next
			}
		}
	}
	return next
}

// action is what is to be done to e now.
func (l *ledger) action(now time.Time, e *entry) inspect.SignalAction {
	switch l.config.policy {
	case policyCancel:
		return inspect.CancelQuery
	case policyTerminate:
		return inspect.TerminateClient
	case policyEscalate:
		if e.stepped.IsZero() || now.Before(e.stepped.Add(l.config.escalate)) {
			return inspect.CancelQuery
		}
		return inspect.TerminateClient
	}
	return inspect.OnlyAsk
}

// refuse is why e is spared by what is known without asking, or "".
func (l *ledger) refuse(e *entry, own func(*inspect.Session) bool) Reason {
	s := e.pair.Blocking
	switch {
	case s.Prepared != nil || s.PID == 0:
		return SparedPrepared
	case own(s):
		return SparedOwn
	case l.closed && !e.early:
		return SparedLate
	case e.pair.Block == inspect.Soft && !l.config.queue:
		return SparedQueued
	case l.config.max > 0 && len(l.ended) >= l.config.max && !l.ended[e.victim]:
		return SparedMax
	}
	return ""
}

// spare notes that e is left alone, and reports whether that is news.
func (l *ledger) spare(now time.Time, e *entry, why Reason) bool {
	news := e.said != why
	if news && why == SparedRun {
		e.yielded = now
	}
	e.said = why
	e.next = now.Add(l.config.every)
	if why == SparedIdle {
		// It may begin to run something, which can be cancelled.
		e.next = now.Add(max(l.config.interval, minIdle))
		l.untilEscalation(now, e)
	}
	return news
}

// minIdle is how soon at the earliest an idle session is asked about again.
const minIdle = 20 * time.Millisecond

// dealt notes that e was dealt with.
func (l *ledger) dealt(now time.Time, e *entry, action inspect.SignalAction) {
	e.said = ""
	switch action {
	case inspect.CancelQuery:
		l.ended[e.victim] = true
	case inspect.TerminateClient:
		e.terminated = true
		l.ended[e.victim] = true
	default: // called about
		e.terminated = true
	}
	e.next = now.Add(l.config.every)
	if l.config.once {
		e.next = time.Time{}
	}
	if l.config.policy == policyReport {
		e.next = time.Time{} // told once
	}
	l.untilEscalation(now, e)
}

// untilEscalation makes sure that the second step of CancelThenTerminate comes in
// time.
func (l *ledger) untilEscalation(now time.Time, e *entry) {
	if l.config.policy != policyEscalate || e.terminated {
		return
	}
	if e.stepped.IsZero() {
		e.stepped = now
	}
	second := e.stepped.Add(l.config.escalate)
	if now.Before(second) && (e.next.IsZero() || second.Before(e.next)) {
		e.next = second
	}
}

// pairs are all pairs, for an error.
func (l *ledger) pairs() []inspect.Pair {
	var pids []int32
	for pid := range l.waits {
		pids = append(pids, pid)
	}
	slices.Sort(pids)
	var pairs []inspect.Pair
	for _, pid := range pids {
		pairs = append(pairs, l.waits[pid].pairs...)
	}
	return pairs
}
