package pglock_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/internal/sqlstate"
	"github.com/pglock-go/pglock/pgxlock"
)

// If ctx ends, the connection is closed or the transaction remains usable. It is never
// aborted, and never keeps a lock.
func TestLockTxContext(t *testing.T) {
	eachWay(t, func(t *testing.T, d *db, begin func() *tx) {
		d.exec(`SELECT pg_advisory_lock(1)`)
		for _, opts := range [][]pglock.TxOption{nil, {pglock.Wait(time.Hour)}} {
			tx := begin()
			pid := tx.pid()
			ctx, cancel := context.WithCancel(t.Context())
			result := make(chan error, 1)
			go func() { result <- pglock.LockTx(ctx, tx, pglock.Int(1), opts...) }()
			d.untilWaiting(1, pglock.Int(1))
			cancel()
			err := <-result
			// lib/pq reads Postgres' reply that the statement was canceled, pgx does not.
			if strings.Contains(t.Name(), "lib/pq") {
				wantErr(t, err, pglock.ErrNotAcquired)
			} else {
				wantErr(t, err, pglock.ErrUnavailable)
			}
			wantErr(t, err, context.Canceled)
			d.untilWaiting(0, pglock.Int(1))
			if n := d.heldBy(pid); n != 0 {
				t.Errorf("%d locks are held", n)
			}
		}

		// ctx is done before the call: nothing is sent, and the transaction is unchanged.
		over, cancel := context.WithCancel(t.Context())
		cancel()
		tx := begin()
		for _, err := range []error{
			pglock.LockTx(over, tx, pglock.Int(2)),
			pglock.TryLockTx(over, tx, pglock.Int(2)),
			pglock.LockTables(over, tx, pglock.Tables("pg_class")),
		} {
			wantErr(t, err, pglock.ErrUnavailable)
			wantErr(t, err, context.Canceled)
		}
		tx.usable()
	})
}

// If a driver rejects a done ctx and sends nothing, pglock must not abort the transaction
// by rolling back to a savepoint that does not exist.
func TestLockTxContextEndsBeforeSending(t *testing.T) {
	eachWay(t, func(t *testing.T, d *db, begin func() *tx) {
		tx := begin()
		for n := range 3 {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			calls := 0
			conn := &intercepted{Conn: tx, before: func(context.Context) {
				if calls++; calls == n+1 {
					cancel()
				}
			}}
			err := pglock.LockTx(ctx, conn, pglock.Int(1), pglock.NoWait())
			if err != nil {
				wantErr(t, err, context.Canceled)
				// lib/pq closes the connection of a *sql.Conn even in that case.
				if err := tx.Exec(t.Context(), `SELECT 1`); err != nil && sqlstate.Of(err) == "" {
					return
				}
				tx.usable()
			}
			if n == 0 && err == nil {
				t.Error("locked with a done context")
			}
		}
		tx.usable()
	})
}

// lib/pq closes the connection if ctx ends when its statement returns, and returns nil:
// the lock is not acquired then.
func TestLockTxContextEndsAtTheMomentOfTheGrant(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	for _, closes := range []bool{true, false} {
		for _, take := range []func(context.Context, driver.Conn) error{
			func(ctx context.Context, conn driver.Conn) error { return pglock.LockTx(ctx, conn, pglock.Int(1)) },
			func(ctx context.Context, conn driver.Conn) error {
				return pglock.LockTx(ctx, conn, pglock.Int(1), pglock.Wait(time.Minute))
			},
			func(ctx context.Context, conn driver.Conn) error { return pglock.TryLockTx(ctx, conn, pglock.Int(1)) },
			func(ctx context.Context, conn driver.Conn) error {
				return pglock.LockTables(ctx, conn, pglock.Tables("pg_class"))
			},
		} {
			conn := must1(pgx.Connect(t.Context(), d.dsn))
			tx := must1(conn.Begin(t.Context()))
			ctx, cancel := context.WithCancel(t.Context())
			err := take(ctx, &closing{pgxlock.Tx(tx), func() {
				cancel()
				if closes {
					conn.Close(context.Background())
				}
			}})
			if closes {
				wantErr(t, err, pglock.ErrUnavailable)
				wantErr(t, err, context.Canceled)
				d.until(`SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1)`, conn.PgConn().PID())
				d.wantAvailable(pglock.Int(1), true)
			} else if err == nil {
				must1(tx.Exec(t.Context(), `SELECT 1`))
			}
			cancel()
			conn.Close(context.Background())
		}
	}
}

// closing is a Conn that calls a function when its first lock is granted.
type closing struct {
	driver.Conn
	granted func()
}

func (c *closing) Exec(ctx context.Context, sql string, args ...any) error {
	err := c.Conn.Exec(ctx, sql, args...)
	if strings.Contains(strings.ToLower(sql), "lock") && c.granted != nil && err == nil && sql != "SAVEPOINT _pglock" {
		c.granted()
		c.granted = nil
	}
	return err
}

func (c *closing) Query(ctx context.Context, sql string, args ...any) (driver.Rows, error) {
	rows, err := c.Conn.Query(ctx, sql, args...)
	if strings.Contains(sql, "advisory") && c.granted != nil && err == nil {
		granted := c.granted
		c.granted = nil
		return &closingRows{rows, granted}, nil
	}
	return rows, err
}

type closingRows struct {
	driver.Rows
	granted func()
}

func (r *closingRows) Close() error {
	err := r.Rows.Close()
	if r.granted != nil {
		r.granted()
		r.granted = nil
	}
	return err
}

// If pgx is configured to cancel the statement instead of closing the connection, the
// transaction survives the end of its context.
func TestLockTxContextWithCancelRequests(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	config := must1(pgx.ParseConfig(d.dsn))
	config.BuildContextWatcherHandler = func(conn *pgconn.PgConn) ctxwatch.Handler {
		return &pgconn.CancelRequestContextWatcherHandler{Conn: conn, DeadlineDelay: 5 * time.Second}
	}
	conn := must1(pgx.ConnectConfig(t.Context(), config))
	t.Cleanup(func() { conn.Close(context.Background()) })
	d.exec(`SELECT pg_advisory_lock(1)`)
	for range 5 {
		tx := pgxTx(t, must1(conn.Begin(t.Context())))
		ctx, cancel := context.WithCancel(t.Context())
		result := make(chan error, 1)
		go func() { result <- pglock.LockTx(ctx, tx, pglock.Int(1)) }()
		d.untilWaiting(1, pglock.Int(1))
		cancel()
		err := <-result
		wantErr(t, err, pglock.ErrNotAcquired)
		wantErr(t, err, context.Canceled)
		tx.usable()
		tx.end(true)
	}
}
