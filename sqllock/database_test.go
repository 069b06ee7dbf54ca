package sqllock_test

import (
	"database/sql"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/lib/pq"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
	"github.com/pglock-go/pglock/pglocktest"
	"github.com/pglock-go/pglock/sqllock"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// drivers lists the drivers' registered names.
var drivers = []string{"pgx", "postgres"}

func openDB(t *testing.T, driverName, dsn string) *sql.DB {
	t.Helper()
	db, err := sql.Open(driverName, dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func TestConnString(t *testing.T) {
	for _, driverName := range drivers {
		t.Run(driverName, func(t *testing.T) {
			pglocktest.Source(t, sqllock.ConnString(driverName, pgtest.Database(t)))
		})
	}
}

func TestDB(t *testing.T) {
	for _, driverName := range drivers {
		t.Run(driverName, func(t *testing.T) {
			pglocktest.Source(t, sqllock.DB(openDB(t, driverName, pgtest.Database(t))))
		})
	}
}

// With OpenDBFromPool, a connection closed by database/sql returns to pgx's pool.
func TestDBFromPool(t *testing.T) {
	config, err := pgxpool.ParseConfig(pgtest.Database(t))
	if err != nil {
		t.Fatal(err)
	}
	config.MaxConns = 10 // pglocktest opens several at a time
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	db := stdlib.OpenDBFromPool(pool)
	t.Cleanup(func() { db.Close() })
	pglocktest.Source(t, sqllock.DB(db))
}

func TestConnector(t *testing.T) {
	connector, err := pq.NewConnector(pgtest.Database(t))
	if err != nil {
		t.Fatal(err)
	}
	pglocktest.Source(t, sqllock.Connector(connector))
}

// Without a pool, each query has a connection of its own until its rows are closed.
func TestQueryWithoutAPool(t *testing.T) {
	dsn := pgtest.Database(t)
	key := pglock.Name("query")
	outside := pglocktest.Key(t, sqllock.ConnString("pgx", dsn), key)
	for _, text := range []string{`SELECT pg_advisory_lock(%d)`, `SELECT 1 / 0 FROM (SELECT pg_advisory_lock(%d)) AS l`} {
		rows, err := sqllock.ConnString("pgx", dsn).Query(t.Context(), fmt.Sprintf(text, key.ID()))
		if err == nil {
			for rows.Next() {
				outside.AwaitHeld()
			}
			rows.Close()
		}
		outside.AwaitFree()
	}
}
