package engine

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pglock-go/pglock/internal/sqlstate"
)

// A batch fails in the middle. Operations that took effect are kept, and the others are
// run.
func TestBatchFails(t *testing.T) {
	for _, state := range []string{sqlstate.OutOfMemory, sqlstate.QueryCanceled, "XX000"} {
		for done := range 5 {
			t.Run(fmt.Sprint(state, done), func(t *testing.T) {
				inBubble(t, func(t *bench) {
					e := t.engine()
					before := t.acquire(e, Key{ID: 9}, Exclusive)
					give := t.acquire(e, Key{ID: 8}, Exclusive)
					keep := t.acquire(e, Key{ID: 7}, Shared)
					t.once(1, "locks X100", fault{takes: 10 * time.Millisecond})
					t.once(1, "locks X1 x8 X2 S3", fault{err: pgError(state), done: done})
					blocker := t.start(e, Key{ID: 100}, Exclusive, Wait{})
					requests := []*request{t.start(e, one, Exclusive, Wait{})}
					released := make(chan error, 1)
					go func() { released <- give.Release() }()
					synctest.Wait()
					requests = append(requests, t.start(e, two, Exclusive, Wait{}), t.start(e, Key{ID: 3}, Shared, Wait{}))
					t.grantedWithin(blocker, 20*time.Millisecond)
					t.must(<-released)
					t.free(Key{ID: 8})
					for i, r := range requests {
						<-r.done
						failed := state == sqlstate.OutOfMemory && done <= []int{0, 2, 3}[i]
						if failed != (r.err != nil) || failed && sqlstate.Of(r.err) != state {
							t.Errorf("request %d: %v", i, r.err)
						}
						if r.err == nil {
							t.must(r.hold.Release())
						}
					}
					for _, h := range []*Hold{before, keep} {
						t.must(h.Release())
					}
					t.stats(e, 0, 0)
					for _, key := range []Key{one, two, {ID: 3}, {ID: 7}, {ID: 9}} {
						t.free(key)
					}
					if t.count("locks X1 x8 X2 S3") != 1 {
						t.Error("the batch was never sent")
					}
				})
			})
		}
	}
}

// The unlock and the next try of a key fail together, which leaves three ways in which it
// may be held.
func TestUnlockAndTryFailTogether(t *testing.T) {
	for _, modes := range [][2]Mode{{Exclusive, Exclusive}, {Exclusive, Shared}, {Shared, Exclusive}} {
		for done := range 3 {
			t.Run(fmt.Sprint(modes, done), func(t *testing.T) {
				inBubble(t, func(t *bench) {
					e := t.engine(handOver(0))
					h := t.acquire(e, one, modes[0])
					next := t.start(e, one, modes[1], Wait{})
					t.once(1, "locks "+letter(opUnlock, one, modes[0])+"1 ", fault{err: pgError("XX000"), done: done})
					t.must(h.Release())
					<-next.done
					t.must(next.err)
					t.server.mu.Lock()
					for _, n := range t.server.locks[one].held {
						if n[modes[1]] != 1 || n[1-modes[1]] != 0 {
							t.Errorf("held %v times", n)
						}
					}
					t.server.mu.Unlock()
					t.must(next.hold.Release())
					t.free(one)
				})
			})
		}
	}
}

// A statement that is canceled again and again is retried, but not forever.
func TestStatementsAreCanceled(t *testing.T) {
	inBubble(t, func(t *bench) {
		e := t.engine()
		cancel := func(sql string, times int) {
			for range times {
				t.once(1, sql, fault{err: pgError(sqlstate.QueryCanceled)})
			}
		}
		cancel("locks X1", 5) // the batch, and four of five tries
		h := t.acquire(e, one, Exclusive)
		cancel("locks x1", 5)
		t.must(h.Release())
		t.free(one)

		cancel("locks X1", 6)
		if _, err := e.Acquire(t.Context(), one, Exclusive, Wait{}); sqlstate.Of(err) != sqlstate.QueryCanceled {
			t.Error(err)
		}
		t.free(one)
	})
}

