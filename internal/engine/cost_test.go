package engine

import (
	"testing"
	"time"
)

// These tests count statements, sessions and wakeups, to find what only costs time.

// If a shared lock is refused, an exclusive one is refused without another try.
func TestOneRefusalForBothModes(t *testing.T) {
	inBubble(t, func(t *bench) {
		e, o := t.engine(), t.outsider()
		o.try(one, Exclusive)
		reader := t.start(e, one, Shared, Wait{No: true})
		writer := t.start(e, one, Exclusive, Wait{No: true})
		for _, r := range []*request{reader, writer} {
			<-r.done
			t.wantErr(r.err, ErrNotAcquired)
		}
		if s, x := t.count("locks S1"), t.count("locks X1"); s != 1 || x != 0 {
			t.Errorf("%d tries for a shared lock and %d for an exclusive one", s, x)
		}
		o.unlock(one, Exclusive)
	})
}

// A server proves once that it has advisory locks, not on each session.
func TestServerProvesItselfOnce(t *testing.T) {
	inBubble(t, func(t *bench) {
		e, o := t.engine(), t.outsider()
		h := t.acquire(e, two, Exclusive)
		o.try(one, Exclusive)
		r := t.start(e, one, Exclusive, Wait{})
		time.Sleep(50 * time.Millisecond)
		if opened, proofs := t.count("meet"), t.count("meet[prove]")+t.count("prove"); opened != 2 || proofs != 1 {
			t.Errorf("%d sessions, %d proofs", opened, proofs)
		}
		o.unlock(one, Exclusive)
		t.grantedWithin(r, 10*time.Millisecond)
		t.must(h.Release())
	})
}

// The holders are queried less and less often while they stay the same.
func TestHoldersAreAskedLessAndLessOften(t *testing.T) {
	inBubble(t, func(t *bench) {
		e, o := t.engine(), t.outsider()
		o.try(one, Exclusive)
		r := t.start(e, one, Exclusive, Wait{})
		time.Sleep(100 * e.config.Slice)
		waits, asked := t.count("waits"), t.count("holders")
		if waits < 90 || asked < 6 || asked > 8 {
			t.Errorf("queried %d times in %d waits", asked, waits)
		}
		o.unlock(one, Exclusive)
		t.grantedWithin(r, 10*time.Millisecond)
	})
}

// However many keys are probed, only one session is opened for that.
func TestOneSessionToProbeOn(t *testing.T) {
	inBubble(t, func(t *bench) {
		e := t.engine()
		first, second := t.acquire(e, one, Shared), t.acquire(e, two, Shared)
		time.Sleep(50 * time.Millisecond)
		third, fourth := t.start(e, one, Shared, Wait{}), t.start(e, two, Shared, Wait{})
		if n := e.Stats().Sessions; n != 2 {
			t.Errorf("%d sessions", n)
		}
		t.grantedWithin(third, 50*time.Millisecond)
		t.grantedWithin(fourth, 50*time.Millisecond)
		t.must(first.Release())
		t.must(second.Release())
	})
}

// A reader behind a writer of this process cannot join, whether or not others wait, so
// there is no probe.
func TestNoProbeBehindAWriter(t *testing.T) {
	inBubble(t, func(t *bench) {
		e := t.engine()
		reader := t.acquire(e, one, Shared)
		writer := t.start(e, one, Exclusive, Wait{})
		trips := e.Stats().RoundTrips
		behind := t.start(e, one, Shared, Wait{})
		time.Sleep(time.Second)
		if n := e.Stats().RoundTrips - trips; n != 0 {
			t.Errorf("%d statements", n)
		}
		t.must(reader.Release())
		t.grantedWithin(writer, 10*time.Millisecond)
		t.grantedWithin(behind, 10*time.Millisecond)
	})
}

// Several long waits are checked together.
func TestLongWaitsAreLookedAfterTogether(t *testing.T) {
	inBubble(t, func(t *bench) {
		e, o := t.engine(), t.outsider()
		h := t.acquire(e, Key{ID: 3}, Exclusive) // opens a session to check from
		var rs []*request
		for _, key := range []Key{one, two} {
			o.try(key, Exclusive)
			rs = append(rs, t.start(e, key, Exclusive, Wait{}))
		}
		time.Sleep(50 * time.Millisecond)
		e.mu.Lock()
		for _, key := range []Key{one, two} {
			e.locks[key].history = waitHistory{since: time.Now().Add(-time.Hour), turnover: true, sampled: true}
		}
		e.mu.Unlock()
		time.Sleep(time.Second)
		e.mu.Lock()
		long := len(e.longWaits())
		e.mu.Unlock()
		if long != 2 {
			t.Fatalf("%d long waits, so this test checks nothing", long)
		}
		before := t.looked()
		time.Sleep(30 * monitorInterval)
		if n := t.looked() - before; n < 25 || n > 31 {
			t.Errorf("checked %d times in 30 intervals", n)
		}
		o.unlock(one, Exclusive)
		o.unlock(two, Exclusive)
		for _, r := range rs {
			t.grantedWithin(r, 10*time.Millisecond)
		}
		t.must(h.Release())
	})
}

