package sqllock_test

import (
	"testing"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
	"github.com/pglock-go/pglock/pglocktest"
	"github.com/pglock-go/pglock/sqllock"
)

func TestConn(t *testing.T) {
	for _, driver := range drivers {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			dsn := pgtest.Database(t)
			db := openDB(t, driver, dsn)
			pglocktest.Conn(t, sqllock.ConnString(driver, dsn), func(t testing.TB) pglock.Conn {
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
	for _, driver := range drivers {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			db := openDB(t, driver, pgtest.Database(t))
			pglocktest.Tx(t, sqllock.DB(db), sqllock.Begin(db, nil))
		})
	}
}

func TestSessionAsConn(t *testing.T) {
	for _, driver := range drivers {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			source := sqllock.ConnString(driver, pgtest.Database(t))
			pglocktest.Conn(t, source, func(t testing.TB) pglock.Conn {
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
