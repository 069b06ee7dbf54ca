package pglock_test

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/internal/sqlstate"
	"github.com/pglock-go/pglock/pgxlock"
	"github.com/pglock-go/pglock/sqllock"
)

// bare is a Conn of a third-party adapter that does not know about transactions.
type bare struct{ driver.Conn }

func TestWithLockTimeoutInATransaction(t *testing.T) {
	eachWay(t, func(t *testing.T, d *db, begin func() *tx) {
		for _, strange := range []bool{false, true} {
			for i, set := range []string{
				`SELECT 1`,
				`SET lock_timeout = '1234ms'; SET statement_timeout = '90min'`,
				`SET LOCAL lock_timeout = '2s'; SET LOCAL statement_timeout = '3s'`,
				`SET lock_timeout = '7d'; SET LOCAL lock_timeout = '3s'; SET LOCAL statement_timeout = '61s'`,
				`SET LOCAL lock_timeout = 50; SAVEPOINT a; SET LOCAL lock_timeout = 60; SAVEPOINT b`,
			} {
				a, plain := begin(), begin()
				a.exec(set)
				plain.exec(set)
				before := a.timeouts()
				var conn driver.Conn = a.Conn
				if strange {
					conn = bare{a.Conn}
				}
				nestTimeouts(t, a, conn)
				if got := a.timeouts(); got != before {
					t.Errorf("%s: the timeouts are %s, were %s", set, got, before)
				}
				a.end(i%2 == 0)
				plain.end(i%2 == 0)
				if got, want := afterEnd(a), afterEnd(plain); got != want {
					t.Errorf("%s: after the transaction the timeouts are %s, want %s", set, got, want)
				}
			}
		}
	})
}

// nestTimeouts nests the two timeouts, with errors and panics in between.
func nestTimeouts(t *testing.T, a *tx, conn driver.Conn) {
	t.Helper()
	ctx := t.Context()
	statement := strings.Fields(a.timeouts())[1]
	errTest := errors.New("test")
	want := func(want string) {
		t.Helper()
		if got := a.timeouts(); got != want {
			t.Errorf("the timeouts are %s, want %s", got, want)
		}
	}
	err := pglock.WithLockTimeout(ctx, conn, 1500*time.Millisecond, func(ctx context.Context) error {
		want("1500ms " + statement)
		must(t, pglock.WithStatementTimeout(ctx, conn, time.Hour, func(ctx context.Context) error {
			want("1500ms 1h")
			err := pglock.WithLockTimeout(ctx, conn, pglock.NoTimeout, func(context.Context) error {
				want("0 1h")
				return errTest
			})
			wantErr(t, err, errTest)
			want("1500ms 1h")
			func() {
				defer func() {
					if recover() != "oh" {
						t.Error("the panic was not propagated")
					}
				}()
				pglock.WithLockTimeout(ctx, conn, time.Microsecond*1001, func(context.Context) error {
					want("2ms 1h")
					panic("oh")
				})
			}()
			want("1500ms 1h")
			return nil
		}))
		want("1500ms " + statement)
		return errTest
	})
	wantErr(t, err, errTest)
}

func TestWithLockTimeoutOutsideATransaction(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	for name, conn := range map[string]driver.Conn{
		"pgx":                 pgxlock.Conn(connect(t, d.dsn)),
		"database/sql, pgx":   sqllock.Conn(sqlConn(t, "pgx", d.dsn)),
		"database/sql, libpq": sqllock.Conn(sqlConn(t, "postgres", d.dsn)),
		"strange":             bare{pgxlock.Conn(connect(t, d.dsn))},
	} {
		t.Run(name, func(t *testing.T) {
			a := &tx{Conn: conn, t: t}
			for _, set := range []string{`SELECT 1`, `SET lock_timeout = '1234ms'; SET statement_timeout = '90min'`} {
				a.exec(set)
				before := a.timeouts()
				nestTimeouts(t, a, conn)
				if got := a.timeouts(); got != before {
					t.Errorf("%s: the timeouts are %s, were %s", set, got, before)
				}
				// Transactions inside fn keep the setting, and do not undo later ones.
				for _, end := range []string{"COMMIT", "ROLLBACK"} {
					must(t, pglock.WithLockTimeout(t.Context(), conn, 42*time.Millisecond, func(context.Context) error {
						a.exec("BEGIN")
						if got := strings.Fields(a.timeouts())[0]; got != "42ms" {
							t.Errorf("in a transaction inside fn, lock_timeout is %s", got)
						}
						a.exec(end)
						return nil
					}))
					if got := a.timeouts(); got != before {
						t.Errorf("%s: the timeouts are %s, were %s", set, got, before)
					}
				}
			}
			// A transaction left aborted is reported.
			err := pglock.WithLockTimeout(t.Context(), conn, 42*time.Millisecond, func(ctx context.Context) error {
				a.exec("BEGIN")
				return conn.Exec(ctx, "SELECT 1/0")
			})
			if err == nil || !strings.Contains(err.Error(), "not restored") || !strings.Contains(err.Error(), "division") {
				t.Errorf("got %v, want both errors", err)
			}
			a.exec("ROLLBACK")
		})
	}
}

