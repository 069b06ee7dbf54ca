package prioritize_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/internal/pgserver"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
	"github.com/pglock-go/pglock/pgxlock"
	"github.com/pglock-go/pglock/prioritize"
)

func TestTwoHundredQueued(t *testing.T) {
	t.Parallel()
	server := pgtest.Own(t, pgserver.Options{Settings: map[string]string{"max_connections": "250"}})
	s := newSceneIn(t, server.ConnString(pgtest.DatabaseOn(t, server)))
	holder := s.session("holder").do("BEGIN", "LOCK t IN ACCESS EXCLUSIVE MODE")
	var queue []*actor
	for range 200 {
		a := s.session("queued")
		a.Background("SELECT count(*) FROM t")
		queue = append(queue, a)
	}
	s.until("the queue", "SELECT count(*) = 200 FROM pg_locks WHERE NOT granted AND relation = 't'::regclass")
	me, log := s.session("me"), s.log()
	s.must(me.run(alter, prioritize.After(3*time.Second), prioritize.Terminate(), log.option()))
	holder.wantAlive(false)
	log.want(prioritize.Terminated, holder.pid, 1)
	// A session that keeps the lock for long after acquiring it is a blocker like the
	// first holder. Waiting ahead in the queue is no reason to end it, however long
	// it takes.
	slow := map[int32]bool{}
	for _, e := range log.of(prioritize.Terminated) {
		if p := e.Blocked[0]; !p.Hard {
			t.Errorf("pid %d was terminated for waiting ahead", p.Blocking.PID)
		} else {
			slow[p.Blocking.PID] = true
		}
	}
	for _, a := range queue {
		if err := a.Join(); err != nil && !slow[a.pid] {
			t.Errorf("one in the queue: %v", err)
		}
	}
	freed := log.of(prioritize.Freed)
	t.Logf("ran on after %v", freed[len(freed)-1].Waited)
}

// The watcher loses its session and goes on with another one.
func TestWatcherIsLost(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	idle := s.session("idle").do("BEGIN", "SELECT FROM t")
	me, log := s.session("me"), s.log()
	lost := false
	log.hear = func(e prioritize.Event) {
		if e.Kind == prioritize.Blocked && !lost {
			lost = true
			s.exec("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pglock prioritize' AND datname = current_database()")
		}
	}
	s.must(me.run(alter, prioritize.After(500*time.Millisecond), prioritize.Interval(20*time.Millisecond), prioritize.Terminate(), log.option()))
	idle.wantAlive(false)
	if events := log.of(prioritize.Watcher); len(events) != 2 || events[0].Err == nil || events[1].Err != nil {
		t.Errorf("the watcher's session: %v, want it lost once, and back once", events)
	}
	s.wantNoWatcher()
}

func (s *scene) wantNoWatcher() {
	s.t.Helper()
	s.until("the end of the watcher", `SELECT NOT EXISTS (SELECT FROM pg_stat_activity
		WHERE application_name = 'pglock prioritize' AND datname = current_database())`)
}

func TestWatcherIsGoneAfterwards(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	me := s.session("me")
	boom := errors.New("boom")
	err := prioritize.RunOn(t.Context(), source(t, s.dsn), pgxlock.Conn(me.conn), func(context.Context) error {
		if !s.is("SELECT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'pglock prioritize' AND datname = current_database())") {
			t.Error("there is no watcher")
		}
		return boom
	})
	if err != boom {
		t.Errorf("got %v, want fn's own error", err)
	}
	s.wantNoWatcher()

	func() {
		defer func() {
			if recover() != "a panic of fn's" {
				t.Error("fn's panic was swallowed")
			}
		}()
		_ = prioritize.RunOn(t.Context(), source(t, s.dsn), pgxlock.Conn(me.conn), func(context.Context) error {
			panic("a panic of fn's")
		})
	}()
	s.wantNoWatcher()
}

func TestNoWatcherNoRun(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	me := s.session("me")
	ran := false
	err := prioritize.RunOn(t.Context(), source(t, "host=/nonexistent connect_timeout=1"), pgxlock.Conn(me.conn),
		func(context.Context) error { ran = true; return nil })
	if !errors.Is(err, pglock.ErrUnavailable) || ran {
		t.Errorf("ran %v, got %v", ran, err)
	}
}

// Two runs never end each other's watchers, nor does one end a session of its own.
func TestOwnSessionsAreSpared(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	a := s.session("migrate").do("BEGIN", "SELECT FROM t")
	b := s.session("migrate")
	outsider := s.session("outsider").do("BEGIN", "SELECT FROM t")
	log := s.log()
	err := prioritize.RunFor(t.Context(), source(t, s.dsn), prioritize.Who{Applications: []string{"migrate"}},
		func(ctx context.Context) error {
			_, err := b.conn.Exec(ctx, "SET lock_timeout = '1s'; "+alter)
			return err
		}, prioritize.After(soon), prioritize.Terminate(), log.option(), prioritize.Allow(inspect.Superusers))
	s.wantCode(err, "55P03")
	a.wantAlive(true)
	outsider.wantAlive(false)
	log.wantSpared(a.pid, protected(inspect.Ourselves))
	if n := len(log.of(prioritize.Watching)); n != 2 {
		t.Errorf("%d sessions are watched, want 2", n)
	}
}
