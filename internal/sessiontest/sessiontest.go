// Package sessiontest has helpers for tests whose sessions block each other: it opens them,
// runs statements that wait in the background, and polls Postgres for states.
package sessiontest

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// Patience is how long a test waits for an expected state.
const Patience = 30 * time.Second

// Connect opens a connection that is closed at the end of the test. name becomes its
// application_name, if it is not "".
func Connect(t testing.TB, dsn, name string) *pgx.Conn {
	t.Helper()
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	if name != "" {
		config.RuntimeParams["application_name"] = name
	}
	conn, err := pgx.ConnectConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), Patience)
		defer cancel()
		conn.Close(ctx)
	})
	return conn
}

// Is returns the result of a query for a boolean.
func Is(t testing.TB, conn *pgx.Conn, sql string, args ...any) (yes bool) {
	t.Helper()
	if err := conn.QueryRow(t.Context(), sql, args...).Scan(&yes); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return yes
}

// Until repeats a query until its result is true. what is for the message if it stays
// false.
func Until(t testing.TB, conn *pgx.Conn, what, sql string, args ...any) {
	t.Helper()
	for deadline := time.Now().Add(Patience); !Is(t, conn, sql, args...); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s did not come about", what)
		}
	}
}

// A Session is a session of a test.
type Session struct {
	Conn *pgx.Conn
	PID  int32
	Name string // its application_name

	t    testing.TB
	busy sync.WaitGroup
	err  error // of the statement in the background
}

// Open opens a session that is closed at the end of the test.
func Open(t testing.TB, dsn, name string) *Session {
	t.Helper()
	conn := Connect(t, dsn, name)
	return &Session{Conn: conn, PID: int32(conn.PgConn().PID()), Name: name, t: t}
}

// Do runs statements, one after the other.
func (s *Session) Do(statements ...string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), Patience)
	defer cancel()
	for _, sql := range statements {
		if _, err := s.Conn.PgConn().Exec(ctx, sql).ReadAll(); err != nil {
			s.t.Fatalf("%s: %s: %v", s.Name, sql, err)
		}
	}
}

// Background runs a statement in the background. It is canceled at the end of the test if
// it still runs then.
func (s *Session) Background(sql string) {
	ctx, cancel := context.WithCancel(s.t.Context())
	s.busy.Go(func() { _, s.err = s.Conn.PgConn().Exec(ctx, sql).ReadAll() })
	s.t.Cleanup(func() {
		cancel()
		s.busy.Wait()
	})
}

// Join waits until the statement in the background has ended, and returns its error.
func (s *Session) Join() error {
	s.busy.Wait()
	return s.err
}

// AwaitWait waits until the session waits for a lock, as conn sees it.
func (s *Session) AwaitWait(conn *pgx.Conn) {
	s.t.Helper()
	Until(s.t, conn, "a wait of "+s.Name, "SELECT EXISTS (SELECT FROM pg_locks WHERE pid = $1 AND NOT granted)", s.PID)
}

// Alive reports whether the session exists, as conn sees it.
func (s *Session) Alive(conn *pgx.Conn) bool {
	s.t.Helper()
	return Is(s.t, conn, "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1)", s.PID)
}
