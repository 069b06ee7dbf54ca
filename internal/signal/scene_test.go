package signal_test

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
	"github.com/pglock-go/pglock/internal/sessiontest"
	"github.com/pglock-go/pglock/pgxlock"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// A scene is a database with sessions that block each other, and one that looks on.
type scene struct {
	t   testing.TB
	dsn string
	eye *pgx.Conn
}

func newScene(t testing.TB) *scene {
	s := &scene{t: t, dsn: pgtest.Database(t)}
	s.eye = sessiontest.Connect(t, s.dsn, "eye")
	return s
}

// asker opens the session that sends signals.
func (s *scene) asker() driver.Session {
	s.t.Helper()
	session, err := pgxlock.ConnString(s.dsn).Open(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { session.Close() })
	return session
}

// until repeats a query until its answer is yes.
func (s *scene) until(what, sql string, args ...any) {
	s.t.Helper()
	sessiontest.Until(s.t, s.eye, what, sql, args...)
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
func (s *scene) session(name string) *actor {
	s.t.Helper()
	session := sessiontest.Open(s.t, s.dsn, name)
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

// start returns when the session began.
func (a *actor) start() (start time.Time) {
	a.s.t.Helper()
	if err := a.s.eye.QueryRow(a.s.t.Context(), "SELECT backend_start FROM pg_stat_activity WHERE pid = $1", a.pid).Scan(&start); err != nil {
		a.s.t.Fatal(err)
	}
	return start
}

func (a *actor) wantThere(want bool) {
	a.s.t.Helper()
	if there := a.Alive(a.s.eye); there != want {
		a.s.t.Errorf("%s is there: %v, want %v", a.name, there, want)
	}
}
