package pglock_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
	"github.com/pglock-go/pglock/pgxlock"
	"github.com/pglock-go/pglock/sqllock"
)

// shadowed returns a database with shadowing objects, and a connection string whose
// sessions would use them. d observes directly.
func shadowed(t *testing.T) (d *db, dsn string) {
	t.Helper()
	d = newDB(t)
	pgtest.Shadow(t, d.dsn)
	return d, d.dsn + " search_path=" + pgtest.ShadowPath
}

// A Locker's sessions start with the search_path of the role or the database, which
// others may have set.
func TestLockerInShadow(t *testing.T) {
	t.Parallel()
	_, dsn := shadowed(t)
	pool := must1(pgxpool.New(t.Context(), dsn))
	t.Cleanup(pool.Close)
	for name, source := range map[string]driver.Source{
		"pgx":       pgxlock.ConnString(dsn),
		"pgx pool":  pgxlock.Pool(pool),
		"lib/pq":    sqllock.ConnString("postgres", dsn),
		"pgx by db": sqllock.DB(openSQL(t, "pgx", dsn)),
	} {
		t.Run(name, func(t *testing.T) {
			open := func() *pglock.Locker {
				locker := must1(pglock.New(source, pglock.Heartbeat(2*time.Second)))
				t.Cleanup(func() { locker.Close() })
				return locker
			}
			ours, others := open(), open()
			must(t, lock(t, others, pglock.Name("first")).Unlock()) // so it is connected
			for _, key := range []pglock.Key{pglock.Name("a"), pglock.Int(-1), pglock.Pair(-1, 2)} {
				held := lock(t, ours, key)
				var e *pglock.Error
				var err error
				for range 20 { // naming the holder has a time limit, which a slow machine may miss
					_, err = others.Lock(t.Context(), key, pglock.Wait(time.Second))
					wantErr(t, err, pglock.ErrNotAcquired)
					if errors.As(err, &e) && len(e.Holders) > 0 {
						break
					}
				}
				if e == nil || len(e.Holders) != 1 || e.Holders[0].PID != held.PID() {
					t.Errorf("%v does not list the holder, pid %d", err, held.PID())
				}
				holders, err := others.Holders(t.Context(), key)
				if err != nil || len(holders[key]) != 1 || holders[key][0].PID != held.PID() {
					t.Errorf("pid %d holds the lock, got %v, %v", held.PID(), holders, err)
				}
				must(t, held.Unlock())
				shared := lock(t, others, key, pglock.Shared())
				must(t, shared.Unlock())
			}
			all, err := ours.LockAll(t.Context(), []pglock.Key{pglock.Int(1), pglock.Pair(1, 1)})
			must(t, err)
			must(t, all.Unlock())
		})
	}
}

// Statements in the caller's transaction run with the caller's search_path.
func TestTxInShadow(t *testing.T) {
	t.Parallel()
	for _, w := range ways {
		t.Run(w.name, func(t *testing.T) {
			t.Parallel()
			d, dsn := shadowed(t)
			d.exec(`CREATE TABLE public.t (); CREATE TABLE public.parted (n int) PARTITION BY RANGE (n);
				CREATE TABLE public.part PARTITION OF public.parted FOR VALUES FROM (0) TO (10);
				CREATE VIEW public.seen AS SELECT * FROM public.parted`)
			tx := w.begin(t, dsn)
			t.Cleanup(func() { tx.back() })
			ctx := t.Context()
			keys := []pglock.Key{pglock.Name("b"), pglock.Int(2), pglock.Pair(3, 4)}

			must(t, pglock.LockTx(ctx, tx, keys[0]))
			must(t, pglock.LockTx(ctx, tx, keys[1], pglock.Shared(), pglock.Wait(time.Second)))
			must(t, pglock.TryLockTx(ctx, tx, keys[2]))
			must(t, pglock.LockAllTx(ctx, tx, keys))
			must(t, pglock.LockAllTx(ctx, tx, keys, pglock.NoWait()))
			must(t, pglock.LockAllTx(ctx, tx, keys, pglock.Wait(time.Second), pglock.Shared()))
			must(t, pglock.LockTables(ctx, tx, pglock.Tables("t", "public.seen")))
			must(t, pglock.LockTables(ctx, tx, pglock.Tables("t"), pglock.Wait(time.Second), pglock.In(pglock.Share)))
			must(t, pglock.WithLockTimeout(ctx, tx, time.Second, func(ctx context.Context) error {
				return pglock.WithStatementTimeout(ctx, tx, 10*time.Second, func(context.Context) error { return nil })
			}))
			must(t, tx.back())

			d.exec("BEGIN; SELECT pg_advisory_xact_lock(5); SELECT pg_advisory_xact_lock(5, 6); LOCK TABLE public.part")
			var pid int32
			d.scan(&pid, "SELECT pg_backend_pid()")
			tx = w.begin(t, dsn)
			t.Cleanup(func() { tx.back() })
			refused := func(err error) {
				t.Helper()
				wantErr(t, err, pglock.ErrNotAcquired)
				var e *pglock.Error
				if !errors.As(err, &e) || len(e.Holders) != 1 || e.Holders[0].PID != pid {
					t.Errorf("%v does not list the holder, pid %d", err, pid)
				}
			}
			for _, opt := range []interface {
				pglock.TxOption
				pglock.TableOption
			}{pglock.NoWait(), pglock.Wait(20 * time.Millisecond)} {
				refused(pglock.LockTx(ctx, tx, pglock.Int(5), opt))
				refused(pglock.LockTx(ctx, tx, pglock.Pair(5, 6), opt, pglock.Shared()))
				refused(pglock.LockAllTx(ctx, tx, []pglock.Key{pglock.Int(1), pglock.Int(5)}, opt))
				refused(pglock.LockTables(ctx, tx, pglock.Tables("t", "seen"), opt))
			}
			wantErr(t, pglock.TryLockTx(ctx, tx, pglock.Int(5)), pglock.ErrNotAcquired)
		})
	}
}
