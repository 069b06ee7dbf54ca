package sqllock

import (
	"context"
	"database/sql"
	sqldriver "database/sql/driver"
	_ "embed"
	"errors"
	"fmt"
	"net"

	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/internal/handshake"
	"github.com/pglock-go/pglock/internal/redact"
)

// A Source opens the sessions of a [pglock.Locker].
type Source struct {
	// open returns a connection, and a function that closes its pool if that belongs to
	// the session.
	open func(context.Context) (conn *sql.Conn, done func(), err error)
}

var _ driver.Source = (*Source)(nil)

// A PoolSource is a [Source] that also runs queries in the pool.
type PoolSource struct {
	Source
	pool *sql.DB
}

var (
	_ driver.Source  = (*PoolSource)(nil)
	_ driver.Querier = (*PoolSource)(nil)
)

// DB returns a PoolSource that takes sessions from the application's pool, since
// database/sql cannot open another connection with the pool's settings. Each session of
// the Locker is a connection that the application cannot use. It counts against
// SetMaxOpenConns while the Locker has it, ignores the limits on lifetime and idle time,
// and is closed afterwards instead of returned to the pool. A Locker needs few sessions,
// however many locks it holds. But an exhausted pool delays locks, and with
// SetMaxOpenConns(1) the application waits until the Locker is closed. If you know the
// connection string, prefer [ConnString] or [Connector].
//
// Queries, for package inspect, run in the pool.
func DB(db *sql.DB) *PoolSource {
	return &PoolSource{
		Source: Source{func(ctx context.Context) (*sql.Conn, func(), error) {
			conn, err := openUntainted(ctx, db)
			return conn, func() {}, err
		}},
		pool: db,
	}
}

// Query runs a statement in the pool.
func (s *PoolSource) Query(ctx context.Context, query string, args ...any) (driver.Rows, error) {
	return queryPool(ctx, s.pool, query, args)
}

// Connector returns a Source that opens sessions through a driver's connector, such as
// lib/pq's pq.NewConnector or pgx's stdlib.GetConnector. They do not belong to a pool.
func Connector(c sqldriver.Connector) *Source {
	return &Source{func(ctx context.Context) (*sql.Conn, func(), error) {
		return openPrivate(ctx, sql.OpenDB(c))
	}}
}

// ConnString returns a Source that opens sessions as sql.Open(driverName, dsn) would:
// "pgx" is pgx's driver, and "postgres" is lib/pq. They do not belong to a pool. If an
// argument is invalid, the first Open returns an error, which does not reveal the
// password.
func ConnString(driverName, dsn string) *Source {
	return &Source{func(ctx context.Context) (*sql.Conn, func(), error) {
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

// Open opens a session. ctx covers only the opening. Some drivers, such as lib/pq, ignore
// ctx while connecting. Open then returns when ctx ends, and closes the connection once
// it is established. Set a connect_timeout for such a driver.
func (s *Source) Open(ctx context.Context) (driver.Session, error) {
	type result struct {
		session *session
		err     error
	}
	results := make(chan result, 1)
	go func() {
		conn, done, err := s.open(ctx)
		if err != nil {
			results <- result{err: err}
			return
		}
		session, err := newSession(conn, done)
		results <- result{session, err}
	}()
	select {
	case r := <-results:
		if r.err != nil {
			return nil, r.err
		}
		return r.session, nil
	case <-ctx.Done():
	}
	go func() {
		if r := <-results; r.err == nil {
			r.session.Close()
		}
	}()
	return nil, fmt.Errorf("sqllock: connecting: %w", ctx.Err())
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
