package pglock_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/internal/pgserver"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
	"github.com/pglock-go/pglock/internal/sqlstate"
	"github.com/pglock-go/pglock/pgxlock"
	"github.com/pglock-go/pglock/sqllock"
)

var everyKey = []pglock.Key{
	pglock.Name("job"), pglock.Int(0), pglock.Int(-5), pglock.Int(math.MinInt64), pglock.Int(math.MaxInt64),
	pglock.Pair(-7, 9), pglock.Pair(math.MinInt32, math.MaxInt32),
}

// The lock appears in pg_locks under the key, and ends with the transaction.
func TestLockTx(t *testing.T) {
	eachWay(t, func(t *testing.T, d *db, begin func() *tx) {
		for _, commit := range []bool{true, false} {
			tx := begin()
			for i, opts := range [][]pglock.TxOption{nil, {pglock.Wait(time.Second)}, {pglock.NoWait()}} {
				for _, key := range everyKey {
					must(t, pglock.LockTx(t.Context(), tx, key, opts...))
					d.wantAvailable(key, false)
				}
				if i == 0 {
					must(t, pglock.TryLockTx(t.Context(), tx, everyKey[0])) // its own lock does not conflict
				}
			}
			must(t, pglock.LockAllTx(t.Context(), tx, everyKey))
			must(t, pglock.LockAllTx(t.Context(), tx, everyKey, pglock.NoWait()))
			tx.end(commit)
			for _, key := range everyKey {
				d.wantAvailable(key, true)
			}
		}
	})
}

func TestLockTxShared(t *testing.T) {
	eachWay(t, func(t *testing.T, d *db, begin func() *tx) {
		a, b := begin(), begin()
		for i, key := range everyKey {
			opts := []pglock.TxOption{pglock.Shared()}
			if i%2 == 1 {
				opts = append(opts, pglock.NoWait())
			}
			must(t, pglock.LockTx(t.Context(), a, key, opts...))
			must(t, pglock.LockTx(t.Context(), b, key, opts...))
			wantErr(t, pglock.TryLockTx(t.Context(), a, key), pglock.ErrNotAcquired)
			d.wantAvailable(key, false)
		}
		must(t, pglock.LockAllTx(t.Context(), b, everyKey, pglock.Shared()))
		wantErr(t, pglock.LockAllTx(t.Context(), b, everyKey, pglock.NoWait()), pglock.ErrNotAcquired)
	})
}

// timeoutsOf returns the timeouts of a session or transaction.
func (tx *tx) timeouts() string {
	tx.t.Helper()
	return tx.text(`SELECT current_setting('lock_timeout') || ' ' || current_setting('statement_timeout')`)
}

// Whether the lock is acquired or not, the caller's timeouts are unchanged, in the
// transaction and after it.
func TestLockTxKeepsTimeouts(t *testing.T) {
	eachWay(t, func(t *testing.T, d *db, begin func() *tx) {
		d.exec(`SELECT pg_advisory_lock(1); CREATE TABLE held (); CREATE TABLE free ()`)
		holder := begin()
		holder.exec(`LOCK TABLE held`)
		held, free := pglock.Int(1), pglock.Int(2)
		for i, set := range []string{
			`SELECT 1`,
			`SET lock_timeout = '1234ms'; SET statement_timeout = '90min'`,
			`SET LOCAL lock_timeout = '2s'; SET LOCAL statement_timeout = 0`,
			`SET lock_timeout = '7d'; SET LOCAL lock_timeout = '3s'; SET LOCAL statement_timeout = '61s'`,
			`SAVEPOINT a; SET LOCAL lock_timeout = '4s'; SAVEPOINT b; SET LOCAL statement_timeout = '5s'`,
		} {
			commit := i%2 == 0
			a, plain := begin(), begin()
			a.exec(set)
			plain.exec(set)
			before := a.timeouts()
			check := func(what string) {
				t.Helper()
				if got := a.timeouts(); got != before {
					t.Errorf("%s: %s: the timeouts are %s, were %s", set, what, got, before)
				}
			}
			must(t, pglock.LockTx(t.Context(), a, free))
			check("lock")
			must(t, pglock.LockTx(t.Context(), a, free, pglock.Wait(time.Hour)))
			check("lock with Wait")
			must(t, pglock.TryLockTx(t.Context(), a, free))
			check("try")
			wantErr(t, pglock.TryLockTx(t.Context(), a, held), pglock.ErrNotAcquired)
			check("refused try")
			wantErr(t, pglock.LockTx(t.Context(), a, held, pglock.Wait(time.Millisecond)), pglock.ErrNotAcquired)
			check("refused lock")
			must(t, pglock.LockTables(t.Context(), a, pglock.Tables("free"), pglock.Wait(time.Hour)))
			check("table")
			wantErr(t, pglock.LockTables(t.Context(), a, pglock.Tables("held"), pglock.Wait(time.Millisecond)), pglock.ErrNotAcquired)
			check("refused table")
			wantErr(t, pglock.LockTables(t.Context(), a, pglock.Tables("held"), pglock.NoWait()), pglock.ErrNotAcquired)
			check("refused table at once")

			// After the transaction, the session's settings are as without pglock.
			a.end(commit)
			plain.end(commit)
			if got, want := afterEnd(a), afterEnd(plain); got != want {
				t.Errorf("%s: after the transaction (commit %v) the timeouts are %s, want %s", set, commit, got, want)
			}
		}
	})
}

