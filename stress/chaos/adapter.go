//go:build unix

package chaos

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
	_ "github.com/lib/pq"              // the driver "postgres"

	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/pgxlock"
	"github.com/pglock-go/pglock/sqllock"
)

// An adapter connects a worker to Postgres, for the sessions of its Locker and for its
// own transactions.
type adapter struct {
	source driver.Source
	db     driver.Beginner[any]
	close  func()
}

// adapterNames returns the names of all adapters. Those that end in One have a pool of
// a single connection.
func adapterNames() []string {
	return []string{
		"pgxlock.Pool", "sqllock.DB/lib/pq", "pgxlock.ConnString", "sqllock.DB/pgx",
		"pgxlock.Pool/One", "sqllock.ConnString/lib/pq/One", "sqllock.ConnString/pgx/One",
	}
}

func newAdapter(c workerConfig) (*adapter, error) {
	a := new(adapter)
	connections := c.Sessions + c.Goroutines
	kind, one := strings.CutSuffix(c.Adapter, "/One")
	if one {
		connections = 1
	}
	switch kind {
	case "pgxlock.Pool", "pgxlock.ConnString":
		open := func(dsn string) (*pgxpool.Pool, error) {
			config, err := pgxpool.ParseConfig(dsn)
			if err != nil {
				return nil, err
			}
			config.MaxConns = int32(connections)
			if c.Pooled {
				config.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeExec // prepares nothing
			}
			return pgxpool.NewWithConfig(context.Background(), config)
		}
		pool, err := open(c.DSN)
		if err != nil {
			return nil, err
		}
		tx := pool
		if c.TxDSN != c.DSN {
			if tx, err = open(c.TxDSN); err != nil {
				return nil, err
			}
		}
		a.close = func() { pool.Close(); tx.Close() }
		a.db = anyTx(pgxlock.Pool(tx))
		a.source = pgxlock.Pool(pool)
		if kind == "pgxlock.ConnString" {
			a.source = pgxlock.ConnString(c.DSN)
		}
	case "sqllock.DB/lib/pq", "sqllock.DB/pgx", "sqllock.ConnString/lib/pq", "sqllock.ConnString/pgx":
		driverName := "pgx"
		if strings.HasSuffix(kind, "lib/pq") {
			driverName = "postgres"
		}
		open := func(dsn string) (*sql.DB, error) {
			if c.Pooled && driverName == "pgx" {
				dsn += " default_query_exec_mode=exec"
			}
			db, err := sql.Open(driverName, dsn)
			if err == nil {
				db.SetMaxOpenConns(connections)
				db.SetConnMaxLifetime(3 * time.Second) // must not affect a Locker
			}
			return db, err
		}
		db, err := open(c.DSN)
		if err != nil {
			return nil, err
		}
		tx := db
		if c.TxDSN != c.DSN {
			if tx, err = open(c.TxDSN); err != nil {
				return nil, err
			}
		}
		a.close = func() { _, _ = db.Close(), tx.Close() }
		a.db = anyTx(sqllock.DB(tx))
		a.source = sqllock.DB(db)
		if strings.HasPrefix(kind, "sqllock.ConnString") {
			a.source = sqllock.ConnString(driverName, c.DSN)
		}
	default:
		return nil, fmt.Errorf("unknown adapter %q", c.Adapter)
	}
	a.source = c.Broken.wrap(a.source)
	return a, nil
}

// anyTx erases the driver's transaction type.
func anyTx[T any](db driver.Beginner[T]) driver.Beginner[any] { return anyBeginner[T]{db} }

type anyBeginner[T any] struct{ db driver.Beginner[T] }

func (b anyBeginner[T]) Begin(ctx context.Context) (driver.Tx[any], error) {
	tx, err := b.db.Begin(ctx)
	return driver.Tx[any]{Conn: tx.Conn, Commit: tx.Commit, Rollback: tx.Rollback}, err
}
