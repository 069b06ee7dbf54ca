package pglock_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"
	_ "github.com/lib/pq"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/internal/engine"
	"github.com/pglock-go/pglock/pgxlock"
)

func TestLockExcludesEverybodyElse(t *testing.T) { everySource(t, testLockExcludesEverybodyElse) }

func testLockExcludesEverybodyElse(t *testing.T, d *db) {
	a, b := d.locker(), d.locker()
	for _, key := range []pglock.Key{pglock.Name("job"), pglock.Int(-5), pglock.Pair(-7, 9)} {
		held := lock(t, a, key)
		d.wantAvailable(key, false)
		_, err := b.TryLock(t.Context(), key)
		wantErr(t, err, pglock.ErrNotAcquired)
		_, err = a.TryLock(t.Context(), key) // the same process is no exception
		wantErr(t, err, pglock.ErrNotAcquired)
		must(t, held.Unlock())
		d.wantAvailable(key, true)
		again, err := b.TryLock(t.Context(), key)
		must(t, err)
		d.wantAvailable(key, false)
		must(t, again.Unlock())
		d.wantAvailable(key, true)
	}
}

// Postgres shows each vector's key as in the vector.
func TestKeyVectorsInPgLocks(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	locker := d.locker()
	v := readVectors(t)
	check := func(key pglock.Key, want vector) {
		t.Helper()
		held := lock(t, locker, key)
		var ok bool
		d.scan(&ok, `SELECT count(*) = 1 AND bool_and(classid = $1 AND objid = $2 AND objsubid = $3 AND mode = 'ExclusiveLock' AND pid = $4)
			FROM pg_locks WHERE locktype = 'advisory'
			AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`,
			want.ClassID, want.ObjID, want.ObjSubID, held.PID())
		if !ok {
			t.Errorf("%v: pg_locks shows it differently", key)
		}
		must(t, held.Unlock())
	}
	for _, n := range v.Names {
		check(pglock.Name(n.Name), n.vector)
	}
	for _, n := range v.Ints {
		check(pglock.Int(n.Key), n)
	}
	for _, p := range v.Pairs {
		check(pglock.Pair(p.Class, p.Object), p.vector)
	}
}

func TestSharedLocks(t *testing.T) { everySource(t, testSharedLocks) }

func testSharedLocks(t *testing.T, d *db) {
	a, b := d.locker(), d.locker()
	for _, key := range []pglock.Key{pglock.Name("read"), pglock.Pair(1, 2)} {
		one, two, three := lock(t, a, key, pglock.Shared()), lock(t, a, key, pglock.Shared()), lock(t, b, key, pglock.Shared())
		_, err := b.TryLock(t.Context(), key)
		wantErr(t, err, pglock.ErrNotAcquired)
		must(t, one.Unlock())
		must(t, three.Unlock())
		d.wantAvailable(key, false)
		must(t, two.Unlock())
		d.wantAvailable(key, true)
	}
}

func TestWaitsUntilUnlocked(t *testing.T) { everySource(t, testWaitsUntilUnlocked) }

func testWaitsUntilUnlocked(t *testing.T, d *db) {
	a, b := d.locker(), d.locker()
	key := pglock.Name("job")
	held := lock(t, a, key)
	got := make(chan *pglock.Lock)
	go func() {
		second, err := b.Lock(context.Background(), key)
		if err != nil {
			t.Error(err)
		}
		got <- second
	}()
	d.untilWaiting(1, key)
	must(t, held.Unlock())
	second := <-got
	d.wantAvailable(key, false)
	must(t, second.Unlock())
	d.wantAvailable(key, true)
}

// withEnoughTime calls f with longer and longer time limits, until Postgres replies within
// one.
func withEnoughTime(f func(time.Duration) error) error {
	for d := 20 * time.Millisecond; ; d *= 4 {
		if err := f(d); !errors.Is(err, pglock.ErrUnavailable) || d > 20*time.Second {
			return err
		}
	}
}

// A canceled wait leaves nothing behind that could still acquire the lock.
func TestGivingUp(t *testing.T) { everySource(t, testGivingUp) }