// Statements fail before or after they took effect.
func TestStatementsFail(t *testing.T) {
	fails := pgError("XX000")
	inBubble(t, func(t *bench) {
		e, o := t.engine(), t.outsider()
		for done := range 2 {
			t.once(1, "locks X1", fault{err: fails, done: done})
			h := t.acquire(e, one, Exclusive)
			t.once(1, "locks x1", fault{err: fails, done: done})
			t.must(h.Release())
			t.free(one)
		}

		// Twice is too often: the request fails, and nothing is held.
		t.once(1, "locks X1", fault{err: fails})
		t.once(1, "locks X1", fault{err: fails})
		_, err := e.Acquire(t.Context(), one, Exclusive, Wait{})
		if sqlstate.Of(err) != "XX000" {
			t.Error(err)
		}
		t.free(one)

		// It fails again, but took effect.
		t.once(1, "locks X1", fault{err: fails})
		t.once(1, "locks X1", fault{err: fails, done: 1})
		t.must(t.acquire(e, one, Exclusive).Release())
		t.free(one)

		// The lock was granted, and then the wait failed.
		for _, state := range []pgError{sqlstate.LockNotAvailable, sqlstate.QueryCanceled, sqlstate.OutOfMemory} {
			o.try(one, Exclusive)
			t.once(1, "wait", fault{err: state, done: 1})
			r := t.start(e, one, Exclusive, Wait{})
			time.Sleep(100 * time.Millisecond)
			o.unlock(one, Exclusive)
			t.grantedWithin(r, 10*time.Millisecond)
			if t.free(one); t.Failed() {
				return // the rest would block forever
			}
		}
		// It failed, but not because of the timeout.
		o.try(one, Exclusive)
		t.once(1, "wait", fault{err: pgError(sqlstate.DeadlockDetected)})
		_, err = e.Acquire(t.Context(), one, Exclusive, Wait{})
		if sqlstate.Of(err) != sqlstate.DeadlockDetected {
			t.Error(err)
		}
		// It was canceled from outside: it continues.
		r := t.start(e, one, Exclusive, Wait{})
		time.Sleep(100 * time.Millisecond)
		for _, pid := range t.pids() {
			t.interrupt(pid)
		}
		time.Sleep(100 * time.Millisecond)
		if t.waiters(one) != 1 {
			t.Error("it does not wait any more")
		}
		o.unlock(one, Exclusive)
		t.grantedWithin(r, 10*time.Millisecond)
		if e.Stats().Lost != 0 {
			t.Error("locks were lost")
		}

		// An unlock fails twice: the session is closed, which releases the lock.
		h := t.acquire(e, one, Exclusive)
		t.always("locks x1", fault{err: fails})
		t.wantErr(h.Release(), ErrUnconfirmed)
		t.wantErr(h.Release(), ErrNotHeld)
		time.Sleep(trip)
		t.free(one)
	})
}

// Callers that repeat their requests all share the same round trips, and do not take
// turns.
func TestTravelTogether(t *testing.T) {
	inBubble(t, func(t *bench) {
		const askers, pairs = 16, 50
		e := t.engine()
		t.must(t.acquire(e, one, Exclusive).Release()) // opens a session
		before := e.Stats().RoundTrips
		var wg sync.WaitGroup
		for i := range askers {
			wg.Go(func() {
				for range pairs {
					t.must(t.acquire(e, Key{ID: int64(100 + i)}, Exclusive).Release())
				}
			})
		}
		wg.Wait()
		// Two halves that take turns would need twice as many round trips.
		if trips := e.Stats().RoundTrips - before; trips > 2*pairs*3/2 {
			t.Errorf("%d round trips for %d pairs of each of %d", trips, pairs, askers)
		}
	})
}

// Over a network, callers share round trips although some take longer than others to make
// their next request.
func TestTravelTogetherOverANetwork(t *testing.T) {
	inBubble(t, func(t *bench) {
		const askers, pairs = 16, 50
		t.always("locks", fault{there: 5 * time.Millisecond, back: 5 * time.Millisecond})
		e := t.engine()
		t.must(t.acquire(e, one, Exclusive).Release()) // opens a session
		before, began := e.Stats().RoundTrips, time.Now()
		var wg sync.WaitGroup
		for i := range askers {
			wg.Go(func() {
				for range pairs {
					time.Sleep(time.Duration(i) * 20 * time.Microsecond)
					t.must(t.acquire(e, Key{ID: int64(100 + i)}, Exclusive).Release())
				}
			})
		}
		wg.Wait()
		if trips := e.Stats().RoundTrips - before; trips > 2*pairs*5/4 {
			t.Errorf("%d round trips for %d pairs of each of %d", trips, pairs, askers)
		}
		if d := time.Since(began); d > 2*pairs*13*time.Millisecond {
			t.Errorf("took %v", d)
		}
	})
}

// The estimate of a round trip follows a network, and neither the size of batches nor a few
// slow replies.
func TestRoundTripEstimate(t *testing.T) {
	t.Parallel()
	var local, far roundTrip
	for i := range 10_000 {
		ops := 1 + i%1000
		took := 60*time.Microsecond + time.Duration(ops)*3*time.Microsecond
		if i%50 == 0 {
			took += 20 * time.Millisecond // something else ran
		}
		local.add(took, ops)
		far.add(took+10*time.Millisecond, ops)
		if d := local.linger(); i > 5 && d > gatherTime {
			t.Fatalf("lingers for %v on a local socket", d)
		}
		if d := far.linger(); d < 400*time.Microsecond || i > 5 && d > 700*time.Microsecond {
			t.Fatalf("lingers for %v at a round trip of 10 ms", d)
		}
	}
	for range 1000 {
		local.add(10*time.Millisecond, 1) // after all, it is far now
	}
	if d := local.linger(); d < 400*time.Microsecond {
		t.Errorf("lingers for %v when the round trip has become 10 ms", d)
	}
}
