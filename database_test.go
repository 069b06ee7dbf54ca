package pglock_test

import (
	"context"
	"database/sql"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	_ "github.com/jackc/pgx/v5/stdlib"
	_ "github.com/lib/pq"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
	"github.com/pglock-go/pglock/pgxlock"
	"github.com/pglock-go/pglock/sqllock"
)

// db is a test's own database, observed through a session that does not belong to the
// Lockers under test.
type db struct {
	t      *testing.T
	dsn    string
	source func() driver.Source // of the Lockers under test
	conn   *pgx.Conn
	mu     sync.Mutex // conn serves one goroutine at a time
}

func newDB(t *testing.T) *db {
	t.Helper()
	return databaseAt(t, pgtest.Database(t))
}

// databaseAt returns the database of dsn.
func databaseAt(t *testing.T, dsn string) *db {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return &db{t: t, dsn: dsn, source: func() driver.Source { return source(t, dsn) }, conn: conn}
}

// source returns a Source of the driver selected for the tests.
func source(t testing.TB, dsn string) driver.Source {
	t.Helper()
	if driverName := pgtest.Driver(t); driverName != "pgx" {
		return sqllock.ConnString(driverName, dsn)
	}
	return pgxlock.ConnString(dsn)
}

// everySource runs a test with each kind of Source of each adapter.
func everySource(t *testing.T, test func(*testing.T, *db)) {
	t.Parallel()
	sources := map[string]func(d *db) func() driver.Source{
		"pgx": func(d *db) func() driver.Source {
			return func() driver.Source { return pgxlock.ConnString(d.dsn) }
		},
		"pgx pool": func(d *db) func() driver.Source {
			pool, err := pgxpool.New(d.t.Context(), d.dsn)
			must(d.t, err)
			d.t.Cleanup(pool.Close)
			return func() driver.Source { return pgxlock.Pool(pool) }
		},
	}
	for _, driverName := range []string{"pgx", "postgres"} {
		sources["database/sql "+driverName] = func(d *db) func() driver.Source {
			return func() driver.Source { return sqllock.ConnString(driverName, d.dsn) }
		}
		sources["database/sql pool "+driverName] = func(d *db) func() driver.Source {
			pool, err := sql.Open(driverName, d.dsn)
			must(d.t, err)
			d.t.Cleanup(func() { pool.Close() })
			return func() driver.Source { return sqllock.DB(pool) }
		}
	}
	for name, source := range sources {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDB(t)
			d.source = source(d)
			test(t, d)
		})
	}
}

// locker returns a Locker with its own sessions, as in another process.
func (d *db) locker(opts ...pglock.LockerOption) *pglock.Locker {
	d.t.Helper()
	// lib/pq cannot watch a session for its loss: it is polled often instead.
	opts = append([]pglock.LockerOption{pglock.Heartbeat(2 * time.Second)}, opts...)
	locker, err := pglock.New(d.source(), opts...)
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { locker.Close() })
	return locker
}

func (d *db) exec(sql string, args ...any) {
	d.t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, err := d.conn.Exec(context.Background(), sql, args...); err != nil {
		d.t.Fatal(err)
	}
}

func (d *db) scan(dest any, sql string, args ...any) {
	d.t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.conn.QueryRow(context.Background(), sql, args...).Scan(dest); err != nil {
		d.t.Fatal(err)
	}
}

// until polls Postgres until the result is true.
func (d *db) until(sql string, args ...any) {
	d.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for ok := false; !ok; {
		d.scan(&ok, sql, args...)
		if !ok && time.Now().After(deadline) {
			d.t.Fatalf("still false after 20 s: %s %v", sql, args)
		}
	}
}

// untilWaiting waits until n sessions wait for key in Postgres.
func (d *db) untilWaiting(n int, key pglock.Key) {
	d.t.Helper()
	classid, objid, objsubid := key.PgLocks()
	d.until(`SELECT count(*) = $1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
		AND classid = $2 AND objid = $3 AND objsubid = $4
		AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`, n, classid, objid, objsubid)
}

// held returns the number of advisory locks in the database.
func (d *db) held() (n int) {
	d.t.Helper()
	d.scan(&n, `SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted
		AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`)
	return n
}

func (d *db) terminate(pid int32) {
	d.t.Helper()
	var ok bool
	d.scan(&ok, `SELECT pg_terminate_backend($1)`, pid)
	if !ok {
		d.t.Fatalf("there is no backend %d to terminate", pid)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("got error %v, want %v", err, want)
	}
}

func lock(t *testing.T, l *pglock.Locker, key pglock.Key, opts ...pglock.LockOption) *pglock.Lock {
	t.Helper()
	lock, err := l.Lock(t.Context(), key, opts...)
	must(t, err)
	return lock
}

// wantAvailable checks in another session that key is free, or that it is not.
func (d *db) wantAvailable(key pglock.Key, want bool) {
	d.t.Helper()
	take, give := "SELECT pg_try_advisory_lock($1)", "SELECT pg_advisory_unlock($1)"
	var free bool
	if class, object, ok := key.Pair(); ok {
		take, give = "SELECT pg_try_advisory_lock($1, $2)", "SELECT pg_advisory_unlock($1, $2)"
		d.scan(&free, take, class, object)
		if free {
			d.exec(give, class, object)
		}
	} else {
		d.scan(&free, take, key.ID())
		if free {
			d.exec(give, key.ID())
		}
	}
	if free != want {
		d.t.Fatalf("another session can take %v: %v, want %v", key, free, want)
	}
}
