package pglock_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"
	_ "github.com/lib/pq"

	"github.com/pglock-go/pglock"
)

func TestLockAll(t *testing.T) { everySource(t, testLockAll) }

func testLockAll(t *testing.T, d *db) {
	a, b := d.locker(), d.locker()
	keys := []pglock.Key{pglock.Name("z"), pglock.Pair(1, 1), pglock.Name("a"), pglock.Name("z"), pglock.Int(3)}
	all, err := a.LockAll(t.Context(), keys)
	must(t, err)
	if len(all.Keys()) != 4 || d.held() != 4 {
		t.Errorf("%v are held, %d in Postgres", all.Keys(), d.held())
	}
	_, err = b.LockAll(t.Context(), keys[:1], pglock.NoWait())
	wantErr(t, err, pglock.ErrNotAcquired)
	must(t, all.Unlock())
	wantErr(t, all.Unlock(), pglock.ErrNotHeld)
	<-all.Done()

	// One of them is held by another: LockAll takes none, or all once it is free.
	held := lock(t, b, pglock.Name("a"))
	err = withEnoughTime(func(d time.Duration) error {
		_, err := a.LockAll(t.Context(), keys, pglock.Wait(d))
		return err
	})
	wantErr(t, err, pglock.ErrNotAcquired)
	if !strings.Contains(err.Error(), `"a"`) || strings.Contains(err.Error(), `"z"`) {
		t.Errorf("the error does not name the key that was not acquired: %v", err)
	}
	if n := d.held(); n != 1 {
		t.Errorf("%d locks are held", n)
	}
	got := make(chan *pglock.Lock)
	go func() {
		all, err := a.LockAll(context.Background(), keys)
		if err != nil {
			t.Error(err)
		}
		got <- all
	}()
	d.untilWaiting(1, pglock.Name("a"))
	must(t, held.Unlock())
	must(t, (<-got).Unlock())

	// Callers that list them in opposite orders never deadlock.
	var wg sync.WaitGroup
	for i, locker := range []*pglock.Locker{a, b, a, b} {
		keys := []pglock.Key{pglock.Int(1), pglock.Int(2), pglock.Int(3)}
		if i%2 == 1 {
			keys = []pglock.Key{pglock.Int(3), pglock.Int(2), pglock.Int(1)}
		}
		wg.Go(func() {
			for range 30 {
				err := locker.DoAll(t.Context(), keys, func(context.Context) error { return nil })
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

// While LockAll waits for a key it holds those before it and none after it.
func TestLockAllHoldsNothingBehind(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	other, locker := d.locker(), d.locker()
	held := lock(t, other, pglock.Int(2))
	ctx, cancel := context.WithCancel(t.Context())
	got := make(chan error, 1)
	go func() {
		all, err := locker.LockAll(ctx, []pglock.Key{pglock.Int(3), pglock.Int(2), pglock.Int(1)})
		if err == nil {
			err = all.Unlock()
		}
		got <- err
	}()
	d.untilWaiting(1, pglock.Int(2))
	d.wantAvailable(pglock.Int(1), false)
	d.wantAvailable(pglock.Int(3), true)
	cancel()
	wantErr(t, <-got, pglock.ErrNotAcquired)
	must(t, held.Unlock())
}
