package pglock_test

import (
	"context"
	"database/sql"
	"errors"
	"runtime"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/pgxlock"
	"github.com/pglock-go/pglock/sqllock"
)

// A doOption is an option of DoTx and of DoTables.
type doOption interface {
	pglock.DoTxOption
	pglock.DoTableOption
}

// do runs fn under the lock of key 1 or of table a, and passes it a function that
// executes a statement.
type do func(ctx context.Context, tables bool, fn func(ctx context.Context, exec func(string)) error, opts ...doOption) error

func doWith[T any](t *testing.T, db driver.Beginner[T], exec func(T, string) error) do {
	return func(ctx context.Context, tables bool, fn func(context.Context, func(string)) error, opts ...doOption) error {
		inner := func(ctx context.Context, tx T) error {
			return fn(ctx, func(sql string) {
				t.Helper()
				must(t, exec(tx, sql))
			})
		}
		if tables {
			var all []pglock.DoTableOption
			for _, opt := range opts {
				all = append(all, opt)
			}
			return pglock.DoTables(ctx, db, pglock.Tables("a"), inner, all...)
		}
		var all []pglock.DoTxOption
		for _, opt := range opts {
			all = append(all, opt)
		}
		return pglock.DoTx(ctx, db, pglock.Int(1), inner, all...)
	}
}

func TestDoTx(t *testing.T) {
	t.Parallel()
	for name, open := range map[string]func(t *testing.T, dsn string) do{
		"pgx": func(t *testing.T, dsn string) do {
			pool := must1(pgxpool.New(t.Context(), dsn))
			t.Cleanup(pool.Close)
			return doWith(t, pgxlock.Pool(pool), func(tx pgx.Tx, sql string) error {
				_, err := tx.Exec(context.Background(), sql)
				return err
			})
		},
		"database/sql": func(t *testing.T, dsn string) do {
			return doWith(t, sqllock.DB(openSQL(t, "postgres", dsn)), func(tx *sql.Tx, sql string) error {
				_, err := tx.Exec(sql)
				return err
			})
		},
	} {
		for _, tables := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				d := newDB(t)
				d.exec(`CREATE TABLE a (); CREATE TABLE kept (n int)`)
				testDoTx(t, d, open(t, d.dsn), tables)
			})
		}
	}
}

func testDoTx(t *testing.T, d *db, do do, tables bool) {
	ctx := t.Context()
	free := func(want bool) {
		t.Helper()
		if tables {
			var n int
			d.scan(&n, `SELECT count(*) FROM pg_locks WHERE relation = 'a'::regclass AND mode = 'AccessExclusiveLock' AND granted`)
			if (n == 0) != want {
				t.Fatalf("%d locks on the table", n)
			}
			return
		}
		d.wantAvailable(pglock.Int(1), want)
	}
	rows := func(want int) {
		t.Helper()
		var n int
		d.scan(&n, `SELECT count(*) FROM kept`)
		if n != want {
			t.Fatalf("%d rows are kept, want %d", n, want)
		}
		free(true)
	}
	insert := func(ctx context.Context, exec func(string)) error {
		exec(`INSERT INTO kept VALUES (1)`)
		free(false)
		return nil
	}

	must(t, do(ctx, tables, insert))
	rows(1)
	must(t, do(ctx, tables, insert, pglock.Wait(time.Second)))
	rows(2)

	errTest := errors.New("test")
	wantErr(t, do(ctx, tables, func(ctx context.Context, exec func(string)) error {
		insert(ctx, exec)
		return errTest
	}), errTest)
	rows(2)

	func() {
		defer func() {
			if recover() != "oh" {
				t.Error("the panic was not propagated")
			}
		}()
		do(ctx, tables, func(ctx context.Context, exec func(string)) error {
			insert(ctx, exec)
			panic("oh")
		})
	}()
	rows(2)

	gone := make(chan bool)
	go func() {
		defer close(gone)
		do(ctx, tables, func(ctx context.Context, exec func(string)) error {
			insert(ctx, exec)
			runtime.Goexit()
			return nil
		})
	}()
	<-gone
	rows(2)

	ending, cancel := context.WithCancel(ctx)
	wantErr(t, do(ending, tables, func(ctx context.Context, exec func(string)) error {
		insert(ctx, exec)
		cancel()
		return ctx.Err()
	}), context.Canceled)
	d.until(`SELECT count(*) = 0 FROM pg_locks WHERE (locktype = 'advisory' OR relation = 'a'::regclass) AND ` + inThisDatabase)
	rows(2)

	// Not acquired: an error, or nil with SkipIfHeld.
	d.exec(`BEGIN; SELECT pg_advisory_xact_lock(1); LOCK TABLE a`)
	never := func(context.Context, func(string)) error {
		t.Error("fn was called")
		return nil
	}
	wantErr(t, do(ctx, tables, never, pglock.NoWait()), pglock.ErrNotAcquired)
	wantErr(t, do(ctx, tables, never, pglock.Wait(time.Millisecond)), pglock.ErrNotAcquired)
	must(t, do(ctx, tables, never, pglock.NoWait(), pglock.SkipIfHeld()))
	bounded, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	must(t, do(bounded, tables, never, pglock.SkipIfHeld())) // without waiting
	must(t, do(ctx, tables, never, pglock.Wait(time.Millisecond), pglock.SkipIfHeld()))
	short, cancel := context.WithTimeout(ctx, 30*time.Millisecond)
	defer cancel()
	wantErr(t, do(short, tables, never, pglock.SkipIfHeld(), pglock.Wait(time.Hour)), context.DeadlineExceeded)
	d.exec(`ROLLBACK`)
	must(t, do(ctx, tables, insert))
	rows(3)

	if err := do(ctx, tables, never, pglock.Wait(0)); err == nil {
		t.Error("an invalid option is not an error")
	}
}
