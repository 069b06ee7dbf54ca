package sqllock_test

import (
	"testing"

	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
	"github.com/pglock-go/pglock/pglocktest"
	"github.com/pglock-go/pglock/sqllock"
)

func TestConn(t *testing.T) {
	for _, driverName := range drivers {
		t.Run(driverName, func(t *testing.T) {
			t.Parallel()
			dsn := pgtest.Database(t)
			db := openDB(t, driverName, dsn)
			pglocktest.Conn(t, sqllock.ConnString(driverName, dsn), func(t testing.TB) driver.Conn {
				conn, err := db.Conn(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { conn.Close() })
				return sqllock.Conn(conn)
			})
		})
	}
}

// A test may have only the application's own pool.
func TestTx(t *testing.T) {
	for _, driverName := range drivers {
		t.Run(driverName, func(t *testing.T) {
			t.Parallel()
			db := openDB(t, driverName, pgtest.Database(t))
			pglocktest.Tx(t, sqllock.DB(db), sqllock.DB(db))
		})
	}
}

func TestSessionAsConn(t *testing.T) {
	for _, driverName := range drivers {
		t.Run(driverName, func(t *testing.T) {
			t.Parallel()
			source := sqllock.ConnString(driverName, pgtest.Database(t))
			pglocktest.Conn(t, source, func(t testing.TB) driver.Conn {
				session, err := source.Open(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { session.Close() })
				return session
			})
		})
	}
}

func TestDatabase(t *testing.T) {
	for _, driverName := range drivers {
		t.Run(driverName, func(t *testing.T) {
			t.Parallel()
			dsn := pgtest.Database(t)
			for name, db := range map[string]*sqllock.Database{
				"pool":    sqllock.DB(openDB(t, driverName, dsn)),
				"no pool": sqllock.ConnString(driverName, dsn),
			} {
				t.Run(name, func(t *testing.T) { pglocktest.Database(t, db) })
			}
		})
	}
}

// Without a pool, each transaction has a connection of its own, which is closed at its end.
func TestTxWithoutAPool(t *testing.T) {
	for _, driverName := range drivers {
		t.Run(driverName, func(t *testing.T) {
			t.Parallel()
			db := sqllock.ConnString(driverName, pgtest.Database(t))
			pglocktest.Tx(t, db, db)
		})
	}
}
