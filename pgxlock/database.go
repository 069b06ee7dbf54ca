package pgxlock

import (
	"context"
	"fmt"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/internal/redact"
)

// A Database is a Postgres database, for all functions of pglock that need one. It is safe
// for concurrent use, and there is nothing to close.
type Database struct {
	config    func(context.Context) (*pgx.ConnConfig, error) // of new connections
	pool      *pgxpool.Pool                                  // nil if there is none
	mode      pgx.QueryExecMode                              // of queries in the pool
	txOptions pgx.TxOptions
}

var (
	_ driver.Database[*pgx.Conn] = (*Database)(nil)
	_ driver.Beginner[pgx.Tx]    = (*Database)(nil)
	_ driver.Querier             = (*Database)(nil)
)

// Pool returns the Database of a pool. Queries, transactions and connections for the
// program's own work come from the pool.
//
// The sessions of a Locker, or of a watcher of package prioritize, have the pool's
// configuration but are outside the pool. They do not count against its size, and its
// limits on connection lifetime do not apply to them. The pool's BeforeConnect is called
// for each of them. AfterConnect is not, since it prepares connections for the
// application's statements.
func Pool(pool *pgxpool.Pool) *Database {
	config := pool.Config()
	return &Database{
		config: func(ctx context.Context) (*pgx.ConnConfig, error) {
			c := config.ConnConfig.Copy()
			if config.BeforeConnect != nil {
				if err := config.BeforeConnect(ctx, c); err != nil {
					return nil, fmt.Errorf("the pool's BeforeConnect: %w", err)
				}
			}
			return c, nil
		},
		pool: pool,
		mode: modeIn(config.ConnConfig),
	}
}

// Config returns the Database that a copy of config connects to, which must come from
// pgx.ParseConfig. Each query, transaction and acquired connection is a new connection,
// which is closed afterwards.
func Config(config *pgx.ConnConfig) *Database {
	config = config.Copy()
	return &Database{config: func(context.Context) (*pgx.ConnConfig, error) { return config.Copy(), nil }}
}

// ConnString returns the Database that a connection string connects to: a URI, or libpq's
// key=value form. Missing settings come from the PG* environment variables, as in
// pgx.ParseConfig. If dsn is invalid, the first use returns an error, which does not reveal
// the password. Connections are as for [Config].
func ConnString(dsn string) *Database {
	return &Database{config: func(context.Context) (*pgx.ConnConfig, error) {
		config, err := pgx.ParseConfig(dsn)
		return config, redact.Hide(err, dsn)
	}}
}

// TxOptions returns a copy of d whose Begin uses opts, for example for another isolation
// level.
func (d *Database) TxOptions(opts pgx.TxOptions) *Database {
	other := *d
	other.txOptions = opts
	return &other
}

// Open opens a session for a [pglock.Locker], outside the pool. ctx covers only the
// opening.
func (d *Database) Open(ctx context.Context) (driver.Session, error) {
	config, err := d.config(ctx)
	if err != nil {
		return nil, err
	}
	// The application's hooks are for its own statements, not for ours.
	config.Tracer = nil
	var s *session
	config.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) { s.notice(n) }
	config.OnNotification = nil
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	s = newSession(conn)
	return s, nil
}

// Query runs a statement, for package inspect. ctx covers all of it.
func (d *Database) Query(ctx context.Context, sql string, args ...any) (driver.Rows, error) {
	if d.pool != nil {
		return queries{d.pool, d.mode}.Query(ctx, sql, args...)
	}
	c, err := d.Acquire(ctx)
	if err != nil {
		return nil, err
	}
	r, err := c.Conn.Query(ctx, sql, args...)
	if err != nil {
		c.Release(false)
		return nil, err
	}
	return connRows{r, c.Release}, nil
}

// connRows are rows with a connection of their own.
type connRows struct {
	driver.Rows
	release func(reuse bool)
}

func (r connRows) Close() error {
	defer r.release(false)
	return r.Rows.Close()
}

// Begin begins a transaction, for [pglock.DoTx] and [pglock.DoTables]. ctx covers only
// the beginning.
func (d *Database) Begin(ctx context.Context) (driver.Tx[pgx.Tx], error) {
	if d.pool != nil {
		tx, err := d.pool.BeginTx(ctx, d.txOptions)
		if err != nil {
			return driver.Tx[pgx.Tx]{}, err
		}
		return driver.Tx[pgx.Tx]{Native: tx, Conn: Tx(tx), Commit: tx.Commit, Rollback: tx.Rollback}, nil
	}
	c, err := d.Acquire(ctx)
	if err != nil {
		return driver.Tx[pgx.Tx]{}, err
	}
	tx, err := c.Native.BeginTx(ctx, d.txOptions)
	if err != nil {
		c.Release(false)
		return driver.Tx[pgx.Tx]{}, err
	}
	ending := func(end func(context.Context) error) func(context.Context) error {
		return func(ctx context.Context) error {
			defer c.Release(false)
			return end(ctx)
		}
	}
	return driver.Tx[pgx.Tx]{Native: tx, Conn: Tx(tx), Commit: ending(tx.Commit), Rollback: ending(tx.Rollback)}, nil
}

// Acquire takes a connection from the pool, or opens one if there is no pool. ctx covers
// only that.
func (d *Database) Acquire(ctx context.Context) (driver.Acquired[*pgx.Conn], error) {
	if d.pool != nil {
		c, err := d.pool.Acquire(ctx)
		if err != nil {
			return driver.Acquired[*pgx.Conn]{}, err
		}
		return acquired(c.Conn(), func(reuse bool) {
			if !reuse {
				_ = closeConn(c.Conn())
			}
			c.Release() // which does not give a closed connection back
		}), nil
	}
	config, err := d.config(ctx)
	if err != nil {
		return driver.Acquired[*pgx.Conn]{}, err
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return driver.Acquired[*pgx.Conn]{}, err
	}
	return acquired(conn, func(bool) { _ = closeConn(conn) }), nil
}

// acquired returns conn with a Release that calls release once.
func acquired(conn *pgx.Conn, release func(reuse bool)) driver.Acquired[*pgx.Conn] {
	var once sync.Once
	return driver.Acquired[*pgx.Conn]{
		Native:  conn,
		Conn:    Conn(conn),
		Release: func(reuse bool) { once.Do(func() { release(reuse) }) },
	}
}