func (t *bench) looked() int {
	t.server.mu.Lock()
	defer t.server.mu.Unlock()
	return t.monitors
}

// An order to cancel a wait that has ended by itself is withdrawn, and not waited for.
func TestCancelIsTakenBack(t *testing.T) {
	inBubble(t, func(t *bench) {
		e, o := t.engine(), t.outsider()
		h := t.acquire(e, two, Exclusive) // on the session that should cancel
		o.try(one, Exclusive)
		r := t.start(e, one, Exclusive, Wait{})
		time.Sleep(50 * time.Millisecond)
		t.once(1, "locks X3", fault{takes: 500 * time.Millisecond})
		other := t.start(e, Key{ID: 3}, Exclusive, Wait{})
		time.Sleep(trip)
		r.cancel()
		time.Sleep(trip)
		o.unlock(one, Exclusive)
		time.Sleep(3 * trip)
		t.free(one)
		<-r.done
		t.grantedWithin(other, time.Second)
		if n := t.count("cancels"); n != 0 {
			t.Errorf("%d cancel orders were carried out", n)
		}
		t.must(h.Release())
	})
}

// After a failure to open a session, one was opened. Then the next one is opened at once.
func TestSessionsAreOpenedAgain(t *testing.T) {
	inBubble(t, func(t *bench) {
		e, o := t.engine(), t.outsider()
		h := t.acquire(e, two, Exclusive)
		o.try(one, Exclusive)
		refuse := func(f func() (time.Duration, error)) {
			t.server.mu.Lock()
			defer t.server.mu.Unlock()
			t.refuse = f
		}
		refuse(func() (time.Duration, error) { return 0, errSocket })
		r := t.start(e, one, Exclusive, Wait{})
		time.Sleep(50 * time.Millisecond)
		refuse(nil)
		t.terminate(h.PID())
		time.Sleep(50 * time.Millisecond) // and the first session is opened again
		again := t.acquire(e, two, Exclusive)
		time.Sleep(100 * time.Millisecond)
		if t.waiters(one) != 1 {
			t.Error("no session waits in Postgres yet")
		}
		o.unlock(one, Exclusive)
		t.grantedWithin(r, 50*time.Millisecond)
		t.must(again.Release())
	})
}

// A session that is at work checks its queue by itself, and is not woken.
func TestSessionAtWorkIsNotWoken(t *testing.T) {
	t.Parallel()
	e := New(Config{})
	s := &session{engine: e, owner: runner, busy: true, wakeup: make(chan struct{}, 1)}
	e.mu.Lock()
	s.push(op{kind: opTry, lock: e.localLock(one)})
	e.unlockMu()
	if len(s.wakeup) != 0 {
		t.Error("a session at work is woken")
	}
	s.busy = false
	e.mu.Lock()
	s.push(op{kind: opTry, lock: e.localLock(two)})
	e.unlockMu()
	if len(s.wakeup) != 1 {
		t.Error("a session at rest is not woken")
	}
}

// The key of repeated operations is formatted only once.
func TestKeyIsWrittenOnce(t *testing.T) {
	s := new(session)
	if n := testing.AllocsPerRun(100, func() { s.keyText(Key{ID: 4711}) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if got := s.keyText(Key{ID: 4712}); got != "4712" {
		t.Errorf("another key is %q", got)
	}
}

// A wait that is not wanted any more before it has begun does not begin.
func TestWaitThatHasNotBegun(t *testing.T) {
	t.Parallel()
	e := New(Config{})
	s := &session{engine: e, owner: runner, busy: true, wakeup: make(chan struct{}, 1)}
	e.mu.Lock()
	defer e.mu.Unlock()
	l, h := e.localLock(one), e.newHold(Exclusive, false)
	h.lock = l
	l.queue.push(h)
	l.waitOn(s)
	l.queue.remove(h)
	l.interruptWait()
	if len(s.queue) != 0 || s.waiting != nil || len(e.locks) != 0 {
		t.Errorf("left: %d statements, %d keys", len(s.queue), len(e.locks))
	}
}
