package sqllock_test

import (
	"context"
	"database/sql"
	sqldriver "database/sql/driver"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/lib/pq"

	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
	"github.com/pglock-go/pglock/sqllock"
)

func open(t *testing.T, source driver.Source) driver.Session {
	t.Helper()
	session, err := source.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { session.Close() })
	return session
}

func ask(t *testing.T, session driver.Session, query string, args ...string) string {
	t.Helper()
	answer, err := session.QueryText(t.Context(), query, args...)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return answer
}

// A pooler is detected by the PID, which both drivers keep in hidden fields.
func TestPID(t *testing.T) {
	dsn := pgtest.Database(t)
	for _, driverName := range drivers {
		session := open(t, sqllock.ConnString(driverName, dsn))
		if got, want := ask(t, session, `SELECT pg_backend_pid()::text`), strconv.Itoa(int(session.PID())); got != want {
			t.Errorf("%s: the backend is %s, PID is %s", driverName, got, want)
		}
	}
}

// traced is a connector that wraps its connections, as tracing drivers do.
type traced struct{ sqldriver.Connector }

func (c traced) Connect(ctx context.Context) (sqldriver.Conn, error) {
	conn, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	return tracedConn{conn}, nil
}

type tracedConn struct{ sqldriver.Conn }

func (c tracedConn) Raw() sqldriver.Conn { return c.Conn }

func TestWrappedDriver(t *testing.T) {
	connector, err := pq.NewConnector(pgtest.Database(t))
	if err != nil {
		t.Fatal(err)
	}
	session := open(t, sqllock.Connector(traced{connector}))
	if got, want := ask(t, session, `SELECT pg_backend_pid()::text`), strconv.Itoa(int(session.PID())); got != want {
		t.Errorf("the backend is %s, PID is %s", got, want)
	}
}

// A repeated statement is prepared with lib/pq; pgx prepares by itself.
func TestAskPrepares(t *testing.T) {
	dsn := pgtest.Database(t)
	for _, driverName := range drivers {
		session := open(t, sqllock.ConnString(driverName, dsn))
		for range 3 {
			ask(t, session, `SELECT $1::text || 'prepared'`, "")
		}
		const query = `SELECT count(*)::text FROM pg_prepared_statements WHERE statement LIKE '%''prepared''%' AND statement NOT LIKE '%pg_prepared%'`
		if got := ask(t, session, query); got != "1" {
			t.Errorf("%s: %s statements are prepared, want 1", driverName, got)
		}
	}
}

func TestDBClosesItsConnections(t *testing.T) {
	for _, driverName := range drivers {
		t.Run(driverName, func(t *testing.T) {
			db := openDB(t, driverName, pgtest.Database(t))
			db.SetMaxOpenConns(1)
			session := open(t, sqllock.DB(db))
			pid := ask(t, session, `SELECT pg_backend_pid()::text`)
			ask(t, session, `SELECT pg_advisory_lock(1)::text`)
			if open := db.Stats().OpenConnections; open != 1 {
				t.Errorf("the session is not one of the pool's connections: it has %d", open)
			}
			session.Close()
			if open := db.Stats().OpenConnections; open != 0 {
				t.Errorf("the pool still has %d connections", open)
			}
			var next string
			if err := db.QueryRow(`SELECT pg_backend_pid()::text`).Scan(&next); err != nil {
				t.Fatal(err)
			}
			if next == pid {
				t.Error("the session's connection was returned to the pool")
			}
		})
	}
}

// Postgres would grant us a lock that the application left on a pooled connection, if our
// session used that connection.
func TestDBAvoidsLeftLocks(t *testing.T) {
	for _, driverName := range drivers {
		t.Run(driverName, func(t *testing.T) {
			db := openDB(t, driverName, pgtest.Database(t))
			var left string
			if err := db.QueryRow(`SELECT pg_backend_pid()::text || pg_advisory_lock(1)::text`).Scan(&left); err != nil {
				t.Fatal(err)
			}
			session := open(t, sqllock.DB(db))
			if pid := ask(t, session, `SELECT pg_backend_pid()::text`); pid == left {
				t.Error("the session is the connection with the application's lock")
			}
			if got := ask(t, session, `SELECT pg_try_advisory_lock(1)::text`); got != "false" {
				t.Error("the application's lock was granted to us, too")
			}
			session.Close()

			// It was returned to the pool unchanged.
			var held bool
			if err := db.QueryRow(`SELECT pg_advisory_unlock(1)`).Scan(&held); err != nil || !held {
				t.Errorf("the application lost its lock: %v, %v", held, err)
			}
		})
	}
}

func TestDBRefusesAPoolFullOfLocks(t *testing.T) {
	db := openDB(t, "pgx", pgtest.Database(t))
	db.SetMaxIdleConns(10)
	var conns []*sql.Conn
	for i := range 6 {
		conn, err := db.Conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.ExecContext(t.Context(), `SELECT pg_advisory_lock($1)`, i); err != nil {
			t.Fatal(err)
		}
		conns = append(conns, conn)
	}
	for _, conn := range conns {
		conn.Close()
	}
	session, err := sqllock.DB(db).Open(t.Context())
	if err == nil {
		session.Close()
		t.Fatal("a session was opened")
	}
	if !strings.Contains(err.Error(), "hold advisory locks") {
		t.Errorf("got %v", err)
	}
}

func TestDBQuery(t *testing.T) {
	source := sqllock.DB(openDB(t, "pgx", pgtest.Database(t)))
	rows, err := source.Query(t.Context(), `SELECT $1::int + 1`, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var two int
	if !rows.Next() || rows.Scan(&two) != nil || two != 2 {
		t.Errorf("got %d, %v", two, rows.Err())
	}
}

func TestConnStringIsWrong(t *testing.T) {
	for _, source := range []*sqllock.Database{
		sqllock.ConnString("no such driver", ""),
		sqllock.ConnString("pgx", "host=/nowhere connect_timeout=1"),
		sqllock.ConnString("postgres", "postgres://%"),
	} {
		if session, err := source.Open(t.Context()); err == nil {
			session.Close()
			t.Error("a session was opened")
		}
	}
}

// A session serves one goroutine at a time: a second one gets an error, not the reply to
// the first.
func TestSessionInUse(t *testing.T) {
	session := open(t, sqllock.ConnString("pgx", pgtest.Database(t)))
	rows, err := session.Query(t.Context(), `SELECT generate_series(1, 3)`)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := session.QueryText(t.Context(), `SELECT 'a'`); err == nil {
		t.Error("QueryText succeeds while rows are being read")
	}
	rows.Close()
	ask(t, session, `SELECT 'a'`)
}

// The context of QueryText ends after the statement: that must have no effect.
func TestContextEndsAfterAsk(t *testing.T) {
	dsn := pgtest.Database(t)
	for _, driverName := range drivers {
		session := open(t, sqllock.ConnString(driverName, dsn))
		for range 200 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			if _, err := session.QueryText(ctx, `SELECT 'a'`); err != nil {
				t.Fatalf("%s: %v", driverName, err)
			}
			cancel()
		}
	}
}