// afterEnd returns the timeouts of a connection after its transaction, if it is
// accessible.
func afterEnd(tx *tx) string {
	rows, err := tx.Query(context.Background(), `SELECT current_setting('lock_timeout') || ' ' || current_setting('statement_timeout')`)
	if err != nil {
		return "" // a *sql.Tx, a pgx.Tx
	}
	defer rows.Close()
	var s string
	rows.Next()
	if rows.Scan(&s) != nil {
		return ""
	}
	return s
}

// If the lock is not acquired, the error lists the holders, and the transaction can
// continue.
func TestLockTxRefused(t *testing.T) {
	eachWay(t, func(t *testing.T, d *db, begin func() *tx) {
		d.exec(`SET application_name = 'the holder'`)
		d.exec(`SELECT pg_advisory_lock_shared($1)`, pglock.Name("job").ID())
		var pid int32
		d.scan(&pid, `SELECT pg_backend_pid()`)
		for _, opt := range []pglock.TxOption{pglock.NoWait(), pglock.Wait(20 * time.Millisecond)} {
			tx := begin()
			tx.exec(`CREATE TABLE kept AS SELECT 1`)
			began := time.Now()
			err := pglock.LockTx(t.Context(), tx, pglock.Name("job"), opt)
			wantErr(t, err, pglock.ErrNotAcquired)
			if opt := fmt.Sprint(opt); time.Since(began) > 30*time.Second {
				t.Errorf("%s took %v", opt, time.Since(began))
			}
			var e *pglock.Error
			if !errors.As(err, &e) || len(e.Holders) != 1 {
				t.Fatalf("no holder in %v", err)
			}
			h := e.Holders[0]
			if h.PID != pid || h.Application != "the holder" || h.State != "idle" || h.Mode != "ShareLock" || !h.Granted || h.Since.IsZero() {
				t.Errorf("the holder is %+v", h)
			}
			if len(e.Keys) != 1 || e.Keys[0] != pglock.Name("job") || e.Op != "lock in transaction" {
				t.Errorf("the error has the operation %q and the keys %v", e.Op, e.Keys)
			}
			tx.usable()
			if n := d.heldBy(tx.pid()); n != 0 {
				t.Errorf("%d locks are held", n)
			}
			tx.exec(`INSERT INTO kept VALUES (2)`)
			tx.end(true)
			var n int
			d.scan(&n, `SELECT count(*) FROM kept`)
			if n != 2 {
				t.Errorf("the transaction inserted %d rows, want 2", n)
			}
			d.exec(`DROP TABLE kept`)
		}

		// TryLockTx is faster, without a query for the holders.
		tx := begin()
		var e *pglock.Error
		if err := pglock.TryLockTx(t.Context(), tx, pglock.Name("job")); !errors.As(err, &e) || len(e.Holders) != 0 {
			t.Errorf("got %v", err)
		}
		tx.usable()

		// A waiter ahead of us is reported if there is no holder.
		waiter := begin()
		result := make(chan error, 1)
		go func() { result <- pglock.LockTx(context.Background(), waiter, pglock.Name("job")) }()
		d.untilWaiting(1, pglock.Name("job"))
		err := pglock.LockTx(t.Context(), tx, pglock.Name("job"), pglock.Shared(), pglock.NoWait())
		wantErr(t, err, pglock.ErrNotAcquired)
		if !errors.As(err, &e) || len(e.Holders) != 1 || e.Holders[0].Granted {
			t.Errorf("want the waiter: %v", err)
		}
		d.exec(`SELECT pg_advisory_unlock_all()`)
		must(t, <-result)
	})
}

