package pglocktest

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/pgxlock"
)

// A connBreak describes one way to break a connection. Methods that are nil work.
type connBreak struct {
	check, does string

	exec  func(c *brokenConn, ctx context.Context, sql string, args ...any) error
	query func(c *brokenConn, ctx context.Context, sql string, args ...any) (driver.Rows, error)
	rows  func(driver.Rows) driver.Rows
	open  func(t testing.TB, dsn string) driver.Conn
}

// rewriting returns an exec that changes the statement.
func rewriting(old, new string) func(c *brokenConn, ctx context.Context, sql string, args ...any) error {
	return func(c *brokenConn, ctx context.Context, sql string, args ...any) error {
		return c.now().Exec(ctx, strings.ReplaceAll(sql, old, new), args...)
	}
}

var brokenConns = breaks([]connBreak{
	{
		check: "OneSession", does: "is a pool",
		query: func(c *brokenConn, ctx context.Context, sql string, args ...any) (driver.Rows, error) {
			c.other(ctx)
			return c.now().Query(ctx, sql, args...)
		},
	},
	{
		check: "SeveralStatements", does: "runs the first statement alone",
		exec: func(c *brokenConn, ctx context.Context, sql string, args ...any) error {
			first, _, _ := strings.Cut(sql, "; ")
			return c.now().Exec(ctx, first, args...)
		},
	},
	{
		check: "StatementsAsTheyAre", does: "has placeholders of its own",
		query: func(c *brokenConn, ctx context.Context, sql string, args ...any) (driver.Rows, error) {
			return c.now().Query(ctx, strings.ReplaceAll(sql, "?", "$1"), args...)
		},
	},
	{
		check: "Parameters", does: "cuts long parameters",
		query: func(c *brokenConn, ctx context.Context, sql string, args ...any) (driver.Rows, error) {
			for i, arg := range args {
				if text, ok := arg.(string); ok {
					args[i] = text[:min(len(text), 255)]
				}
			}
			return c.now().Query(ctx, sql, args...)
		},
	},
	{check: "Rows", does: "reads bytes as text that ends with a zero", rows: func(r driver.Rows) driver.Rows { return cuttingRows{r} }},
	{check: "Nulls", does: "reads NULL as the empty text", rows: func(r driver.Rows) driver.Rows { return carelessRows{r} }},
	{
		check: "ErrorsHaveSQLState", does: "makes errors text",
		exec: func(c *brokenConn, ctx context.Context, sql string, args ...any) error {
			return hidden(c.now().Exec(ctx, sql, args...))
		},
	},
	{check: "ErrorsAmongRows", does: "takes an error for the end of the rows", rows: func(r driver.Rows) driver.Rows { return silentRows{r} }},
	{check: "RowsClosedEarly", does: "leaves rows unread", rows: func(r driver.Rows) driver.Rows { return openRows{r} }},
	{
		check: "SavepointsAfterErrors", does: "begins again after an error",
		exec: func(c *brokenConn, ctx context.Context, sql string, args ...any) error {
			err := c.now().Exec(ctx, sql, args...)
			if stateOf(err) == "22012" {
				_ = c.now().Exec(ctx, "ROLLBACK; BEGIN")
			}
			return err
		},
	},
	{check: "Commit", does: "does not commit", exec: rewriting("COMMIT", "SELECT 1")},
	{check: "Rollback", does: "commits", exec: rewriting("ROLLBACK", "COMMIT")},
	{check: "LockTx", does: "locks for the session", exec: rewriting("pg_advisory_xact_lock", "pg_advisory_lock")},
	{
		check: "TryLockTx", does: "answers true",
		query: func(c *brokenConn, ctx context.Context, sql string, args ...any) (driver.Rows, error) {
			if strings.Contains(sql, "pg_try_advisory_xact_lock") {
				sql = "SELECT 'true'::text"
			}
			return c.now().Query(ctx, sql, args...)
		},
	},
	{
		check: "LockTxWaits", does: "makes errors text",
		exec: func(c *brokenConn, ctx context.Context, sql string, args ...any) error {
			return hidden(c.now().Exec(ctx, sql, args...))
		},
	},
	{
		check: "LockTxWaits", does: "loses what is set",
		exec: func(c *brokenConn, ctx context.Context, sql string, args ...any) error {
			return c.now().Exec(ctx, strings.ReplaceAll(sql, "'lock_timeout', pg_catalog.current_setting('pglock.lock_timeout')", "'lock_timeout', '0'"), args...)
		},
	},
	{
		check: "LockAllTx", does: "answers true",
		query: func(c *brokenConn, ctx context.Context, sql string, args ...any) (driver.Rows, error) {
			if strings.Contains(sql, "bool_and") {
				sql = "SELECT 'true'::text"
			}
			return c.now().Query(ctx, sql, args...)
		},
	},
	{check: "LockTables", does: "takes a weaker lock", exec: rewriting("ROW EXCLUSIVE", "ACCESS SHARE")},
	{check: "WithLockTimeout", does: "sets nothing", exec: rewriting("SET LOCAL lock_timeout", "SET LOCAL pglock.nothing")},
	{check: "WithLockTimeoutOfTheSession", does: "sets for a transaction", exec: rewriting("SET SESSION", "SET LOCAL")},
	{
		check: "InTransaction", does: "takes every session for one without a transaction",
		open: func(t testing.TB, dsn string) driver.Conn { return tellingConn{connect(t, dsn), false} },
	},
	{
		check: "WithLockTimeoutOfTheSession", does: "takes every session for one in a transaction",
		open: func(t testing.TB, dsn string) driver.Conn { return tellingConn{connect(t, dsn), true} },
	},
	{
		check: "ContextEndsAWait", does: "goes on in another session when ctx has ended",
		exec: func(c *brokenConn, ctx context.Context, sql string, args ...any) error {
			err := c.now().Exec(ctx, sql, args...)
			if ctx.Err() != nil {
				c.other(context.Background())
			}
			return err
		},
	},
	{
		check: "ContextEndsAWait", does: "does not heed ctx",
		exec: func(c *brokenConn, ctx context.Context, sql string, args ...any) error {
			return c.now().Exec(context.WithoutCancel(ctx), sql, args...)
		},
	},
	{
		check: "SessionIsLost", does: "loses the errors of a connection that broke",
		exec: func(c *brokenConn, ctx context.Context, sql string, args ...any) error {
			err := c.now().Exec(ctx, sql, args...)
			if state := stateOf(err); state == "" || state == "57P01" {
				return nil
			}
			return err
		},
	},
	{
		check: "NoTransaction", does: "takes it easy with savepoints",
		exec: func(c *brokenConn, ctx context.Context, sql string, args ...any) error {
			err := c.now().Exec(ctx, sql, args...)
			if stateOf(err) == "25P01" {
				return nil
			}
			return err
		},
	},
})

