package pglock_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/internal/pgbouncer"
	"github.com/pglock-go/pglock/pgxlock"
)

// slots are the slots of a name, as other programs see them.
type slots struct {
	*db
	name   string
	n      int
	leases bool
}

func (s slots) key() pglock.Key { return pglock.Name(s.name) }

// lockKey returns the key of a slot of an advisory lock, or of the gate.
func (s slots) lockKey(slot string) pglock.Key { return pglock.Name(s.name + "\x00" + slot) }

// newLocker returns another Locker, as of another process.
func (s slots) newLocker() *pglock.Locker {
	s.t.Helper()
	if s.leases {
		return leaseLocker(s.t, s.source())
	}
	return s.locker()
}

// ids returns the numbers of the slots in pg_locks.
func (s slots) ids() (ids []int64) {
	for i := range s.n {
		ids = append(ids, s.lockKey(strconv.Itoa(i)).ID())
	}
	return ids
}

// heldSQL is the number of slots that are held, for the parameter of args.
func (s slots) heldSQL() string {
	if s.leases {
		return `SELECT count(*) FROM pglock.lease l JOIN pglock.session s ON s.id = l.owner WHERE l.name = $1 AND l.slot >= 0`
	}
	return `SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1
		AND classid::bigint << 32 | objid::bigint = ANY($1::bigint[]) AND ` + inThisDatabase
}

func (s slots) arg() any {
	if s.leases {
		return s.key().LeaseName()
	}
	return s.ids()
}

// count returns the number of slots that are held.
func (s slots) count() (n int) {
	s.t.Helper()
	s.scan(&n, s.heldSQL(), s.arg())
	return n
}

// wantFree checks that nothing is held, not even the gate.
func (s slots) wantFree() {
	s.t.Helper()
	n := s.held()
	if s.leases {
		s.scan(&n, `SELECT count(*) FROM pglock.lease WHERE owner IS NOT NULL`)
	}
	if n > 0 {
		s.t.Errorf("%d locks are left", n)
	}
}

// untilQueued waits until n requests wait behind the one that polls.
func (s slots) untilQueued(n int, lockers ...*pglock.Locker) {
	s.t.Helper()
	if !s.leases {
		s.untilWaiting(n, s.lockKey("gate"))
		return
	}
	s.until(`SELECT count(*) = 1 FROM pglock.lease WHERE name = $1 AND slot = -1 AND owner IS NOT NULL`, s.key().LeaseName())
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		waiting := 0
		for _, locker := range lockers {
			waiting += locker.Stats().Waiting
		}
		if waiting == n {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("%d requests wait, not %d", waiting, n)
		}
	}
}

// take takes a slot that is free, and keeps it until the test ends.
func (s slots) take(locker *pglock.Locker, key pglock.Key) *pglock.Lock {
	s.t.Helper()
	held := lock(s.t, locker, key, pglock.Slots(s.n), pglock.NoWait())
	s.t.Cleanup(func() { held.Unlock() })
	return held
}

// bothKinds runs a test with advisory locks and with leases.
func bothKinds(t *testing.T, n int, test func(t *testing.T, s slots)) {
	t.Parallel()
	t.Run("advisory", func(t *testing.T) {
		t.Parallel()
		test(t, slots{newDB(t), "api", n, false})
	})
	t.Run("leases", func(t *testing.T) {
		t.Parallel()
		d := newDB(t)
		d.installLeases()
		test(t, slots{d, "api", n, true})
	})
}

