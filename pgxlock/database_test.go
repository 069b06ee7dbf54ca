package pgxlock_test

import (
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
	"github.com/pglock-go/pglock/pglocktest"
	"github.com/pglock-go/pglock/pgxlock"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func TestConnString(t *testing.T) {
	pglocktest.Source(t, pgxlock.ConnString(pgtest.Database(t)))
}

func TestConfig(t *testing.T) {
	config, err := pgx.ParseConfig(pgtest.Database(t))
	if err != nil {
		t.Fatal(err)
	}
	pglocktest.Source(t, pgxlock.Config(config))
}

func TestPool(t *testing.T) {
	config, err := pgxpool.ParseConfig(pgtest.Database(t))
	if err != nil {
		t.Fatal(err)
	}
	config.MaxConns = 1 // a session must not use it
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	pglocktest.Source(t, pgxlock.Pool(pool))
	if n := pool.Stat().AcquireCount(); n != 0 {
		t.Errorf("the sessions took %d connections from the pool", n)
	}
}

// Without a pool, each query has a connection of its own until its rows are closed.
func TestQueryWithoutAPool(t *testing.T) {
	dsn := pgtest.Database(t)
	key := pglock.Name("query")
	outside := pglocktest.Key(t, pgxlock.ConnString(dsn), key)
	for _, text := range []string{`SELECT pg_advisory_lock(%d)`, `SELECT 1 / 0 FROM (SELECT pg_advisory_lock(%d)) AS l`} {
		rows, err := pgxlock.ConnString(dsn).Query(t.Context(), fmt.Sprintf(text, key.ID()))
		if err == nil {
			for rows.Next() {
				outside.AwaitHeld()
			}
			rows.Close()
		}
		outside.AwaitFree()
	}
}