// breaks completes each break that needs no special kind of connection with the usual
// one.
func breaks(table []connBreak) []connBreak {
	for i, b := range table {
		if b.open == nil {
			table[i].open = func(t testing.TB, dsn string) driver.Conn {
				return newBrokenConn(b, func() driver.Conn { return connect(t, dsn) })
			}
		}
	}
	return table
}

// connect opens a connection until the end of a check. A goroutine of the check may still
// be using it then, since some of the broken ones cause that.
func connect(t testing.TB, dsn string) driver.Conn {
	conn, err := pgx.Connect(context.Background(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	c := &lastingConn{conn: pgxlock.Conn(conn)}
	socket := conn.PgConn().Conn()
	t.Cleanup(func() {
		if !c.mu.TryLock() {
			socket.Close() // ends a running call
			c.mu.Lock()
		}
		defer c.mu.Unlock()
		conn.Close(context.Background())
	})
	return c
}

var errInUse = errors.New("the connection is in use")

// A lastingConn may be used while it is being closed, unlike pgx's own.
type lastingConn struct {
	mu   sync.Mutex // held while conn is in use
	conn driver.Conn
}

func (c *lastingConn) Exec(ctx context.Context, sql string, args ...any) error {
	if !c.mu.TryLock() {
		return errInUse
	}
	defer c.mu.Unlock()
	return c.conn.Exec(ctx, sql, args...)
}

func (c *lastingConn) Query(ctx context.Context, sql string, args ...any) (driver.Rows, error) {
	if !c.mu.TryLock() {
		return nil, errInUse
	}
	defer c.mu.Unlock()
	rows, err := c.conn.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return lastingRows{rows, c}, nil
}

type lastingRows struct {
	rows driver.Rows
	conn *lastingConn
}

func (r lastingRows) Next() bool { r.conn.mu.Lock(); defer r.conn.mu.Unlock(); return r.rows.Next() }

func (r lastingRows) Scan(dest ...any) error {
	r.conn.mu.Lock()
	defer r.conn.mu.Unlock()
	return r.rows.Scan(dest...)
}

func (r lastingRows) Err() error { r.conn.mu.Lock(); defer r.conn.mu.Unlock(); return r.rows.Err() }

func (r lastingRows) Close() error { r.conn.mu.Lock(); defer r.conn.mu.Unlock(); return r.rows.Close() }

// A brokenConn may still be used by a check's goroutine when the check has given up on
// it.
type brokenConn struct {
	how     connBreak
	connect func() driver.Conn
	conn    atomic.Pointer[driver.Conn]
}

func newBrokenConn(how connBreak, connect func() driver.Conn) *brokenConn {
	c := &brokenConn{how: how, connect: connect}
	conn := connect()
	c.conn.Store(&conn)
	return c
}

// now returns the current connection.
func (c *brokenConn) now() driver.Conn { return *c.conn.Load() }

// other replaces the session with another, in a transaction too.
func (c *brokenConn) other(ctx context.Context) {
	conn := c.connect()
	c.conn.Store(&conn)
	_ = conn.Exec(ctx, "BEGIN")
}

func (c *brokenConn) Exec(ctx context.Context, sql string, args ...any) error {
	if c.how.exec != nil {
		return c.how.exec(c, ctx, sql, args...)
	}
	return c.now().Exec(ctx, sql, args...)
}

func (c *brokenConn) Query(ctx context.Context, sql string, args ...any) (driver.Rows, error) {
	query := c.how.query
	if query == nil {
		query = func(c *brokenConn, ctx context.Context, sql string, args ...any) (driver.Rows, error) {
			return c.now().Query(ctx, sql, args...)
		}
	}
	rows, err := query(c, ctx, sql, args...)
	if err != nil || c.how.rows == nil {
		return rows, err
	}
	return c.how.rows(rows), nil
}

// A tellingConn always reports the same about whether a transaction is open.
type tellingConn struct {
	driver.Conn
	open bool
}

func (c tellingConn) InTransaction() (open, known bool) { return c.open, true }

type cuttingRows struct{ driver.Rows }

func (r cuttingRows) Scan(dest ...any) error {
	err := r.Rows.Scan(dest...)
	for _, d := range dest {
		if b, ok := d.(*[]byte); ok {
			*b = bytes.TrimRight(*b, "\x00")
		}
	}
	return err
}

type carelessRows struct{ driver.Rows }

func (r carelessRows) Scan(dest ...any) error {
	_ = r.Rows.Scan(dest...)
	return nil
}

func (r carelessRows) Err() error   { return nil } // pgx also reports it here
func (r carelessRows) Close() error { r.Rows.Close(); return nil }

type silentRows struct{ driver.Rows }

func (silentRows) Err() error     { return nil }
func (r silentRows) Close() error { r.Rows.Close(); return nil }

type openRows struct{ driver.Rows }

func (openRows) Close() error { return nil }

// A beginBreak describes one way to break transactions.
type beginBreak struct {
	check, does string
	of          func(driver.Beginner[pgx.Tx]) driver.Beginner[pgx.Tx]
}

// ending replaces the functions that end a transaction.
func ending(change func(begun context.Context, tx *driver.Tx[pgx.Tx])) func(driver.Beginner[pgx.Tx]) driver.Beginner[pgx.Tx] {
	return func(db driver.Beginner[pgx.Tx]) driver.Beginner[pgx.Tx] {
		return beginFunc[pgx.Tx](func(ctx context.Context) (driver.Tx[pgx.Tx], error) {
			tx, err := db.Begin(ctx)
			change(ctx, &tx)
			return tx, err
		})
	}
}

var brokenBeginners = []beginBreak{
	{"CommitOfAnAbortedTransaction", "loses the errors of a commit", ending(func(_ context.Context, tx *driver.Tx[pgx.Tx]) {
		commit := tx.Commit
		tx.Commit = func(ctx context.Context) error { _ = commit(ctx); return nil }
	})},
	{"SessionIsLost", "loses the errors of a commit", ending(func(_ context.Context, tx *driver.Tx[pgx.Tx]) {
		commit := tx.Commit
		tx.Commit = func(ctx context.Context) error { _ = commit(ctx); return nil }
	})},
	{"BeginUntilContextEnds", "begins without a look at ctx", func(db driver.Beginner[pgx.Tx]) driver.Beginner[pgx.Tx] {
		return beginFunc[pgx.Tx](func(ctx context.Context) (driver.Tx[pgx.Tx], error) {
			return db.Begin(context.WithoutCancel(ctx))
		})
	}},
	{"RollbackAfterContextEnds", "rolls back with the ctx that it began with", ending(func(begun context.Context, tx *driver.Tx[pgx.Tx]) {
		rollback := tx.Rollback
		var ended atomic.Bool
		tx.Rollback = func(ctx context.Context) error {
			if begun.Err() != nil && ended.CompareAndSwap(false, true) {
				context.AfterFunc(ctx, func() { _ = rollback(context.Background()) }) // at the end of the check
				return begun.Err()
			}
			return rollback(ctx)
		}
	})},
	{"DoTx", "commits what is to be rolled back", ending(func(_ context.Context, tx *driver.Tx[pgx.Tx]) { tx.Rollback = tx.Commit })},
	{"DoTables", "commits what is to be rolled back", ending(func(_ context.Context, tx *driver.Tx[pgx.Tx]) { tx.Rollback = tx.Commit })},
}

// An acquireBreak describes one way to break the connections that a program acquires.
type acquireBreak struct {
	check, does string
	acquire     func(context.Context, driver.Database[*pgx.Conn]) (driver.Acquired[*pgx.Conn], error)
}

// A brokenDatabase is a Database whose connections are broken.
type brokenDatabase struct {
	driver.Database[*pgx.Conn]
	acquire func(context.Context, driver.Database[*pgx.Conn]) (driver.Acquired[*pgx.Conn], error)
}

func (d brokenDatabase) Acquire(ctx context.Context) (driver.Acquired[*pgx.Conn], error) {
	return d.acquire(ctx, d.Database)
}

var brokenDatabases = []acquireBreak{
	{"AcquireUntilContextEnds", "acquires without a look at ctx", func(ctx context.Context, db driver.Database[*pgx.Conn]) (driver.Acquired[*pgx.Conn], error) {
		return db.Acquire(context.WithoutCancel(ctx))
	}},
	{"ReleaseWithoutReuseCloses", "gives every connection back", func(ctx context.Context, db driver.Database[*pgx.Conn]) (driver.Acquired[*pgx.Conn], error) {
		a, err := db.Acquire(ctx)
		release := a.Release
		a.Release = func(bool) {
			_, _ = a.Native.Exec(context.Background(), `ROLLBACK`)
			release(true)
		}
		return a, err
	}},
	{"ReleaseTwice", "closes a connection that it has released", func(ctx context.Context, db driver.Database[*pgx.Conn]) (driver.Acquired[*pgx.Conn], error) {
		a, err := db.Acquire(ctx)
		release := a.Release
		a.Release = func(reuse bool) {
			if !reuse {
				_ = a.Native.Close(context.Background())
			}
			release(reuse)
		}
		return a, err
	}},
}
