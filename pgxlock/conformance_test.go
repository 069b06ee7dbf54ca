package pgxlock_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
	"github.com/pglock-go/pglock/pglocktest"
	"github.com/pglock-go/pglock/pgxlock"
)

// modes lists the execution modes that a program may configure in pgx.
var modes = map[string]pgx.QueryExecMode{
	"cached statements": pgx.QueryExecModeCacheStatement,
	"simple protocol":   pgx.QueryExecModeSimpleProtocol,
}

func TestConn(t *testing.T) {
	for name, mode := range modes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dsn := pgtest.Database(t)
			config, err := pgx.ParseConfig(dsn)
			if err != nil {
				t.Fatal(err)
			}
			config.DefaultQueryExecMode = mode
			pglocktest.Conn(t, pgxlock.ConnString(dsn), func(t testing.TB) driver.Conn {
				conn, err := pgx.ConnectConfig(t.Context(), config)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { conn.Close(context.Background()) })
				return pgxlock.Conn(conn)
			})
		})
	}
}

// A Locker's session works as a Conn, like the caller's connection.
func TestSessionAsConn(t *testing.T) {
	t.Parallel()
	source := pgxlock.ConnString(pgtest.Database(t))
	pglocktest.Conn(t, source, func(t testing.TB) driver.Conn {
		session, err := source.Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { session.Close() })
		return session
	})
}

func TestTxOfAPool(t *testing.T) {
	for name, mode := range modes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			config, err := pgxpool.ParseConfig(pgtest.Database(t))
			if err != nil {
				t.Fatal(err)
			}
			config.ConnConfig.DefaultQueryExecMode = mode
			pool, err := pgxpool.NewWithConfig(t.Context(), config)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(pool.Close)
			pglocktest.Tx(t, pgxlock.Pool(pool), pgxlock.Pool(pool))
		})
	}
}

func TestDatabase(t *testing.T) {
	t.Parallel()
	dsn := pgtest.Database(t)
	pool, err := pgxpool.New(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	for name, db := range map[string]*pgxlock.Database{"pool": pgxlock.Pool(pool), "no pool": pgxlock.ConnString(dsn)} {
		t.Run(name, func(t *testing.T) { pglocktest.Database(t, db) })
	}
}

// Without a pool, each transaction and each query has a connection of its own, which is
// closed at its end.
func TestTxWithoutAPool(t *testing.T) {
	t.Parallel()
	db := pgxlock.ConnString(pgtest.Database(t))
	pglocktest.Tx(t, db, db)
}
