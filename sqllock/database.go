package sqllock

import (
	"context"
	"database/sql"
	sqldriver "database/sql/driver"
	_ "embed"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/internal/handshake"
	"github.com/pglock-go/pglock/internal/redact"
)

// A Database is a Postgres database, for all functions of pglock that need one. It is safe
// for concurrent use, and there is nothing to close.
type Database struct {
	// session returns a connection for a session, and a function that closes the
	// connection's pool if that belongs to the session.
	session func(context.Context) (conn *sql.Conn, done func(), err error)

	pool      *sql.DB // nil if there is none
	txOptions *sql.TxOptions
}

var (
	_ driver.Database[*sql.Conn] = (*Database)(nil)
	_ driver.Beginner[*sql.Tx]   = (*Database)(nil)
	_ driver.Querier             = (*Database)(nil)
)

// DB returns the Database of a pool. Queries, transactions and connections for the
// program's own work come from the pool.
//
// The sessions of a Locker, or of a watcher of package prioritize, come from the pool too,
// since database/sql cannot open another connection with the pool's settings. Each session
// is a connection that the application cannot use. It counts against SetMaxOpenConns while
// it is open, ignores the limits on lifetime and idle time, and is closed afterwards
// instead of returned to the pool. A Locker needs few sessions, however many locks it
// holds. But an exhausted pool delays locks, and with SetMaxOpenConns(1) the application
// waits until the Locker is closed. If you know the connection string, prefer [ConnString]
// or [Connector].
func DB(db *sql.DB) *Database {
	return &Database{
		session: func(ctx context.Context) (*sql.Conn, func(), error) {
			conn, err := openUntainted(ctx, db)
			return conn, func() {}, err
		},
		pool: db,
	}
}

// Connector returns the Database that a driver's connector connects to, such as lib/pq's
// pq.NewConnector or pgx's stdlib.GetConnector. There is no pool: each query, transaction
// and acquired connection is a new connection, which is closed afterwards.
func Connector(c sqldriver.Connector) *Database {
	return &Database{session: func(ctx context.Context) (*sql.Conn, func(), error) {
		return openPrivate(ctx, sql.OpenDB(c))
	}}
}

// ConnString returns the Database that sql.Open(driverName, dsn) would connect to: "pgx" is
// pgx's driver, and "postgres" is lib/pq. If an argument is invalid, the first use returns
// an error, which does not reveal the password. Connections are as for [Connector].
func ConnString(driverName, dsn string) *Database {
	return &Database{session: func(ctx context.Context) (*sql.Conn, func(), error) {
		db, err := sql.Open(driverName, dsn)
		if err != nil {
			return nil, nil, redact.Hide(err, dsn)
		}
		conn, done, err := openPrivate(ctx, db)
		if network := new(net.OpError); err != nil && !fromServer(err) && !errors.As(err, &network) {
			// Most drivers parse the string only now.
			err = redact.Hide(err, dsn)
		}
		return conn, done, err
	}}
}

// TxOptions returns a copy of d whose Begin uses opts, for example for another isolation
// level.
func (d *Database) TxOptions(opts *sql.TxOptions) *Database {
	other := *d
	other.txOptions = opts
	return &other
}