// The caller's own lock_timeout and statement_timeout do not end a Wait.
func TestLockTxWaitsDespiteTimeouts(t *testing.T) {
	eachWay(t, func(t *testing.T, d *db, begin func() *tx) {
		d.exec(`CREATE TABLE held ()`)
		lock := map[string]func(*tx) error{
			"key": func(tx *tx) error { return pglock.LockTx(t.Context(), tx, pglock.Int(1), pglock.Wait(time.Minute)) },
			"keys": func(tx *tx) error {
				return pglock.LockAllTx(t.Context(), tx, []pglock.Key{pglock.Int(1), pglock.Int(2)}, pglock.Wait(time.Minute))
			},
			"tables": func(tx *tx) error {
				return pglock.LockTables(t.Context(), tx, pglock.Tables("held"), pglock.Wait(time.Minute))
			},
		}
		for what, lock := range lock {
			holder, tx := begin(), begin()
			holder.exec(`SELECT pg_advisory_xact_lock(1); LOCK TABLE held`)
			pid := tx.pid()
			tx.exec(`SET LOCAL lock_timeout = '1s'; SET LOCAL statement_timeout = '1500ms'`)
			result := make(chan error, 1)
			go func() { result <- lock(tx) }()
			d.until(`SELECT count(*) = 1 FROM pg_stat_activity WHERE pid = $1 AND wait_event_type = 'Lock'
				AND clock_timestamp() - state_change > interval '1700ms'`, pid)
			holder.end(true)
			if err := <-result; err != nil {
				t.Errorf("%s: %v", what, err)
			}
			if got := tx.timeouts(); got != "1s 1500ms" {
				t.Errorf("%s: the timeouts are %s", what, got)
			}
			tx.end(true)
		}
	})
}

// Without Wait and NoWait the session's own timeouts apply.
func TestLockTxHeedsTimeouts(t *testing.T) {
	eachWay(t, func(t *testing.T, d *db, begin func() *tx) {
		d.exec(`SELECT pg_advisory_lock(1)`)
		tx := begin()
		err := pglock.WithLockTimeout(t.Context(), tx, 20*time.Millisecond, func(ctx context.Context) error {
			return pglock.LockTx(ctx, tx, pglock.Int(1))
		})
		wantErr(t, err, pglock.ErrNotAcquired)
		tx.usable()
		err = pglock.WithStatementTimeout(t.Context(), tx, 20*time.Millisecond, func(ctx context.Context) error {
			return pglock.LockTx(ctx, tx, pglock.Int(1))
		})
		if errors.Is(err, pglock.ErrNotAcquired) || sqlstate.Of(err) != "57014" {
			t.Errorf("got %v, want SQLSTATE 57014", err)
		}
		tx.usable()
		if n := d.heldBy(tx.pid()); n != 0 {
			t.Errorf("%d locks are held", n)
		}
	})
}

// A cancel by another client is not ErrNotAcquired.
func TestLockTxCancelledFromOutside(t *testing.T) {
	eachWay(t, func(t *testing.T, d *db, begin func() *tx) {
		d.exec(`SELECT pg_advisory_lock(1)`)
		for _, opts := range [][]pglock.TxOption{nil, {pglock.Wait(time.Hour)}} {
			tx := begin()
			pid := tx.pid()
			result := make(chan error, 1)
			go func() { result <- pglock.LockTx(t.Context(), tx, pglock.Int(1), opts...) }()
			d.untilWaiting(1, pglock.Int(1))
			d.exec(`SELECT pg_cancel_backend($1)`, pid)
			if err := <-result; sqlstate.Of(err) != "57014" || errors.Is(err, pglock.ErrNotAcquired) {
				t.Errorf("got %v, want SQLSTATE 57014", err)
			}
			tx.usable()
		}
	})
}

