package pglocktest

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/internal/engine"
)

// lockerChecks returns the checks of a Locker that depend on its Source.
func (s suite) lockerChecks() []check {
	return []check{
		{"LockerLocksAndUnlocks", s.lockerLocks},
		{"LockerWaits", s.lockerWaits},
		{"LockerNoticesLoss", s.lockerNoticesLoss},
		{"LockerClose", s.lockerClose},
		{"LockerFindsAPooler", s.lockerFindsAPooler},
	}
}

// key returns the key that the tests lock.
func key() pglock.Key { return pglock.Name("pglocktest") }

// locker returns a Locker that is closed at the end of the test. If the driver cannot
// watch the connection, a loss is noticed with the heartbeat.
func (s suite) locker(t testing.TB, source driver.Source, opts ...pglock.LockerOption) *pglock.Locker {
	t.Helper()
	l, err := pglock.New(source, append(opts, pglock.Heartbeat(4*time.Second))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// lock takes a lock that must be free.
func lock(t testing.TB, l *pglock.Locker, key pglock.Key, opts ...pglock.LockOption) *pglock.Lock {
	t.Helper()
	ctx, cancel := timeoutCtx()
	defer cancel()
	lock, err := l.Lock(ctx, key, append(opts, pglock.Wait(shortTimeout))...)
	if err != nil {
		t.Fatal(err)
	}
	return lock
}

func (s suite) lockerLocks(t testing.TB) {
	here, there := s.locker(t, s.source), s.locker(t, s.source)
	outside := Key(t, s.source, key())
	for range 3 {
		held := lock(t, here, key())
		if _, err := there.TryLock(context.Background(), key()); !errors.Is(err, pglock.ErrNotAcquired) {
			t.Fatalf("a second Locker requests the same lock: %v, want ErrNotAcquired", err)
		}
		if pids := outside.AwaitHeld(); len(pids) != 1 || pids[0] != held.PID() {
			t.Errorf("pids %v hold the lock in Postgres, the Locker reports pid %d", pids, held.PID())
		}
		if err := held.Unlock(); err != nil {
			t.Fatal(err)
		}
		outside.WantFree()
		if err := lock(t, there, key()).Unlock(); err != nil {
			t.Fatal(err)
		}
	}

	// Shared, many at once, and a pair.
	keys := []pglock.Key{key(), pglock.Pair(-1, 2), pglock.Int(-3)}
	ctx, cancel := timeoutCtx()
	defer cancel()
	first, err := here.LockAll(ctx, keys, pglock.Shared())
	if err != nil {
		t.Fatal(err)
	}
	second, err := there.LockAll(ctx, keys, pglock.Shared())
	if err != nil {
		t.Fatal(err)
	}
	for _, held := range []*pglock.Lock{first, second} {
		if err := held.Unlock(); err != nil {
			t.Error(err)
		}
	}
	for _, k := range keys {
		wantFree(t, s.source, k)
	}
}

// wantFree is like [Lock.WantFree] for a key, and keeps no session open.
func wantFree(t testing.TB, source driver.Source, key pglock.Key) {
	t.Helper()
	l := Key(t, source, key)
	l.WantFree()
	l.observer.Close()
}

func (s suite) lockerWaits(t testing.TB) {
	l, outside := s.locker(t, s.source, engine.Slice(50*time.Millisecond)), Key(t, s.source, key())
	outside.Hold()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	result := make(chan error, 1)
	wait := func(ctx context.Context) {
		lock, err := l.Lock(ctx, key())
		if err == nil {
			err = lock.Unlock()
		}
		result <- err
	}

	// Wait through several slices, until ctx ends.
	go wait(ctx)
	outside.AwaitWaiters(1)
	time.Sleep(200 * time.Millisecond) // for some slices to end without the lock
	cancel()
	if err := within(t, result, "Lock continues after its context has ended"); !errors.Is(err, context.Canceled) || !errors.Is(err, pglock.ErrNotAcquired) {
		t.Fatalf("after waiting until ctx ended: %v", err)
	}

	// Wait until the lock is free.
	go wait(context.Background())
	outside.AwaitWaiters(1)
	outside.Release()
	if err := within(t, result, "Lock waits for a free lock"); err != nil {
		t.Fatal(err)
	}
	outside.WantFree()
}

// within returns the error from result, which must arrive soon.
func within(t testing.TB, result <-chan error, otherwise string) error {
	t.Helper()
	select {
	case err := <-result:
		return err
	case <-time.After(timeout):
		t.Fatal(otherwise)
		return nil
	}
}

func (s suite) lockerNoticesLoss(t testing.TB) {
	l, outside := s.locker(t, s.source), Key(t, s.source, key())
	// Postgres reports the lock before the Locker has the answer. If its session ended in
	// between, Do would acquire the lock again, and only then run its function.
	began := make(chan error, 1)
	inside := make(chan error, 1)
	result := make(chan error, 1)
	go func() {
		result <- l.Do(context.Background(), key(), func(ctx context.Context) error {
			began <- nil
			select {
			case <-ctx.Done():
				inside <- context.Cause(ctx)
			case <-time.After(timeout):
				inside <- errors.New("no cancellation")
			}
			return nil
		})
	}()
	if err := within(t, began, "Do does not run its function"); err != nil {
		t.Fatal(err)
	}
	outside.Terminate()
	if cause := within(t, inside, "the function's ctx is not canceled"); !errors.Is(cause, pglock.ErrLost) {
		t.Fatalf("the session was terminated, and the cause of the function's ctx is %v, want ErrLost", cause)
	}
	if err := within(t, result, "Do does not return"); !errors.Is(err, pglock.ErrLost) {
		t.Errorf("Do returned %v, want ErrLost", err)
	}
	outside.WantFree()

	// The Locker continues in another session.
	if err := lock(t, l, key()).Unlock(); err != nil {
		t.Error(err)
	}
}

func (s suite) lockerClose(t testing.TB) {
	l, outside := s.locker(t, s.source), Key(t, s.source, key())
	held := lock(t, l, key())
	if err := held.Unlock(); err != nil {
		t.Error(err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	outside.awaitGone(join([]int32{held.PID()}))
	outside.WantFree()
}

// lockerFindsAPooler checks that a Locker detects a transaction pooler between it and its
// sessions: each statement may run in another one.
func (s suite) lockerFindsAPooler(t testing.TB) {
	l := s.locker(t, pooled{s.source})
	for range 3 { // it may take more than one statement
		lock, err := l.TryLock(context.Background(), key())
		if errors.Is(err, pglock.ErrPooler) {
			return
		}
		if err != nil {
			t.Fatalf("got %v, want ErrPooler", err)
		}
		if err := lock.Unlock(); errors.Is(err, pglock.ErrPooler) {
			return
		}
	}
	t.Error("a pooler that runs each statement in another session was not detected: QueryText or PID does not report the actual session")
}

// pooled opens sessions as a transaction pooler lends them.
type pooled struct{ driver.Source }

func (p pooled) Open(ctx context.Context) (driver.Session, error) {
	first, err := p.Source.Open(ctx)
	if err != nil {
		return nil, err
	}
	second, err := p.Source.Open(ctx)
	if err != nil {
		first.Close()
		return nil, err
	}
	return &pooledSession{Session: first, second: second}, nil
}

// A pooledSession claims to be the first session and runs statements on both in turn.
type pooledSession struct {
	driver.Session
	second driver.Session
	asked  atomic.Int32
}

func (s *pooledSession) QueryText(ctx context.Context, sql string, args ...string) (string, error) {
	if s.asked.Add(1)%2 == 0 {
		return s.second.QueryText(ctx, sql, args...)
	}
	return s.Session.QueryText(ctx, sql, args...)
}

func (s *pooledSession) Close() error { return errors.Join(s.Session.Close(), s.second.Close()) }
