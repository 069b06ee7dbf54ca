package inspect_test

import (
	"database/sql"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
	"github.com/pglock-go/pglock/internal/sessiontest"
	"github.com/pglock-go/pglock/pgxlock"
	"github.com/pglock-go/pglock/sqllock"
)

// patience is how long a test waits for an expected state.
const patience = sessiontest.Patience

// A scene is a database with sessions that lock objects in it, and one that inspects
// them.
type scene struct {
	t   testing.TB
	dsn string
	eye *pgx.Conn
	q   driver.Querier
	me  driver.Conn // that q asks through
}

func newScene(t testing.TB) *scene { return newSceneIn(t, pgtest.Database(t)) }

func newSceneIn(t testing.TB, dsn string) *scene {
	s := &scene{t: t, dsn: dsn}
	s.eye = sessiontest.Connect(t, dsn, "eye")
	s.me = s.looking()
	s.q = s.me
	return s
}

// looking returns the inspecting session, by the driver under test.
func (s *scene) looking() driver.Conn {
	s.t.Helper()
	driverName := pgtest.Driver(s.t)
	if driverName == "pgx" {
		return pgxlock.Conn(s.eye)
	}
	pool, err := sql.Open(driverName, s.dsn+" application_name=eye")
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { pool.Close() })
	conn, err := pool.Conn(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { conn.Close() })
	return sqllock.Conn(conn)
}

// pid returns the PID of the backend of q.
func (s *scene) pid() (pid int32) {
	s.t.Helper()
	rows, err := s.q.Query(s.t.Context(), "SELECT pg_backend_pid()")
	if err != nil {
		s.t.Fatal(err)
	}
	defer rows.Close()
	if !rows.Next() || rows.Scan(&pid) != nil {
		s.t.Fatal("no pid:", rows.Err())
	}
	return pid
}

// An actor is one session of a scene.
type actor struct {
	*sessiontest.Session
	s    *scene
	conn *pgx.Conn
	pid  int32
	name string
}

// session opens a session; name becomes its application_name.
func (s *scene) session(name string) *actor { return s.sessionIn(s.dsn, name) }

func (s *scene) sessionIn(dsn, name string) *actor {
	s.t.Helper()
	session := sessiontest.Open(s.t, dsn, name)
	return &actor{session, s, session.Conn, session.PID, name}
}

// do runs statements, one after the other.
func (a *actor) do(statements ...string) *actor {
	a.s.t.Helper()
	a.Do(statements...)
	return a
}

// await runs a statement that has to wait for a lock, and returns when it waits.
// The statement is canceled at the end of the test if it still waits then.
func (a *actor) await(sql string) *actor {
	a.s.t.Helper()
	a.Background(sql)
	a.AwaitWait(a.s.eye)
	return a
}

// join waits until the statement in the background has ended.
func (a *actor) join() *actor {
	_ = a.Join()
	return a
}

// until repeats a query until its answer is yes.
func (s *scene) until(what, sql string, args ...any) {
	s.t.Helper()
	sessiontest.Until(s.t, s.eye, what, sql, args...)
}

// locks returns the locks of the server.
func (s *scene) locks() []inspect.Lock {
	s.t.Helper()
	locks, err := inspect.Locks(s.t.Context(), s.q)
	if err != nil {
		s.t.Fatal(err)
	}
	return locks
}

// querier lets the package use a's own connection.
func (a *actor) querier() driver.Querier { return pgxlock.Conn(a.conn) }

// find returns the only lock of a that matches the description.
func (a *actor) find(what string, is func(l inspect.Lock) bool) inspect.Lock {
	a.s.t.Helper()
	var found []inspect.Lock
	all := a.s.locks()
	for _, l := range all {
		if l.PID == a.pid && is(l) {
			found = append(found, l)
		}
	}
	if len(found) != 1 {
		for _, l := range all {
			if l.PID == a.pid {
				a.s.t.Logf("%s has %s of %s, granted %v", a.name, l.Mode, l.Target(), l.Granted)
			}
		}
		a.s.t.Fatalf("%s has %d locks that are %s, want 1", a.name, len(found), what)
	}
	return found[0]
}
