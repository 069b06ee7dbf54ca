package prioritize_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
	"github.com/pglock-go/pglock/internal/sessiontest"
	"github.com/pglock-go/pglock/pgxlock"
	"github.com/pglock-go/pglock/prioritize"
	"github.com/pglock-go/pglock/sqllock"
)

// patience is how long a test waits for an expected event.
const patience = sessiontest.Patience

// source returns a source of the driver under test.
func source(t testing.TB, dsn string) driver.Source {
	t.Helper()
	if driverName := pgtest.Driver(t); driverName != "pgx" {
		return sqllock.ConnString(driverName, dsn)
	}
	return pgxlock.ConnString(dsn)
}

// A scene is a database with a table t, a session to be prioritized, others that
// block it, and one that observes.
type scene struct {
	t        testing.TB
	dsn      string
	observer *pgx.Conn
}

func newScene(t testing.TB) *scene { return newSceneIn(t, pgtest.Database(t)) }

func newSceneIn(t testing.TB, dsn string) *scene {
	s := &scene{t: t, dsn: dsn}
	s.observer = sessiontest.Connect(t, dsn, "observer")
	s.exec("CREATE TABLE t (id int PRIMARY KEY, v int)", "INSERT INTO t SELECT i, 0 FROM generate_series(1, 10) AS i")
	return s
}

func (s *scene) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *scene) exec(statements ...string) {
	s.t.Helper()
	for _, sql := range statements {
		_, err := s.observer.Exec(s.t.Context(), sql)
		if err != nil {
			s.t.Fatalf("%s: %v", sql, err)
		}
	}
}

// is returns the server's answer to a condition.
func (s *scene) is(sql string, args ...any) bool {
	s.t.Helper()
	return sessiontest.Is(s.t, s.observer, sql, args...)
}

