package signal_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
	"github.com/pglock-go/pglock/pgxlock"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// patience is how long a test waits for an expected state.
const patience = 20 * time.Second

// A scene is a database with sessions that block each other, and one that looks on.
type scene struct {
	t   testing.TB
	dsn string
	eye *pgx.Conn
}

func newScene(t testing.TB) *scene {
	s := &scene{t: t, dsn: pgtest.Database(t)}
	s.eye = s.connect("eye")
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

// connect opens a connection that is closed at the end of the test.
func (s *scene) connect(name string) *pgx.Conn {
	s.t.Helper()
	config, err := pgx.ParseConfig(s.dsn)
	if err != nil {
		s.t.Fatal(err)
	}
	config.RuntimeParams["application_name"] = name
	conn, err := pgx.ConnectConfig(s.t.Context(), config)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		conn.Close(ctx)
	})
	return conn
}

// until repeats a query until its answer is yes.
func (s *scene) until(what, sql string, args ...any) {
	s.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		var yes bool
		if err := s.eye.QueryRow(s.t.Context(), sql, args...).Scan(&yes); err != nil {
			s.t.Fatalf("%s: %v", what, err)
		}
		if yes {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("%s did not come about", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// An actor is one session of a scene.
type actor struct {
	s    *scene
	conn *pgx.Conn
	pid  int32
	name string
	busy sync.WaitGroup
}

// session opens a session; name becomes its application_name.
func (s *scene) session(name string) *actor {
	s.t.Helper()
	a := &actor{s: s, conn: s.connect(name), name: name}
	a.pid = int32(a.conn.PgConn().PID())
	return a
}

// do runs statements, one after the other.
func (a *actor) do(statements ...string) *actor {
	a.s.t.Helper()
	ctx, cancel := context.WithTimeout(a.s.t.Context(), patience)
	defer cancel()
	for _, sql := range statements {
		if _, err := a.conn.PgConn().Exec(ctx, sql).ReadAll(); err != nil {
			a.s.t.Fatalf("%s: %s: %v", a.name, sql, err)
		}
	}
	return a
}

// await runs a statement that has to wait for a lock, and returns when it waits.
// The statement is canceled at the end of the test if it still waits then.
func (a *actor) await(sql string) *actor {
	a.s.t.Helper()
	a.background(sql)
	a.s.until("a wait of "+a.name, "SELECT EXISTS (SELECT FROM pg_locks WHERE pid = $1 AND NOT granted)", a.pid)
	return a
}

// background runs a statement in the background until the end of the test.
func (a *actor) background(sql string) {
	ctx, cancel := context.WithCancel(a.s.t.Context())
	a.busy.Add(1)
	go func() {
		defer a.busy.Done()
		a.conn.PgConn().Exec(ctx, sql).ReadAll()
	}()
	a.s.t.Cleanup(func() {
		cancel()
		a.busy.Wait()
	})
}

// join waits until the statement in the background has ended.
func (a *actor) join() *actor {
	a.busy.Wait()
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
	var there bool
	err := a.s.eye.QueryRow(a.s.t.Context(), "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1)", a.pid).Scan(&there)
	if err != nil || there != want {
		a.s.t.Errorf("%s is there: %v, %v, want %v", a.name, there, err, want)
	}
}
