package pglock_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/pgxlock"
)

// LockFrom returns the lock of the function that runs, in contexts made from its ctx, too.
func TestLockFrom(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	d.installLeases()
	a, b := pglock.Name("a"), pglock.Name("b")
	type ctxKey struct{}
	for name, locker := range map[string]*pglock.Locker{"advisory": newLocker(t, d.source()), "leases": leaseLocker(t, d.source())} {
		t.Run(name, func(t *testing.T) {
			if lock := pglock.LockFrom(t.Context()); lock != nil {
				t.Errorf("there is a lock outside of a function: %v", lock.Keys())
			}
			holds := func(ctx context.Context, keys ...pglock.Key) {
				t.Helper()
				lock := pglock.LockFrom(ctx)
				if lock == nil || len(lock.Keys()) != len(keys) || lock.Keys()[0] != keys[0] {
					t.Fatalf("the lock is %v, not %v", lock, keys)
				}
				must(t, lock.Err())
				if lock.Token() == 0 {
					t.Error("it has no token")
				}
				select {
				case <-lock.Done():
					t.Error("it is done")
				default:
				}
			}
			var last *pglock.Lock
			must(t, locker.Do(t.Context(), a, func(ctx context.Context) error {
				holds(context.WithValue(ctx, ctxKey{}, 1), a)
				if ctx.Value(ctxKey{}) != nil {
					t.Error("ctx has a value that is not its own")
				}
				last = pglock.LockFrom(ctx)
				err := locker.Lead(ctx, b, func(ctx context.Context) error {
					holds(ctx, b)
					return nil
				}, pglock.Fenced())
				holds(ctx, a)
				return err
			}, pglock.Fenced()))
			<-last.Done()
			wantErr(t, last.Err(), pglock.ErrNotHeld)
			must(t, locker.DoAll(context.WithValue(t.Context(), ctxKey{}, 1), []pglock.Key{b, a}, func(ctx context.Context) error {
				keys := pglock.LockFrom(ctx).Keys()
				holds(ctx, keys...)
				if len(keys) != 2 || ctx.Value(ctxKey{}) != 1 {
					t.Errorf("the locks %v, with the value %v", keys, ctx.Value(ctxKey{}))
				}
				return nil
			}, pglock.Fenced()))

			// A function that unlocks takes what Do promises from it.
			err := locker.Do(t.Context(), a, func(ctx context.Context) error { return pglock.LockFrom(ctx).Unlock() })
			wantErr(t, err, pglock.ErrNotHeld)
			must(t, lock(t, locker, a, pglock.Wait(10*time.Second)).Unlock())
		})
	}
}

// Without a lock, Fence is an error.
func TestFenceWithoutLock(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	err := pglock.Fence(t.Context(), pgxlock.Conn(d.conn), pglock.LockFrom(t.Context()))
	if err == nil || !strings.Contains(err.Error(), "LockFrom") {
		t.Errorf("the error is %v", err)
	}
}

// The ctx of a function ends as the caller's does.
func TestLockFromContext(t *testing.T) {
	t.Parallel()
	locker := newLocker(t, newDB(t).source())
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("stop")
	must(t, locker.Do(ctx, pglock.Name("a"), func(ctx context.Context) error {
		child, done := context.WithCancel(ctx)
		defer done()
		cancel(stop)
		<-child.Done()
		if context.Cause(child) != stop {
			t.Errorf("the cause is %v", context.Cause(child))
		}
		return nil
	}))
}