// until repeats a query until its answer is yes.
func (s *scene) until(what, sql string, args ...any) {
	s.t.Helper()
	sessiontest.Until(s.t, s.observer, what, sql, args...)
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
func (s *scene) session(name string) *actor { return s.sessionOn(s.dsn, name) }

func (s *scene) sessionOn(dsn, name string) *actor {
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

// start runs a statement in the background, which ends at the latest with the test,
// and returns when it runs.
func (a *actor) start(sql string) *actor {
	a.s.t.Helper()
	a.Background(sql)
	a.s.until(a.name+" at work", "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1 AND state = 'active')", a.pid)
	return a
}

// await runs a statement that has to wait for a lock, and returns when it waits.
// The statement is canceled at the end of the test if it still waits then.
func (a *actor) await(sql string) *actor {
	a.s.t.Helper()
	a.Background(sql)
	a.AwaitWait(a.s.observer)
	return a
}

// alive reports whether the session is still there.
func (a *actor) alive() bool {
	a.s.t.Helper()
	return a.Alive(a.s.observer)
}

func (a *actor) wantAlive(want bool) {
	a.s.t.Helper()
	if !want { // it lets go of its locks before it is gone
		a.s.until("the end of "+a.name, "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1)", a.pid)
		return
	}
	if want != a.alive() {
		a.s.t.Errorf("%s is alive: %v, want %v", a.name, !want, want)
	}
}

// wantCode checks the SQLSTATE of an error.
func (s *scene) wantCode(err error, code string) {
	s.t.Helper()
	var pg interface{ SQLState() string } // of pgx or lib/pq
	if !errors.As(err, &pg) || pg.SQLState() != code {
		s.t.Errorf("got error %v, want SQLSTATE %s", err, code)
	}
}

// A log records events.
type log struct {
	t      testing.TB
	mu     sync.Mutex
	events []prioritize.Event
	hear   func(prioritize.Event)
}

func (s *scene) log() *log { return &log{t: s.t} }

func (l *log) option() interface {
	prioritize.RunForOption
	prioritize.RetryOption
} {
	return prioritize.OnEvent(func(e prioritize.Event) {
		if e.String() == string(e.Kind) {
			l.t.Errorf("the event %q has no words", e.Kind)
		}
		l.t.Logf("%s: %v", e.Time.Format("05.000"), e)
		l.mu.Lock()
		l.events = append(l.events, e)
		l.mu.Unlock()
		if l.hear != nil {
			l.hear(e)
		}
	})
}

// of returns the events of a kind.
func (l *log) of(kind prioritize.EventKind) []prioritize.Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	var events []prioritize.Event
	for _, e := range l.events {
		if e.Kind == kind {
			events = append(events, e)
		}
	}
	return events
}

// about returns the events of a kind that are about a blocker.
func (l *log) about(kind prioritize.EventKind, pid int32) []prioritize.Event {
	return slices.DeleteFunc(l.of(kind), func(e prioritize.Event) bool {
		return len(e.Blocked) != 1 || e.Blocked[0].Blocking.PID != pid
	})
}

func (l *log) want(kind prioritize.EventKind, pid int32, n int) {
	l.t.Helper()
	if got := len(l.about(kind, pid)); got != n {
		l.t.Errorf("%d events %q about %d, want %d", got, kind, pid, n)
	}
}

// A spareReason is why a blocker was spared.
type spareReason struct {
	reason inspect.Reason
	class  inspect.Class
}

func because(reason inspect.Reason) spareReason { return spareReason{reason, ""} }

func protected(class inspect.Class) spareReason { return spareReason{inspect.Protected, class} }

func reasonOf(e prioritize.Event) spareReason { return spareReason{e.Reason, e.Class} }

// wantSpared checks that a blocker was spared, and why.
func (l *log) wantSpared(pid int32, why spareReason) prioritize.Event {
	l.t.Helper()
	for _, e := range l.about(prioritize.Spared, pid) {
		if reasonOf(e) == why {
			return e
		}
	}
	l.t.Errorf("%d was not spared for %v", pid, why)
	return prioritize.Event{}
}

// spared returns how often it was reported that a blocker was spared for why.
func (l *log) spared(pid int32, why spareReason) (n int) {
	for _, e := range l.about(prioritize.Spared, pid) {
		if reasonOf(e) == why {
			n++
		}
	}
	return n
}

// until waits for an event.
func (l *log) until(is func(prioritize.Event) bool) {
	l.t.Helper()
	deadline := time.Now().Add(patience)
	for time.Now().Before(deadline) {
		l.mu.Lock()
		found := slices.ContainsFunc(l.events, is)
		l.mu.Unlock()
		if found {
			return
		}
		time.Sleep(2 * time.Millisecond)
	}
	l.t.Error("an event did not come")
}

func (l *log) untilKind(kind prioritize.EventKind) {
	l.t.Helper()
	l.until(func(e prioritize.Event) bool { return e.Kind == kind })
}

func (l *log) untilSpared(why spareReason) {
	l.t.Helper()
	l.until(func(e prioritize.Event) bool { return e.Kind == prioritize.Spared && reasonOf(e) == why })
}

// run runs a statement with priority. All sessions of a test are a superuser's,
// unless it says otherwise.
func (a *actor) run(sql string, opts ...prioritize.RunOption) error {
	opts = append(opts, prioritize.Allow(inspect.Superusers))
	return a.runWith(source(a.s.t, a.s.dsn), sql, opts...)
}

func (a *actor) runWith(source driver.Source, sql string, opts ...prioritize.RunOption) error {
	ctx, cancel := context.WithTimeout(a.s.t.Context(), patience)
	defer cancel()
	return prioritize.RunOn(ctx, source, pgxlock.Conn(a.conn), func(ctx context.Context) error {
		_, err := a.conn.Exec(ctx, sql)
		return err
	}, opts...)
}

// blocking returns the PIDs of the blockers in an error.
func blocking(err error) []int32 {
	var e *prioritize.Error
	if !errors.As(err, &e) {
		return nil
	}
	var pids []int32
	for _, p := range e.Blocked {
		pids = append(pids, p.Blocking.PID)
	}
	return pids
}

func hasWord(t testing.TB, text string, words ...string) {
	t.Helper()
	for _, word := range words {
		if !strings.Contains(text, word) {
			t.Errorf("%q is not in %q", word, text)
		}
	}
}
