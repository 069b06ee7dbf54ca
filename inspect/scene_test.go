package inspect_test

import (
	"context"
	"database/sql"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
	"github.com/pglock-go/pglock/pgxlock"
	"github.com/pglock-go/pglock/sqllock"
)

// patience is how long a test waits for an expected state.
const patience = 20 * time.Second

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
	s.eye = s.connect(dsn, "eye")
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

// connect opens a connection that is closed at the end of the test.
func (s *scene) connect(dsn, name string) *pgx.Conn {
	s.t.Helper()
	config, err := pgx.ParseConfig(dsn)
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
	return s.sessionIn(s.dsn, name)
}

func (s *scene) sessionIn(dsn, name string) *actor {
	s.t.Helper()
	a := &actor{s: s, conn: s.connect(dsn, name), name: name}
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