// intercepted is a Conn that calls a function before each round trip.
type intercepted struct {
	driver.Conn
	before func(context.Context)
}

func (c *intercepted) Exec(ctx context.Context, sql string, args ...any) error {
	c.before(ctx)
	return c.Conn.Exec(ctx, sql, args...)
}

func (c *intercepted) Query(ctx context.Context, sql string, args ...any) (driver.Rows, error) {
	c.before(ctx)
	return c.Conn.Query(ctx, sql, args...)
}

// The numbers of round trips documented in savepoint.go.
func TestLockTxRoundTrips(t *testing.T) {
	d := newDB(t)
	d.exec(`SELECT pg_advisory_lock(1); CREATE TABLE a ()`)
	tx := ways[0].begin(t, d.dsn)
	trips := 0
	conn := &intercepted{Conn: tx, before: func(context.Context) { trips++ }}
	count := func(what string, want int, err error, wantErr error) {
		t.Helper()
		if !errors.Is(err, wantErr) {
			t.Errorf("%s: %v", what, err)
		}
		if trips != want {
			t.Errorf("%s: %d round trips, want %d", what, trips, want)
		}
		trips = 0
	}
	ctx, free, held, no := t.Context(), pglock.Int(2), pglock.Int(1), pglock.ErrNotAcquired
	count("lock", 1, pglock.LockTx(ctx, conn, free), nil)
	count("lock with Wait", 1, pglock.LockTx(ctx, conn, free, pglock.Wait(time.Minute)), nil)
	count("lock all", 1, pglock.LockAllTx(ctx, conn, everyKey, pglock.Wait(time.Minute)), nil)
	count("try", 3, pglock.TryLockTx(ctx, conn, free), nil)
	count("refused try", 3, pglock.TryLockTx(ctx, conn, held), no)
	count("refused NoWait", 6, pglock.LockTx(ctx, conn, held, pglock.NoWait()), no)
	count("refused Wait", 5, pglock.LockTx(ctx, conn, held, pglock.Wait(time.Millisecond)), no)
	count("tables", 1, pglock.LockTables(ctx, conn, pglock.Tables("a", "pg_class")), nil)
	count("tables with NoWait", 1, pglock.LockTables(ctx, conn, pglock.Tables("a"), pglock.NoWait()), nil)
	count("tables with Wait", 3, pglock.LockTables(ctx, conn, pglock.Tables("a"), pglock.Wait(time.Minute)), nil)
	must(t, tx.back())
}

func TestLockTxDeadlock(t *testing.T) {
	eachWay(t, func(t *testing.T, d *db, begin func() *tx) {
		a, b := begin(), begin()
		a.exec(`SET LOCAL deadlock_timeout = '10s'`)
		b.exec(`SET LOCAL deadlock_timeout = '10ms'`)
		must(t, pglock.LockTx(t.Context(), a, pglock.Int(1)))
		must(t, pglock.LockTx(t.Context(), b, pglock.Int(2)))
		result := make(chan error, 1)
		go func() { result <- pglock.LockTx(context.Background(), a, pglock.Int(2)) }()
		d.untilWaiting(1, pglock.Int(2))
		err := pglock.LockTx(t.Context(), b, pglock.Int(1))
		wantErr(t, err, pglock.ErrDeadlock)
		if errors.Is(err, pglock.ErrNotAcquired) {
			t.Errorf("a deadlock is reported as ErrNotAcquired: %v", err)
		}
		b.usable()
		b.end(true)
		must(t, <-result)
	})
}

