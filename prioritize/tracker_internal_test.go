package prioritize

import (
	"testing"
	"time"

	"github.com/pglock-go/pglock/inspect"
)

// A slow answer does not make an old wait look new: a session that has just acquired
// the lock it waited for keeps its grace. A new wait for the same lock is new even
// so.
func TestSlowAnswerIsNoNewWait(t *testing.T) {
	const after = 3 * time.Second
	server := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC) // by its own clock
	local := server.Add(time.Hour)
	began := server
	waiter := func(since time.Time) *inspect.Lock {
		return &inspect.Lock{
			Session: &inspect.Session{PID: 1}, Type: "relation", Mode: "AccessExclusiveLock", RelationOID: 4711,
			WaitStart: since, WaitDuration: server.Sub(since),
		}
	}
	blocked := func(since time.Time, hard bool) []inspect.Pair {
		return []inspect.Pair{{
			Lock: waiter(since), Hard: hard,
			Blocking: &inspect.Session{PID: 2, BackendStart: began.Add(-time.Hour), XactStart: since.Add(-time.Minute)},
		}}
	}
	tr := newTracker(&config{after: after})
	update := func(since time.Time, hard bool, late time.Duration) (changed []int32) {
		changed, _ = tr.update(local.Add(late), time.Time{}, []int32{1}, blocked(since, hard))
		return changed
	}
	pass := func(d time.Duration) { server, local = server.Add(d), local.Add(d) }
	update(began, false, 0)
	pass(2 * after)
	update(began, true, 0)
	pass(time.Second)
	if changed := update(began, true, 500*time.Millisecond); len(changed) > 0 {
		t.Error("an answer that is late makes the wait another one")
	}
	if due := tr.due(local.Add(500 * time.Millisecond)); len(due) > 0 {
		t.Error("who holds the lock for a second is due after three")
	}
	pass(after)
	if due := tr.due(local); len(due) != 1 {
		t.Error("who holds the lock for longer is not due")
	}
	pass(10 * time.Millisecond)
	if changed := update(server, true, 0); len(changed) != 1 {
		t.Error("a new wait for the same lock is taken for the old one")
	}
}

// A wait may have ended by lock_timeout if that expired between the poll that last saw it
// and the next.
func TestTimedOut(t *testing.T) {
	const limit = 2 * time.Second
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, test := range []struct {
		seen, gone time.Duration
		exact      bool
		want       bool
	}{
		{1800 * time.Millisecond, 2010 * time.Millisecond, true, true},
		{1990 * time.Millisecond, 2000 * time.Millisecond, true, true},
		{1990 * time.Millisecond, 1995 * time.Millisecond, true, true}, // the clocks differ
		{2005 * time.Millisecond, 2300 * time.Millisecond, true, true},
		{100 * time.Millisecond, 9 * time.Second, true, true}, // it was not observed
		{1500 * time.Millisecond, 1700 * time.Millisecond, true, false},
		{0, 10 * time.Millisecond, true, false},
		{2500 * time.Millisecond, 2700 * time.Millisecond, true, false}, // lock_timeout is longer
		{time.Minute, time.Hour, true, false},
		{1500 * time.Millisecond, 1750 * time.Millisecond, false, true}, // it began before it was seen
		{1500 * time.Millisecond, 1650 * time.Millisecond, false, false},
	} {
		tr := newTracker(&config{lockTimeout: limit})
		blocked := func(waited time.Duration) []inspect.Pair {
			p := inspect.Pair{Lock: &inspect.Lock{Session: &inspect.Session{PID: 1}}, Blocking: &inspect.Session{PID: 2}}
			if p.WaitApprox = !test.exact; test.exact {
				p.WaitStart, p.WaitDuration = begin, waited
			}
			return []inspect.Pair{p}
		}
		tr.pollBegan = begin.Add(-200 * time.Millisecond)
		tr.update(begin, time.Time{}, []int32{1}, blocked(0))
		tr.stillWait(begin.Add(test.seen))
		tr.update(begin.Add(test.gone), time.Time{}, nil, nil)
		if got := !tr.timedOut.IsZero(); got != test.want {
			t.Errorf("%+v: got %t", test, got)
		}
	}
}
