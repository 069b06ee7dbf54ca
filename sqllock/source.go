package sqllock

import (
	"context"
	"database/sql"
	"database/sql/driver"
	_ "embed"
	"errors"
	"fmt"
	"net"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/internal/handshake"
	"github.com/pglock-go/pglock/internal/redact"
)

// A Source opens the sessions of a [pglock.Locker].
type Source struct {
	// open gives a connection and, when the pool is the session's own, what
	// closes that.
	open func(context.Context) (conn *sql.Conn, done func(), err error)
}

var _ pglock.Source = (*Source)(nil)

// A PoolSource is a [Source] that also runs queries, in the pool.
type PoolSource struct {
	Source
	pool *sql.DB
}

var (
	_ pglock.Source  = (*PoolSource)(nil)
	_ pglock.Querier = (*PoolSource)(nil)
)

// DB takes its sessions out of the application's pool, since database/sql does
// not tell how to open another connection like those. Each session of the Locker
// is one connection that the application does without: it counts against
// SetMaxOpenConns for as long as the Locker has it, whatever the limits on
// lifetime and idleness say, and is closed, not given back, when the Locker is
// done with it. A Locker has few sessions however many locks it holds; still, a
// pool that is used up keeps a lock waiting, and with SetMaxOpenConns(1) the
// application waits for as long as the Locker lives. Where the connection string
// is known, [ConnString] or [Connector] is better.
//
// Queries, for package inspect, run in the pool.
func DB(db *sql.DB) *PoolSource {
	return &PoolSource{
		Source: Source{func(ctx context.Context) (*sql.Conn, func(), error) {
			conn, err := clean(ctx, db)
			return conn, func() {}, err
		}},
		pool: db,
	}
}

// Query runs a statement in the pool.
func (s *PoolSource) Query(ctx context.Context, query string, args ...any) (pglock.Rows, error) {
	return queryPool(ctx, s.pool, query, args)
}

// Connector opens sessions through a driver's connector, such as lib/pq's
// pq.NewConnector or pgx's stdlib.GetConnector. They belong to no pool.
func Connector(c driver.Connector) *Source {
	return &Source{func(ctx context.Context) (*sql.Conn, func(), error) {
		return private(ctx, sql.OpenDB(c))
	}}
}

// ConnString opens sessions as sql.Open(driverName, dsn) would: "pgx" and
// "postgres" are the names of the drivers of pgx and lib/pq. They belong to no
// pool. A name or string that is not right is an error of the first Open, which does
// not tell the password that was meant.
func ConnString(driverName, dsn string) *Source {
	return &Source{func(ctx context.Context) (*sql.Conn, func(), error) {
		db, err := sql.Open(driverName, dsn)
		if err != nil {
			return nil, nil, redact.Hide(err, dsn)
		}
		conn, done, err := private(ctx, db)
		if network := new(net.OpError); err != nil && !fromServer(err) && !errors.As(err, &network) {
			// Most drivers read the string only now.
			err = redact.Hide(err, dsn)
		}
		return conn, done, err
	}}
}

// Open opens a session. ctx covers the opening alone. A driver that does not heed ctx
// while it connects, as lib/pq does not, is left to itself when ctx ends: what it
// connects to in the end is closed. Give it a connect_timeout.
func (s *Source) Open(ctx context.Context) (pglock.Session, error) {
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

// private takes the one connection of a pool that nobody else has.
func private(ctx context.Context, db *sql.DB) (*sql.Conn, func(), error) {
	done := func() { _ = db.Close() }
	conn, err := db.Conn(ctx)
	if err != nil {
		done()
		return nil, nil, err
	}
	return conn, done, nil
}

// tries is how many connections clean looks at.
const tries = 4

var errTainted = errors.New("sqllock: the connections of the pool hold advisory locks already: " +
	"something locks through the pool and does not unlock, or not on the connection that it locked on")

// taintedSQL counts the advisory locks of a connection. Whose connection that is, is not
// known yet: nothing is changed on it.
//
//go:embed tainted.sql
var taintedSQL string

// clean takes a connection on which nobody left an advisory lock: the same lock
// would be granted to us on it again, while somebody believes to hold it. One
// that has any is given back as it is, but only after another has been taken.
func clean(ctx context.Context, db *sql.DB) (*sql.Conn, error) {
	for range tries {
		conn, err := db.Conn(ctx)
		if err != nil {
			return nil, err
		}
		var locks string
		err = handshake.Persist(ctx, func() (err error) {
			locks, err = askSimple(ctx, conn, handshake.PreludeSQL+taintedSQL)
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