// Open opens a session for a [pglock.Locker]. ctx covers only the opening. Some drivers,
// such as lib/pq, ignore ctx while connecting. Open then returns when ctx ends, and closes
// the connection once it is established. Set a connect_timeout for such a driver.
func (d *Database) Open(ctx context.Context) (driver.Session, error) {
	conn, done, err := d.connect(ctx)
	if err != nil {
		return nil, err
	}
	s, err := newSession(conn, done)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// connect opens a connection for a session.
func (d *Database) connect(ctx context.Context) (*sql.Conn, func(), error) {
	type result struct {
		conn *sql.Conn
		done func()
		err  error
	}
	results := make(chan result, 1)
	go func() {
		conn, done, err := d.session(ctx)
		results <- result{conn, done, err}
	}()
	select {
	case r := <-results:
		return r.conn, r.done, r.err
	case <-ctx.Done():
	}
	go func() {
		if r := <-results; r.err == nil {
			_ = closeConn(r.conn)
			r.done()
		}
	}()
	return nil, nil, fmt.Errorf("sqllock: connecting: %w", ctx.Err())
}

// Query runs a statement, for package inspect. ctx covers all of it.
func (d *Database) Query(ctx context.Context, query string, args ...any) (driver.Rows, error) {
	if d.pool != nil {
		return queryPool(ctx, d.pool, query, args)
	}
	c, err := d.Acquire(ctx)
	if err != nil {
		return nil, err
	}
	r, err := c.Conn.Query(ctx, query, args...)
	if err != nil {
		c.Release(false)
		return nil, err
	}
	return connRows{r, func() error { c.Release(false); return nil }}, nil
}

// Begin begins a transaction, for [pglock.DoTx] and [pglock.DoTables]. database/sql rolls
// it back when ctx ends.
func (d *Database) Begin(ctx context.Context) (driver.Tx[*sql.Tx], error) {
	if d.pool != nil {
		tx, err := d.pool.BeginTx(ctx, d.txOptions)
		if err != nil {
			return driver.Tx[*sql.Tx]{}, err
		}
		return begun(tx, tx, func() {}), nil
	}
	c, err := d.Acquire(ctx)
	if err != nil {
		return driver.Tx[*sql.Tx]{}, err
	}
	tx, err := c.Native.BeginTx(ctx, d.txOptions)
	if err != nil {
		c.Release(false)
		return driver.Tx[*sql.Tx]{}, err
	}
	return begun(tx, tx, func() { c.Release(false) }), nil
}

// Acquire takes a connection from the pool, or opens one if there is no pool. ctx covers
// only that.
func (d *Database) Acquire(ctx context.Context) (driver.Acquired[*sql.Conn], error) {
	if d.pool != nil {
		conn, err := d.pool.Conn(ctx)
		if err != nil {
			return driver.Acquired[*sql.Conn]{}, err
		}
		return acquired(conn, func(reuse bool) {
			if reuse {
				_ = conn.Close() // it returns to the pool
			} else {
				_ = closeConn(conn)
			}
		}), nil
	}
	conn, done, err := d.connect(ctx)
	if err != nil {
		return driver.Acquired[*sql.Conn]{}, err
	}
	return acquired(conn, func(bool) {
		_ = closeConn(conn)
		done()
	}), nil
}

// acquired returns conn with a Release that calls release once, and waits for it for a
// limited time: it waits for statements that still run.
func acquired(conn *sql.Conn, release func(reuse bool)) driver.Acquired[*sql.Conn] {
	var once sync.Once
	return driver.Acquired[*sql.Conn]{
		Native: conn,
		Conn:   Conn(conn),
		Release: func(reuse bool) {
			once.Do(func() {
				released := make(chan struct{})
				go func() {
					defer close(released)
					release(reuse)
				}()
				select {
				case <-released:
				case <-time.After(2 * closeTimeout):
				}
			})
		},
	}
}

// BeginFunc returns a Beginner for a library built on database/sql, for [pglock.DoTx] and
// [pglock.DoTables]. begin begins a transaction with the library's function. It returns the
// library's transaction and tx, which runs statements in it and has the methods Commit()
// error and Rollback() error. With most libraries the two are the same value:
//
//	sqllock.BeginFunc(func(ctx context.Context) (bun.Tx, sqllock.ExecQueryer, error) {
//		tx, err := db.BeginTx(ctx, nil)
//		return tx, tx, err
//	})
//
// With GORM, tx is the transaction's ConnPool:
//
//	sqllock.BeginFunc(func(ctx context.Context) (*gorm.DB, sqllock.ExecQueryer, error) {
//		tx := db.WithContext(ctx).Begin()
//		return tx, tx.Statement.ConnPool, tx.Error
//	})
//
// tx must meet the requirements of [Tx].
func BeginFunc[T any](begin func(context.Context) (native T, tx ExecQueryer, err error)) driver.Beginner[T] {
	return beginFunc[T](func(ctx context.Context) (driver.Tx[T], error) {
		native, tx, err := begin(ctx)
		if err != nil {
			return driver.Tx[T]{}, err
		}
		ender, ok := tx.(ender)
		if !ok {
			return driver.Tx[T]{}, fmt.Errorf("sqllock: a %T is not a transaction: it has no methods Commit() error and Rollback() error", tx)
		}
		return begun(native, ender, func() {}), nil
	})
}

// A beginFunc is a function that is a [driver.Beginner].
type beginFunc[T any] func(context.Context) (driver.Tx[T], error)

func (f beginFunc[T]) Begin(ctx context.Context) (driver.Tx[T], error) { return f(ctx) }

// An ender is a transaction of database/sql or of a library built on it.
type ender interface {
	ExecQueryer
	Commit() error
	Rollback() error
}

// begun returns a transaction that has begun. done is called when it has ended.
func begun[T any](native T, tx ender, done func()) driver.Tx[T] {
	ending := func(end func() error) func(context.Context) error {
		return func(context.Context) error {
			defer done()
			return end()
		}
	}
	return driver.Tx[T]{Native: native, Conn: Tx(tx), Commit: ending(tx.Commit), Rollback: ending(tx.Rollback)}
}

// openPrivate opens the one connection of a pool that nobody else uses.
func openPrivate(ctx context.Context, db *sql.DB) (*sql.Conn, func(), error) {
	done := func() { _ = db.Close() }
	conn, err := db.Conn(ctx)
	if err != nil {
		done()
		return nil, nil, err
	}
	return conn, done, nil
}

// maxTries limits how many connections openUntainted checks.
const maxTries = 4

var errTainted = errors.New("sqllock: the pool's connections already hold advisory locks: " +
	"some code locks through the pool and does not unlock on the same connection")

// taintedSQL counts the advisory locks of a connection. Another client may be using that
// connection, so the query changes nothing on it.
//
//go:embed tainted.sql
var taintedSQL string

// openUntainted returns a connection that holds no advisory lock. Otherwise, Postgres would grant
// us the same lock again on that session, although another part of the program believes
// it holds it. A connection that holds any is returned to the pool unchanged, but only
// after another has been taken.
func openUntainted(ctx context.Context, db *sql.DB) (*sql.Conn, error) {
	for range maxTries {
		conn, err := db.Conn(ctx)
		if err != nil {
			return nil, err
		}
		var locks string
		err = handshake.Persist(ctx, func() (err error) {
			locks, err = queryTextSimple(ctx, conn, handshake.PreludeSQL+taintedSQL)
			return err
		})
		if err == nil && locks == "0" {
			return conn, nil
		}
		defer conn.Close()
		if err != nil {
			return nil, err
		}
	}
	return nil, errTainted
}