func TestWithLockTimeoutWorks(t *testing.T) {
	eachWay(t, func(t *testing.T, d *db, begin func() *tx) {
		d.exec(`CREATE TABLE a ()`)
		d.exec(`BEGIN; LOCK TABLE a`)
		tx := begin()
		tx.exec(`SAVEPOINT mine`)
		err := pglock.WithLockTimeout(t.Context(), tx, 10*time.Millisecond, func(ctx context.Context) error {
			return tx.Exec(ctx, `SELECT * FROM a`)
		})
		if sqlstate.Of(err) != sqlstate.LockNotAvailable {
			t.Errorf("got %v, want SQLSTATE 55P03", err)
		}
		if strings.Contains(err.Error(), "not restored") {
			t.Errorf("an aborted transaction is reported: %v", err)
		}
		tx.exec(`ROLLBACK TO SAVEPOINT mine`)
		if got := strings.Fields(tx.timeouts())[0]; got != "0" {
			t.Errorf("after the rollback, lock_timeout is %s", got)
		}
		err = pglock.WithStatementTimeout(t.Context(), tx, 10*time.Millisecond, func(ctx context.Context) error {
			return tx.Exec(ctx, `SELECT pg_sleep(60)`)
		})
		if sqlstate.Of(err) != sqlstate.QueryCanceled {
			t.Errorf("got %v, want SQLSTATE 57014", err)
		}
		// In an aborted transaction no setting can be made, and fn is not called.
		err = pglock.WithLockTimeout(t.Context(), tx, time.Second, func(context.Context) error {
			t.Error("fn was called")
			return nil
		})
		if sqlstate.Of(err) != sqlstate.InFailedTransaction {
			t.Errorf("got %v, want SQLSTATE 25P02", err)
		}
		d.exec(`ROLLBACK`)
	})
}

func TestTimeoutsThatAreRefused(t *testing.T) {
	d := newDB(t)
	conn := pgxlock.Conn(connect(t, d.dsn))
	for _, d := range []time.Duration{
		0, -1, -time.Second, 1, 999 * time.Microsecond, math.MinInt64 + 1, math.MaxInt64,
		(math.MaxInt32 + 1) * time.Millisecond, math.MaxInt32*time.Millisecond + 1,
	} {
		err := pglock.WithLockTimeout(t.Context(), conn, d, func(context.Context) error {
			t.Errorf("%v: fn was called", d)
			return nil
		})
		if err == nil || sqlstate.Of(err) != "" {
			t.Errorf("%v: got %v, want a reason", d, err)
		}
	}
	must(t, pglock.WithLockTimeout(t.Context(), conn, math.MaxInt32*time.Millisecond, func(context.Context) error { return nil }))
}

// A timeout cannot be set on a pool, whose next connection would not have it.
func TestTimeoutsInAPool(t *testing.T) {
	d := newDB(t)
	for _, driverName := range []string{"pgx", "postgres"} {
		pool := openSQL(t, driverName, d.dsn)
		err := pglock.WithLockTimeout(t.Context(), sqllock.Tx(pool), time.Second, func(context.Context) error {
			t.Error("fn was called")
			return nil
		})
		if err == nil || !strings.Contains(err.Error(), "pool") {
			t.Errorf("got %v", err)
		}
	}
}

// fn may end the transaction or close the connection.
func TestTimeoutsOfWhatIsGone(t *testing.T) {
	d := newDB(t)
	conn := connect(t, d.dsn)
	inner := must1(conn.Begin(t.Context()))
	must(t, pglock.WithLockTimeout(t.Context(), pgxlock.Tx(inner), time.Second, func(ctx context.Context) error { return inner.Commit(ctx) }))
	if got := must1(show(conn)); got != "0" {
		t.Errorf("lock_timeout is %s", got)
	}
	errTest := errors.New("test")
	err := pglock.WithLockTimeout(t.Context(), pgxlock.Conn(conn), time.Second, func(ctx context.Context) error {
		conn.Close(ctx)
		return errTest
	})
	if err != errTest {
		t.Errorf("got %v", err)
	}
}

func show(conn *pgx.Conn) (s string, err error) {
	err = conn.QueryRow(context.Background(), `SHOW lock_timeout`).Scan(&s)
	return s, err
}

// The setting is restored even if ctx has ended.
func TestTimeoutsAfterTheContext(t *testing.T) {
	eachWay(t, func(t *testing.T, d *db, begin func() *tx) {
		tx := begin()
		ctx, cancel := context.WithCancel(t.Context())
		err := pglock.WithLockTimeout(ctx, tx, time.Second, func(ctx context.Context) error {
			cancel()
			return ctx.Err()
		})
		wantErr(t, err, context.Canceled)
		if got := tx.timeouts(); got != "0 0" {
			t.Errorf("the timeouts are %s", got)
		}
	})
}