// Outside a transaction nothing is locked, not even briefly.
func TestLockTxOutsideATransaction(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	d.exec(`CREATE TABLE a ()`)
	conns := map[string]driver.Conn{
		"pgx":    pgxlock.Conn(connect(t, d.dsn)),
		"sqlpgx": sqllock.Conn(sqlConn(t, "pgx", d.dsn)),
		"lib/pq": sqllock.Conn(sqlConn(t, "postgres", d.dsn)),
	}
	for name, conn := range conns {
		t.Run(name, func(t *testing.T) {
			for what, err := range map[string]error{
				"lock":        pglock.LockTx(t.Context(), conn, pglock.Int(1)),
				"wait":        pglock.LockTx(t.Context(), conn, pglock.Int(1), pglock.Wait(time.Second)),
				"no wait":     pglock.LockTx(t.Context(), conn, pglock.Int(1), pglock.NoWait()),
				"try":         pglock.TryLockTx(t.Context(), conn, pglock.Int(1)),
				"all":         pglock.LockAllTx(t.Context(), conn, everyKey),
				"tables":      pglock.LockTables(t.Context(), conn, pglock.Tables("a")),
				"tables wait": pglock.LockTables(t.Context(), conn, pglock.Tables("a"), pglock.Wait(time.Second)),
				"tables try":  pglock.LockTables(t.Context(), conn, pglock.Tables("a"), pglock.NoWait()),
			} {
				if !errors.Is(err, pglock.ErrNoTransaction) {
					t.Errorf("%s: got %v, want ErrNoTransaction", what, err)
				}
			}
			// The connection is still usable.
			must(t, conn.Exec(t.Context(), `SELECT 1`))
		})
	}
	if n := d.held(); n != 0 {
		t.Errorf("%d locks are held", n)
	}
	// A pool passed as a transaction.
	for _, driverName := range []string{"pgx", "postgres"} {
		if err := pglock.LockTx(t.Context(), sqllock.Tx(openSQL(t, driverName, d.dsn)), pglock.Int(1)); err == nil {
			t.Error("locked in a pool")
		}
	}
}

func TestLockTxInAnAbortedTransaction(t *testing.T) {
	eachWay(t, func(t *testing.T, d *db, begin func() *tx) {
		tx := begin()
		tx.exec(`SAVEPOINT _pglock`) // the caller's, which pglock must not roll back to
		if err := tx.Exec(t.Context(), `SELECT 1/0`); err == nil {
			t.Fatal("no error")
		}
		for _, err := range []error{
			pglock.LockTx(t.Context(), tx, pglock.Int(1)),
			pglock.LockTx(t.Context(), tx, pglock.Int(1), pglock.Wait(time.Second)),
			pglock.TryLockTx(t.Context(), tx, pglock.Int(1)),
			pglock.LockTables(t.Context(), tx, pglock.Tables("pg_class"), pglock.Wait(time.Second)),
		} {
			if sqlstate.Of(err) != "25P02" || errors.Is(err, pglock.ErrNotAcquired) {
				t.Errorf("got %v, want SQLSTATE 25P02", err)
			}
		}
		if err := tx.Exec(t.Context(), `SELECT 1`); sqlstate.Of(err) != "25P02" {
			t.Errorf("the transaction is no longer aborted: %v", err)
		}
	})
}

// The caller's savepoints are unaffected by pglock's savepoint.
func TestLockTxAmongSavepoints(t *testing.T) {
	eachWay(t, func(t *testing.T, d *db, begin func() *tx) {
		d.exec(`SELECT pg_advisory_lock(1)`)
		tx := begin()
		tx.exec(`CREATE TEMP TABLE kept (n int) ON COMMIT DROP; SAVEPOINT _pglock; INSERT INTO kept VALUES (1)`)
		must(t, pglock.LockTx(t.Context(), tx, pglock.Int(2)))
		wantErr(t, pglock.LockTx(t.Context(), tx, pglock.Int(1), pglock.NoWait()), pglock.ErrNotAcquired)
		wantErr(t, pglock.LockTx(t.Context(), tx, pglock.Int(1), pglock.Wait(time.Millisecond)), pglock.ErrNotAcquired)
		must(t, pglock.LockTx(t.Context(), tx, pglock.Int(2), pglock.Wait(time.Second)))
		if got := tx.text(`SELECT count(*)::text FROM kept`); got != "1" {
			t.Errorf("the rows after the caller's savepoint are %s, want 1", got)
		}
		d.wantAvailable(pglock.Int(2), false)
		tx.exec(`ROLLBACK TO SAVEPOINT _pglock`)
		if got := tx.text(`SELECT count(*)::text FROM kept`); got != "0" {
			t.Errorf("after the rollback there are %s rows, want 0", got)
		}
		d.wantAvailable(pglock.Int(2), true) // as the doc says
		tx.exec(`RELEASE SAVEPOINT _pglock`)
		if err := tx.Exec(t.Context(), `RELEASE SAVEPOINT _pglock`); err == nil {
			t.Error("pglock's savepoint was left behind")
		}
	})
}