// Many goroutines of several Lockers share the slots: never more than there are hold one, and
// each gets its turns.
func TestSlots(t *testing.T) {
	const n, lockers, each = 3, 3, 4
	// unfair is how many times the turns of the slowest goroutine the fastest may have.
	test := func(t *testing.T, s slots, hold time.Duration, turns, unfair int64) {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		var running, most atomic.Int64
		var counts [lockers * each]atomic.Int64
		slowest := func() int64 {
			least := counts[0].Load()
			for i := range counts {
				least = min(least, counts[i].Load())
			}
			return least
		}
		var wg sync.WaitGroup
		for i := range lockers {
			locker := s.newLocker()
			for j := range each {
				count := &counts[i*each+j]
				wg.Go(func() {
					for ctx.Err() == nil {
						err := locker.Do(ctx, s.key(), func(context.Context) error {
							now := running.Add(1)
							defer running.Add(-1)
							for high := most.Load(); now > high && !most.CompareAndSwap(high, now); high = most.Load() {
							}
							time.Sleep(hold * time.Duration(1+count.Load()%3))
							if count.Add(1) >= turns && slowest() >= turns {
								cancel()
							}
							return nil
						}, pglock.Slots(n))
						if err != nil && ctx.Err() == nil {
							t.Error(err)
							return
						}
					}
				})
			}
		}
		full := 0
		for ctx.Err() == nil {
			switch held := s.count(); {
			case held > n:
				t.Errorf("%d of %d slots are held", held, n)
				cancel()
			case held == n:
				full++
			}
		}
		wg.Wait()
		fastest := int64(0)
		for i := range counts {
			fastest = max(fastest, counts[i].Load())
		}
		t.Logf("the slowest goroutine had %d turns, the fastest %d", slowest(), fastest)
		if least := slowest(); least < turns || fastest > unfair*turns {
			t.Errorf("the slowest goroutine had %d turns, the fastest %d", least, fastest)
		}
		if high := most.Load(); high != n {
			t.Errorf("%d ran at a time, not %d", high, n)
		}
		if full == 0 {
			t.Error("all slots were never held at once")
		}
		s.wantFree()
	}
	t.Parallel()
	t.Run("advisory", func(t *testing.T) {
		t.Parallel()
		test(t, slots{newDB(t), "api", n, false}, time.Millisecond, 20, 4)
	})
	t.Run("leases", func(t *testing.T) {
		t.Parallel()
		d := newDB(t)
		d.installLeases()
		test(t, slots{d, "api", n, true}, 50*time.Millisecond, 4, 10)
	})
	t.Run("leases through a pooler", func(t *testing.T) {
		t.Parallel()
		d, dsn, _ := pooled(t, pgbouncer.Transaction)
		d.installLeases()
		d.source = func() driver.Source { return source(t, dsn) }
		test(t, slots{d, "api", n, true}, 50*time.Millisecond, 3, 1000) // no process is notified of a release
	})
}

// A request for a slot that fails reports who holds them, and leaves nothing.
func TestSlotsRefused(t *testing.T) {
	bothKinds(t, 2, func(t *testing.T, s slots) {
		a, b := s.newLocker(), s.newLocker()
		one := lock(t, a, s.key(), pglock.Slots(2))
		two := lock(t, b, s.key(), pglock.Slots(2))
		refused := func(err error) {
			t.Helper()
			wantErr(t, err, pglock.ErrNotAcquired)
			var e *pglock.Error
			if !errors.As(err, &e) || len(e.Holders) != 2 || !e.Holders[0].Granted || !strings.Contains(err.Error(), "none of 2 slots is free") {
				t.Errorf("the error does not list both holders: %v", err)
			}
			if got := s.count(); got != 2 {
				t.Errorf("%d slots are held", got)
			}
		}
		_, err := a.Lock(t.Context(), s.key(), pglock.Slots(2), pglock.NoWait())
		refused(err)
		began := time.Now()
		_, err = a.Lock(t.Context(), s.key(), pglock.Slots(2), pglock.Wait(time.Second))
		refused(err)
		if errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the error is ctx's: %v", err)
		}
		if took := time.Since(began); took < 700*time.Millisecond {
			t.Errorf("it waited only %v", took)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = a.Lock(ctx, s.key(), pglock.Slots(2))
		refused(err)
		wantErr(t, err, context.DeadlineExceeded)
		ctx, cancel = context.WithCancel(t.Context())
		defer cancel()
		go func() {
			s.untilQueued(0, a)
			cancel()
		}()
		_, err = a.Lock(ctx, s.key(), pglock.Slots(2))
		wantErr(t, err, pglock.ErrNotAcquired)
		wantErr(t, err, context.Canceled)
		must(t, a.Do(t.Context(), s.key(), func(context.Context) error { t.Error("it runs"); return nil }, pglock.Slots(2), pglock.SkipIfHeld()))

		must(t, one.Unlock())
		wantErr(t, one.Unlock(), pglock.ErrNotHeld)
		one = lock(t, b, s.key(), pglock.Slots(2), pglock.NoWait())
		if !slices.Equal(one.Keys(), []pglock.Key{s.key()}) {
			t.Errorf("the keys of the lock are %v", one.Keys())
		}
		must(t, one.Unlock())
		must(t, two.Unlock())
		s.wantFree()
	})
}