func testGivingUp(t *testing.T, d *db) {
	for _, sessions := range []int{1, 2, 8} {
		a, b := d.locker(), d.locker(pglock.Sessions(sessions))
		key := pglock.Name("job")
		for range 5 {
			held := lock(t, a, key)

			err := withEnoughTime(func(d time.Duration) error {
				_, err := b.Lock(t.Context(), key, pglock.Wait(d))
				return err
			})
			wantErr(t, err, pglock.ErrNotAcquired)
			if errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Wait ended the wait, not ctx: %v", err)
			}

			err = withEnoughTime(func(d time.Duration) error {
				ctx, cancel := context.WithTimeout(t.Context(), d)
				defer cancel()
				_, err := b.Lock(ctx, key)
				return err
			})
			wantErr(t, err, pglock.ErrNotAcquired)
			wantErr(t, err, context.DeadlineExceeded)

			ctx, cancel := context.WithCancel(t.Context())
			go func() {
				d.untilWaiting(1, key)
				cancel()
			}()
			_, err = b.Lock(ctx, key)
			wantErr(t, err, pglock.ErrNotAcquired)
			wantErr(t, err, context.Canceled)

			must(t, held.Unlock())
			if sessions > 1 {
				// At once, unless canceling takes longer on this machine.
				d.until(`SELECT NOT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND ` + inThisDatabase + `)`)
				d.wantAvailable(key, true)
			}
		}
		b.Close()
	}
}

func TestDo(t *testing.T) { everySource(t, testDo) }

func testDo(t *testing.T, d *db) {
	a, b := d.locker(), d.locker()
	key := pglock.Name("job")
	boom := errors.New("boom")
	err := a.Do(t.Context(), key, func(ctx context.Context) error {
		d.wantAvailable(key, false)
		ran := false
		never := func(context.Context) error { ran = true; return nil }
		wantErr(t, b.Do(ctx, key, never, pglock.NoWait()), pglock.ErrNotAcquired)
		must(t, b.Do(ctx, key, never, pglock.NoWait(), pglock.SkipIfHeld()))
		bounded, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		must(t, b.Do(bounded, key, never, pglock.SkipIfHeld())) // without waiting
		must(t, withEnoughTime(func(d time.Duration) error { return b.Do(ctx, key, never, pglock.Wait(d), pglock.SkipIfHeld()) }))
		if ran {
			t.Error("it ran without the lock")
		}
		return boom
	})
	wantErr(t, err, boom)
	d.wantAvailable(key, true)

	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic was not propagated")
			}
		}()
		a.Do(t.Context(), key, func(context.Context) error { panic("oh") })
	}()
	d.wantAvailable(key, true)
}

// If a backend is terminated, the functions under its locks are canceled, and nothing in
// this process acquires the locks before that.
func TestLoss(t *testing.T) { everySource(t, testLoss) }

func testLoss(t *testing.T, d *db) {
	locker := d.locker()
	key := pglock.Name("job")
	handle := lock(t, locker, pglock.Name("other"))
	err := locker.Do(t.Context(), key, func(ctx context.Context) error {
		d.terminate(handle.PID())
		select {
		case <-ctx.Done():
		case <-time.After(time.Minute):
			t.Error("ctx is not canceled")
			return ctx.Err()
		}
		wantErr(t, context.Cause(ctx), pglock.ErrLost)
		return ctx.Err()
	})
	wantErr(t, err, pglock.ErrLost)
	wantErr(t, err, context.Canceled)
	<-handle.Done()
	wantErr(t, handle.Err(), pglock.ErrLost)
	wantErr(t, handle.Unlock(), pglock.ErrLost)
	wantErr(t, handle.Unlock(), pglock.ErrLost)

	again := lock(t, locker, key) // on a new session
	if again.PID() == handle.PID() {
		t.Error("the lock is on the session that was lost")
	}
	must(t, again.Unlock())
	if s := locker.Stats(); s.Lost != 2 || s.Held != 0 {
		t.Errorf("stats: %+v", s)
	}
}

func TestUnlockTwice(t *testing.T) { everySource(t, testUnlockTwice) }

func testUnlockTwice(t *testing.T, d *db) {
	locker := d.locker()
	key := pglock.Name("job")
	first := lock(t, locker, key)
	must(t, first.Unlock())
	second := lock(t, locker, key)
	wantErr(t, first.Unlock(), pglock.ErrNotHeld)
	d.wantAvailable(key, false)
	must(t, second.Unlock())
	wantErr(t, second.Err(), pglock.ErrNotHeld)
}

// If another client unlocks on our session, the session's state differs from what we
// expect, and the session is not used any more.
func TestUnlockThatPostgresDenies(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	source := &spySource{Source: source(t, d.dsn)}
	locker, err := pglock.New(source)
	must(t, err)
	defer locker.Close()
	job, other := lock(t, locker, pglock.Name("job")), lock(t, locker, pglock.Name("other"))
	source.last.QueryText(t.Context(), "SELECT pg_catalog.pg_advisory_unlock_all()::text")
	wantErr(t, job.Unlock(), pglock.ErrLost)
	<-other.Done()
	wantErr(t, other.Unlock(), pglock.ErrLost)
	must(t, lock(t, locker, pglock.Name("job")).Unlock())
}

// spySource gives a test access to a Locker's session.
type spySource struct {
	driver.Source
	last driver.Session
}