// A statement may fail by a timeout although its lock was granted. The savepoint releases
// it.
func TestLockTxErroredButHeld(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	key := pglock.Int(1)
	var wg sync.WaitGroup
	var inside, acquired, refused atomic.Int32
	stop := time.Now().Add(2 * time.Second)
	for i := range 8 {
		wg.Go(func() {
			conn := must1(pgx.Connect(context.Background(), d.dsn))
			defer conn.Close(context.Background())
			for time.Now().Before(stop) {
				tx := must1(conn.Begin(context.Background()))
				err := pglock.LockTx(context.Background(), pgxlock.Tx(tx), key, pglock.Wait(time.Duration(1+i%3)*time.Millisecond))
				switch {
				case err == nil:
					acquired.Add(1)
					if inside.Add(1) > 1 {
						t.Error("there are two holders")
					}
					must1(tx.Exec(context.Background(), `SELECT pg_sleep(0.001)`))
					inside.Add(-1)
				case errors.Is(err, pglock.ErrNotAcquired):
					refused.Add(1)
					var n int
					if err := tx.QueryRow(context.Background(),
						`SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted AND pid = pg_backend_pid()`).Scan(&n); err != nil || n != 0 {
						t.Errorf("after %v it holds %d locks, %v", pglock.ErrNotAcquired, n, err)
					}
				default:
					t.Error(err)
				}
				tx.Rollback(context.Background())
			}
		})
	}
	wg.Wait()
	if acquired.Load() == 0 || refused.Load() == 0 {
		t.Errorf("acquired %d times, refused %d times: want both", acquired.Load(), refused.Load())
	}
}

// A full lock table is a separate error, and affects only the failed request.
func TestLockTxWhenTheLockTableIsFull(t *testing.T) {
	t.Parallel()
	server := pgtest.Own(t, pgserver.Options{Settings: map[string]string{
		"max_locks_per_transaction": "10", "max_connections": "10", "max_prepared_transactions": "0",
	}})
	dsn := server.ConnString("postgres")
	keys := make([]pglock.Key, 20000)
	for i := range keys {
		keys[i] = pglock.Int(int64(i))
	}
	for _, w := range ways {
		t.Run(w.name, func(t *testing.T) {
			for _, opts := range [][]pglock.TxOption{nil, {pglock.Wait(time.Minute)}, {pglock.NoWait()}} {
				tx := w.begin(t, dsn)
				err := pglock.LockAllTx(t.Context(), tx, keys, opts...)
				if !errors.Is(err, pglock.ErrLockTableFull) || errors.Is(err, pglock.ErrNotAcquired) {
					t.Errorf("got %v, want ErrLockTableFull", errors.Unwrap(err))
				}
				tx.usable()
				must(t, pglock.LockAllTx(t.Context(), tx, keys[:10]))
				must(t, tx.back())
			}
		})
	}
}

func TestLockTxOptions(t *testing.T) {
	d := newDB(t)
	tx := ways[0].begin(t, d.dsn)
	defer tx.back()
	for _, opts := range [][]pglock.TxOption{
		{pglock.Wait(0)},
		{pglock.Wait(-time.Second)},
		{pglock.NoWait(), pglock.Wait(time.Second)},
		{nil},
	} {
		if err := pglock.LockTx(t.Context(), tx, pglock.Int(1), opts...); err == nil {
			t.Errorf("%v: no error", opts)
		}
	}
	if err := pglock.TryLockTx(t.Context(), tx, pglock.Int(1), nil); err == nil {
		t.Error("TryLockTx accepts a nil option")
	}
	if n := d.held(); n != 0 {
		t.Errorf("%d locks are held", n)
	}
	// Less than a millisecond is rounded up to one, since 0 would mean no timeout.
	d.exec(`SELECT pg_advisory_lock(1)`)
	wantErr(t, pglock.LockTx(t.Context(), tx, pglock.Int(1), pglock.Wait(time.Nanosecond)), pglock.ErrNotAcquired)
	must(t, pglock.LockTx(t.Context(), tx, pglock.Int(2), pglock.Wait(math.MaxInt64)))
}
