package pglock_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/pgxlock"
)

func TestLockAllTx(t *testing.T) {
	eachWay(t, func(t *testing.T, d *db, begin func() *tx) {
		// If not all, none is acquired: not even the free one that comes first.
		d.exec(`SELECT pg_advisory_lock(2)`)
		keys := []pglock.Key{pglock.Int(3), pglock.Int(2), pglock.Int(1), pglock.Int(1)}
		tx := begin()
		for _, opt := range []pglock.TxOption{pglock.NoWait(), pglock.Wait(10 * time.Millisecond)} {
			err := pglock.LockAllTx(t.Context(), tx, keys, opt)
			wantErr(t, err, pglock.ErrNotAcquired)
			var e *pglock.Error
			if errors.As(err, &e); len(e.Holders) != 1 || len(e.Keys) != 3 {
				t.Errorf("the error has keys %v and holders %v", e.Keys, e.Holders)
			}
			if n := d.heldBy(tx.pid()); n != 0 {
				t.Errorf("%d locks are held", n)
			}
			tx.usable()
		}
		d.exec(`SELECT pg_advisory_unlock(2)`)
		must(t, pglock.LockAllTx(t.Context(), tx, keys))
		if n := d.heldBy(tx.pid()); n != 3 {
			t.Errorf("%d locks are held, want 3", n)
		}
		tx.end(true)
		if err := pglock.LockAllTx(t.Context(), begin(), nil); err == nil {
			t.Error("no keys are no error")
		}
	})
}

// Two callers never deadlock, whatever the order of their keys.
func TestLockAllTxInOneOrder(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	keys := []pglock.Key{pglock.Int(1), pglock.Pair(0, 1), pglock.Int(-1), pglock.Name("a"), pglock.Pair(-1, 0), pglock.Int(7)}
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			conn := must1(pgx.Connect(context.Background(), d.dsn))
			defer conn.Close(context.Background())
			mine := slices.Clone(keys)
			if i%2 == 1 {
				slices.Reverse(mine)
			}
			for range 100 {
				tx := must1(conn.Begin(context.Background()))
				err := pglock.LockAllTx(context.Background(), pgxlock.Tx(tx), mine)
				tx.Rollback(context.Background())
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// Wait limits the whole call, while lock_timeout would start again for each key.
func TestLockAllTxWaitBoundsTheCall(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	holder := newDB(t)
	holder.conn = connect(t, d.dsn)
	d.exec(`SELECT pg_advisory_lock(1)`)
	holder.exec(`SELECT pg_advisory_lock(2)`)
	tx := ways[0].begin(t, d.dsn)
	const wait = 6 * time.Second
	result := make(chan error, 1)
	began := time.Now()
	go func() {
		result <- pglock.LockAllTx(context.Background(), tx, []pglock.Key{pglock.Int(1), pglock.Int(2)}, pglock.Wait(wait))
	}()
	d.untilWaiting(1, pglock.Int(1))
	d.until(`SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()
		AND clock_timestamp() - state_change > interval '5s'`)
	freed := time.Now()
	d.exec(`SELECT pg_advisory_unlock(1)`)
	wantErr(t, <-result, pglock.ErrNotAcquired)
	if took := time.Since(began); took < wait {
		t.Errorf("it took %v, want %v", took, wait)
	}
	// A second is left for the second lock; a wait that started again would take the
	// whole time.
	if took := time.Since(freed); took >= wait {
		t.Errorf("it took %v for the second lock", took)
	}
	tx.usable()
	must(t, tx.back())
}