// Slots that this process holds are refused without asking Postgres.
func TestSlotsOfThisProcess(t *testing.T) {
	t.Parallel()
	s := slots{newDB(t), "api", 3, false}
	locker := s.newLocker()
	for range s.n {
		s.take(locker, s.key())
	}
	before := locker.Stats()
	must(t, locker.Do(t.Context(), s.key(), func(context.Context) error { t.Error("it runs"); return nil }, pglock.Slots(s.n), pglock.SkipIfHeld()))
	after := locker.Stats()
	if after.RoundTrips != before.RoundTrips {
		t.Errorf("it ran %d statements", after.RoundTrips-before.RoundTrips)
	}
	if before.Held != s.n || before.Acquired != uint64(s.n) || before.Refused != 0 || after.Refused != 1 || after.Acquired != before.Acquired {
		t.Errorf("counts before %+v and after %+v", before, after)
	}
}

// Of all requests that wait, in whatever process, one polls and the others wait behind it, so a
// newcomer overtakes nobody.
func TestSlotsHaveOnePoller(t *testing.T) {
	bothKinds(t, 1, func(t *testing.T, s slots) {
		holder := s.newLocker()
		held := lock(t, holder, s.key(), pglock.Slots(1))
		var lockers []*pglock.Locker
		done := make(chan error)
		var turns atomic.Int64
		for range 3 {
			locker := s.newLocker()
			lockers = append(lockers, locker)
			go func() {
				done <- locker.Do(context.WithoutCancel(t.Context()), s.key(), func(context.Context) error {
					turns.Add(1)
					return nil
				}, pglock.Slots(1), pglock.Wait(time.Minute))
			}()
		}
		s.untilQueued(2, lockers...)
		// A newcomer that also waits comes after all others, although the slot is free now.
		must(t, held.Unlock())
		must(t, holder.Do(t.Context(), s.key(), func(context.Context) error {
			if n := turns.Load(); n == 0 {
				t.Error("a newcomer overtook those who wait")
			}
			return nil
		}, pglock.Slots(1), pglock.Wait(time.Minute)))
		for range lockers {
			must(t, <-done)
		}
		s.wantFree()
	})
}

// Close ends requests for a slot, also the one that polls.
func TestSlotsClose(t *testing.T) {
	bothKinds(t, 1, func(t *testing.T, s slots) {
		holder, waiter := s.newLocker(), s.newLocker()
		held := lock(t, holder, s.key(), pglock.Slots(1))
		done := make(chan error)
		for range 2 {
			go func() {
				_, err := waiter.Lock(context.WithoutCancel(t.Context()), s.key(), pglock.Slots(1))
				done <- err
			}()
		}
		if s.leases {
			s.untilQueued(1, waiter)
		} else {
			s.until(`SELECT count(*) = 2 FROM pg_locks WHERE locktype = 'advisory' AND ` + inThisDatabase + ` AND granted`)
			for waiter.Stats().Waiting == 0 {
				time.Sleep(time.Millisecond)
			}
		}
		must(t, waiter.Close())
		for range 2 {
			wantErr(t, <-done, pglock.ErrClosed)
		}
		must(t, held.Unlock())
		s.wantFree()
	})
}

// The loss of a slot is reported, and the loss of the gate is not: the request goes on.
func TestSlotsLoss(t *testing.T) {
	t.Parallel()
	s := slots{newDB(t), "api", 2, false}
	holder, waiter := s.newLocker(), s.newLocker()
	one := s.take(holder, s.key())
	s.take(s.newLocker(), s.key())
	got := make(chan *pglock.Lock)
	go func() {
		lock, err := waiter.Lock(context.WithoutCancel(t.Context()), s.key(), pglock.Slots(2), pglock.Wait(time.Minute))
		if err != nil {
			t.Error(err)
		}
		got <- lock
	}()
	s.untilQueued(0)
	gate := s.lockKey("gate")
	gateHolder := func() (pid int32) {
		classid, objid, objsubid := gate.PgLocks()
		s.scan(&pid, `SELECT coalesce(max(pid), 0) FROM pg_locks WHERE locktype = 'advisory' AND granted AND mode = 'ExclusiveLock'
			AND classid = $1 AND objid = $2 AND objsubid = $3 AND `+inThisDatabase, classid, objid, objsubid)
		return pid
	}
	var first int32
	for first == 0 {
		first = gateHolder()
	}
	s.terminate(first)
	for pid := first; pid == first || pid == 0; pid = gateHolder() {
	}
	s.terminate(one.PID())
	<-one.Done()
	wantErr(t, one.Err(), pglock.ErrLost)
	wantErr(t, one.Unlock(), pglock.ErrLost)
	two := <-got
	if two == nil {
		return
	}
	must(t, two.Err())
	must(t, two.Unlock())
}