func (s *spySource) Open(ctx context.Context) (driver.Session, error) {
	session, err := s.Source.Open(ctx)
	if err != nil {
		return nil, err
	}
	s.last = &lockedSession{Session: session}
	return s.last, nil
}

// lockedSession can also be used by a test, since its Watch is not supported.
type lockedSession struct {
	driver.Session
	mu sync.Mutex
}

func (s *lockedSession) Watch(context.Context) error { return errors.ErrUnsupported }

func (s *lockedSession) QueryText(ctx context.Context, sql string, args ...string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.Session.QueryText(ctx, sql, args...)
}

// Goroutines with several Lockers, like several processes, take a few keys, exclusive and
// shared, and check that the locks exclude each other as they should.
func TestExclusionUnderContention(t *testing.T) { everySource(t, testExclusionUnderContention) }

func testExclusionUnderContention(t *testing.T, d *db) {
	keys := []pglock.Key{pglock.Name("a"), pglock.Int(7), pglock.Pair(3, -4)}
	writers, readers := make([]atomic.Int32, len(keys)), make([]atomic.Int32, len(keys))
	var wg sync.WaitGroup
	var acquired atomic.Int64
	for p := range 3 {
		locker := d.locker(pglock.Sessions(p+1), engine.HandOver(2*time.Millisecond))
		for g := range 6 {
			wg.Go(func() {
				for n := range 60 {
					i := (g + n) % len(keys)
					shared := (g+n)%4 == 0
					var opts []pglock.LockOption
					if shared {
						opts = append(opts, pglock.Shared())
					}
					if n%7 == 0 {
						opts = append(opts, pglock.Wait(time.Duration(1+n%5)*time.Millisecond))
					}
					ctx, cancel := t.Context(), context.CancelFunc(func() {})
					if n%11 == 0 {
						ctx, cancel = context.WithTimeout(ctx, time.Duration(n%4)*time.Millisecond)
					}
					held, err := locker.Lock(ctx, keys[i], opts...)
					cancel()
					if err != nil {
						if !errors.Is(err, pglock.ErrNotAcquired) && !errors.Is(err, pglock.ErrUnavailable) {
							t.Error(err)
						}
						continue
					}
					acquired.Add(1)
					if shared {
						readers[i].Add(1)
						if writers[i].Load() != 0 {
							t.Errorf("%v: shared while exclusive", keys[i])
						}
						readers[i].Add(-1)
					} else {
						if writers[i].Add(1) != 1 || readers[i].Load() != 0 {
							t.Errorf("%v: exclusive while held", keys[i])
						}
						writers[i].Add(-1)
					}
					if err := held.Unlock(); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	wg.Wait()
	if acquired.Load() < 100 {
		t.Errorf("only %d locks were acquired", acquired.Load())
	}
	if n := d.held(); n != 0 {
		t.Errorf("%d locks are still held", n)
	}
}

func TestClose(t *testing.T) { everySource(t, testClose) }

func testClose(t *testing.T, d *db) {
	a, b := d.locker(), d.locker()
	key, other := pglock.Name("job"), pglock.Name("other")
	running := make(chan struct{})
	done := make(chan error, 2)
	go func() {
		done <- a.Do(context.Background(), key, func(ctx context.Context) error {
			close(running)
			<-ctx.Done()
			d.wantAvailable(key, false) // still held while the work ends
			return context.Cause(ctx)
		})
	}()
	<-running
	held := lock(t, b, other)
	go func() {
		_, err := a.Lock(context.Background(), other)
		done <- err
	}()
	d.untilWaiting(1, other)
	must(t, a.Close())
	wantErr(t, <-done, pglock.ErrClosed)
	wantErr(t, <-done, pglock.ErrClosed)
	d.wantAvailable(key, true)
	_, err := a.TryLock(t.Context(), key)
	wantErr(t, err, pglock.ErrClosed)
	must(t, a.Close())
	must(t, held.Unlock())
	d.wantAvailable(other, true)
}

// The error lists the holders, unless the call skips the query for them.
func TestCatalogHolders(t *testing.T) { everySource(t, testCatalogHolders) }

func testCatalogHolders(t *testing.T, d *db) {
	a, b := d.locker(), d.locker()
	key := pglock.Pair(-1, 5)
	holders, err := b.Holders(t.Context(), key)
	must(t, err)
	if holders == nil || len(holders) != 0 {
		t.Errorf("got holders %v, want none", holders)
	}
	held := lock(t, a, key)
	for _, opt := range []pglock.LockOption{pglock.NoWait(), pglock.Wait(3 * time.Second)} {
		_, err := b.Lock(t.Context(), key, opt)
		wantErr(t, err, pglock.ErrNotAcquired)
		var e *pglock.Error
		if !errors.As(err, &e) || len(e.Holders) != 1 || e.Holders[0].PID != held.PID() ||
			e.Holders[0].Application != "pglock" || e.Holders[0].Since.IsZero() || !e.Holders[0].Granted {
			t.Errorf("the error does not list the holder: %v", err)
		}
	}
	holders, err = b.Holders(t.Context(), key)
	must(t, err)
	if h := holders[key]; len(holders) != 1 || len(h) != 1 || h[0].PID != held.PID() || h[0].Mode != "ExclusiveLock" {
		t.Errorf("pid %d holds the lock, got %v", held.PID(), holders)
	}
	must(t, held.Unlock())
}

// One call reports the holders of many locks: those of this Locker and of others, in any
// mode, and nothing else.
func TestCatalogHoldersOfMany(t *testing.T) { everySource(t, testCatalogHoldersOfMany) }

func testCatalogHoldersOfMany(t *testing.T, d *db) {
	a, b := d.locker(), d.locker()
	held, err := a.Holders(t.Context())
	must(t, err)
	if held == nil || len(held) != 0 {
		t.Errorf("without keys: got %v", held)
	}
	name := pglock.Name("report")
	number := pglock.Int(name.ID()) // the same lock
	pair := pglock.Pair(0, 42)
	lookalike := pglock.Int(42) // not the pair
	waited, free := pglock.Int(-1), pglock.Name("free")
	one := lock(t, a, name)
	two := lock(t, b, pair)
	three := lock(t, b, waited)
	waits := make(chan error, 1)
	go func() {
		held, err := a.Lock(context.Background(), waited)
		if err == nil {
			err = held.Unlock()
		}
		waits <- err
	}()
	d.untilWaiting(1, waited)
	d.exec("SELECT pg_advisory_lock_shared(7)")
	shared := pglock.Int(7)
	for _, l := range []*pglock.Locker{a, b} {
		held, err := l.Holders(t.Context(), name, number, pair, lookalike, waited, free, shared, name)
		must(t, err)
		for key, pid := range map[pglock.Key]int32{name: one.PID(), number: one.PID(), pair: two.PID(), waited: three.PID()} {
			if h := held[key]; len(h) != 1 || h[0].PID != pid || !h[0].Granted || !h[0].Own || h[0].Mode != "ExclusiveLock" {
				t.Errorf("pid %d holds %v, got %v", pid, key, h)
			}
		}
		if h := held[shared]; len(h) != 1 || h[0].PID != int32(d.conn.PgConn().PID()) || h[0].Mode != "ShareLock" || h[0].Own {
			t.Errorf("the test's session shares a lock, got %v", h)
		}
		if len(held) != 5 {
			t.Errorf("5 keys are held, got %v", held)
		}
	}
	must(t, one.Unlock())
	must(t, two.Unlock())
	must(t, three.Unlock())
	must(t, <-waits)
}

// Holders lists all sessions that share a lock, more than an error lists.
func TestHoldersOfSharedLock(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	pids := map[int32]bool{}
	const sharers = 20
	for range sharers {
		s := databaseAt(t, d.dsn)
		s.exec("SELECT pg_advisory_lock_shared(7)")
		pids[int32(s.conn.PgConn().PID())] = true
	}
	key := pglock.Int(7)
	held, err := d.locker().Holders(t.Context(), key)
	must(t, err)
	for _, h := range held[key] {
		delete(pids, h.PID)
	}
	if len(held[key]) != sharers || len(pids) > 0 {
		t.Errorf("got %v, without %v", held[key], pids)
	}
}

// An option with an invalid value is an error, and so is a nil option; no lock is taken.
func TestOptionsThatMeanNothing(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	locker := d.locker()
	key := pglock.Name("job")
	for _, opts := range [][]pglock.LockOption{
		{pglock.Wait(0)},
		{pglock.Wait(-time.Second)},
		{pglock.NoWait(), pglock.Wait(time.Second)},
		{nil},
	} {
		if held, err := locker.Lock(t.Context(), key, opts...); err == nil {
			held.Unlock()
			t.Errorf("%v was accepted", opts)
		}
	}
	for _, opt := range []pglock.LockerOption{
		pglock.Sessions(0), engine.Slice(time.Microsecond), engine.HandOver(-1), pglock.Heartbeat(0), nil,
	} {
		if _, err := pglock.New(pgxlock.ConnString(d.dsn), opt); err == nil {
			t.Error("New accepted an invalid option")
		}
	}
	if _, err := pglock.New(nil); err == nil {
		t.Error("New accepted a nil Source")
	}
	if n := d.held(); n != 0 {
		t.Errorf("%d locks were taken", n)
	}
}