// If there are many slots, a statement finds the free one.
func TestSlotsMany(t *testing.T) {
	bothKinds(t, 200, func(t *testing.T, s slots) {
		const free = 117
		if s.leases {
			s.exec(`INSERT INTO pglock.session (id, until) VALUES ('other', now() + interval '1 day')`)
			s.exec(`INSERT INTO pglock.lease (name, slot, token, owner) SELECT $1, i, 1, 'other' FROM generate_series(0, $2::int - 1) i WHERE i <> $3`, s.key().LeaseName(), s.n, free)
		} else {
			for i, id := range s.ids() {
				if i != free {
					s.exec(`SELECT pg_advisory_lock($1)`, id)
				}
			}
		}
		locker := s.newLocker()
		must(t, lock(t, locker, pglock.Name("other")).Unlock()) // the session is open
		before := locker.Stats().RoundTrips
		s.take(locker, s.key())
		if trips := locker.Stats().RoundTrips - before; trips > 12 {
			t.Errorf("it ran %d statements", trips)
		}
		if s.leases {
			s.until(`SELECT owner IS NOT NULL FROM pglock.lease WHERE name = $1 AND slot = $2`, s.key().LeaseName(), free)
		} else {
			s.wantAvailable(s.lockKey(strconv.Itoa(free)), false)
		}
		_, err := locker.Lock(t.Context(), s.key(), pglock.Slots(s.n), pglock.NoWait())
		wantErr(t, err, pglock.ErrNotAcquired)
	})
}

// Keys of other kinds have slots as well, which differ if the keys do.
func TestSlotsOfOtherKeys(t *testing.T) {
	bothKinds(t, 1, func(t *testing.T, s slots) {
		locker := s.newLocker()
		for _, key := range []pglock.Key{pglock.Int(7), pglock.Name("7"), pglock.Pair(1, 2), pglock.Name("1,2"), pglock.Name(""), pglock.Name("a\x000")} {
			s.take(locker, key)
			_, err := locker.Lock(t.Context(), key, pglock.Slots(1), pglock.NoWait())
			wantErr(t, err, pglock.ErrNotAcquired)
		}
		if !s.leases {
			s.wantAvailable(pglock.Name("#7\x000"), false)
			s.wantAvailable(pglock.Name("7\x000"), false)
		}
	})
}

// The slots of a lease have tokens and can be fenced, and Holders lists their holders.
func TestSlotsOfALease(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	d.installLeases()
	a, b := leaseLocker(t, d.source()), leaseLocker(t, d.source())
	key := pglock.Name("api")
	one, two := lock(t, a, key, pglock.Slots(2), pglock.Note("one")), lock(t, b, key, pglock.Slots(2), pglock.Note("two"))
	waiting := make(chan error)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		_, err := b.Lock(ctx, key, pglock.Slots(2), pglock.Note("three"))
		waiting <- err
	}()
	d.until(`SELECT count(*) = 1 FROM pglock.lease WHERE slot = -1 AND owner IS NOT NULL`)
	held, err := a.Holders(t.Context(), key)
	must(t, err)
	var notes []string
	for _, h := range held[key] {
		notes = append(notes, h.Note)
		if h.Token != one.Token() && h.Token != two.Token() {
			t.Errorf("the token %d is not a holder's", h.Token)
		}
	}
	slices.Sort(notes)
	if fmt.Sprint(notes) != "[one two]" {
		t.Errorf("holders: %v", notes)
	}
	cancel()
	wantErr(t, <-waiting, context.Canceled)
	d.mu.Lock()
	defer d.mu.Unlock()
	tx, err := d.conn.Begin(t.Context())
	must(t, err)
	must(t, pglock.Fence(t.Context(), pgxlock.Tx(tx), one))
	must(t, pglock.Fence(t.Context(), pgxlock.Tx(tx), two))
	must(t, tx.Rollback(t.Context()))
	must(t, one.Unlock())
	must(t, two.Unlock())
}
