package prioritize_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/prioritize"
)

func TestMax(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	a := s.session("a").do("BEGIN", "SELECT FROM t")
	b := s.session("b").do("BEGIN", "SELECT FROM t")
	me, log := s.session("me"), s.log()
	err := me.run(alter, prioritize.After(soon), prioritize.Terminate(), prioritize.Max(1), prioritize.LockTimeout(time.Second), log.option())
	s.wantCode(err, "55P03")
	if n := len(log.of(prioritize.Terminated)); n != 1 {
		t.Errorf("%d were terminated, want 1", n)
	}
	if a.alive() == b.alive() {
		t.Error("both or none are alive, want one")
	}
	log.untilSpared(because(inspect.MaxReached))
}

// A session that blocks at Once's moment is ended when its own grace is over.
func TestOnce(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	first := s.session("first").do("BEGIN", "SELECT FROM t")
	next := s.session("next").do("BEGIN").await("ALTER TABLE t ADD COLUMN x int")
	me, log := s.session("me"), s.log()
	s.must(me.run(alter, prioritize.After(soon), prioritize.Terminate(), prioritize.Once(), log.option()))
	first.wantAlive(false)
	next.wantAlive(false)
}

// It is acted on once, and not again.
func TestOnceIsNotAgain(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	stubborn := s.session("stubborn").do("BEGIN", "SELECT FROM t", "SAVEPOINT a").start("SELECT pg_sleep(1000)")
	me, log := s.session("me"), s.log()
	log.hear = func(e prioritize.Event) {
		if e.Kind == prioritize.Canceled {
			s.wantCode(stubborn.Join(), "57014")
			stubborn.do("ROLLBACK TO a").start("SELECT pg_sleep(1000)")
		}
	}
	s.wantCode(me.run(alter, prioritize.After(soon), prioritize.Cancel(), prioritize.Once(), prioritize.Every(soon),
		prioritize.LockTimeout(3*time.Second), log.option()), "55P03")
	log.want(prioritize.Canceled, stubborn.pid, 1)
}

// Without Once it is acted on again.
func TestEvery(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	stubborn := s.session("stubborn").do("BEGIN", "SELECT FROM t", "SAVEPOINT a").start("SELECT pg_sleep(1000)")
	me, log := s.session("me"), s.log()
	log.hear = func(e prioritize.Event) {
		if e.Kind == prioritize.Canceled {
			s.wantCode(stubborn.Join(), "57014")
			if len(log.of(prioritize.Canceled)) == 2 {
				stubborn.do("ROLLBACK")
				return
			}
			stubborn.do("ROLLBACK TO a").start("SELECT pg_sleep(1000)")
		}
	}
	s.must(me.run(alter, prioritize.After(soon), prioritize.Cancel(), prioritize.Every(soon), log.option()))
	log.want(prioritize.Canceled, stubborn.pid, 2)
}

// A session that comes after Once's moment is spared.
func TestOnceIsNotForLateComers(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	first := s.session("first").do("BEGIN", "UPDATE t SET v = 1 WHERE id = 1")
	second := s.session("second").do("BEGIN", "UPDATE t SET v = 1 WHERE id = 2")
	me, log := s.session("me"), s.log()
	err := me.run("UPDATE t SET v = 3", prioritize.After(soon), prioritize.Terminate(), prioritize.Once(), prioritize.Every(soon),
		prioritize.LockTimeout(3*time.Second), log.option())
	s.wantCode(err, "55P03")
	first.wantAlive(false)
	second.wantAlive(true)
	log.wantSpared(second.pid, because(inspect.TooLate))
}

func TestOnly(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	report := s.session("report").do("BEGIN", "SELECT FROM t")
	shop := s.session("shop").do("BEGIN", "SELECT FROM t")
	me, log := s.session("me"), s.log()
	log.hear = func(e prioritize.Event) {
		if e.Reason == inspect.Excluded {
			shop.do("COMMIT")
		}
	}
	s.must(me.run(alter, prioritize.After(soon), prioritize.Terminate(), log.option(),
		prioritize.Only(inspect.Where("blocking_application", "=", "report"))))
	report.wantAlive(false)
	shop.wantAlive(true)
	log.wantSpared(shop.pid, because(inspect.Excluded))
}

// A filter on a duration matches later.
func TestOnlyAfterATime(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	idle := s.session("idle").do("BEGIN", "SELECT FROM t")
	me, log := s.session("me"), s.log()
	s.must(me.run(alter, prioritize.After(0), prioritize.Every(20*time.Millisecond), prioritize.Terminate(), log.option(),
		prioritize.Only(inspect.Where("blocking_duration", ">", "4s"))))
	idle.wantAlive(false)
	log.wantSpared(idle.pid, because(inspect.Excluded))
}

func TestCall(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	idle := s.session("idle").do("BEGIN", "SELECT FROM t")
	me, log := s.session("me"), s.log()
	calls := 0
	s.must(me.run(alter, prioritize.After(soon), prioritize.Every(soon), log.option(),
		prioritize.Call(func(ctx context.Context, p inspect.Pair) error {
			if p.Blocking.PID != idle.pid || p.PID != me.pid {
				t.Errorf("called about %d blocked by %d", p.PID, p.Blocking.PID)
			}
			if calls++; calls == 1 {
				return errors.New("not yet")
			}
			idle.do("COMMIT")
			return nil
		})))
	called := log.of(prioritize.Called)
	if len(called) != 2 || called[0].Err == nil || called[1].Err != nil {
		t.Errorf("called: %v", called)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	t.Parallel()
	fn := func(context.Context) error { t.Error("fn was run"); return nil }
	for _, test := range []struct {
		want string
		opts []prioritize.RunOption
	}{
		{"After(-1s)", []prioritize.RunOption{prioritize.After(-time.Second)}},
		{"Cancel()", []prioritize.RunOption{prioritize.Cancel(), prioritize.Terminate()}},
		{"Max(0)", []prioritize.RunOption{prioritize.Max(0)}},
		{"CancelThenTerminate(0s)", []prioritize.RunOption{prioritize.CancelThenTerminate(0)}},
		{"Interval(0s)", []prioritize.RunOption{prioritize.Interval(0)}},
		{"Every(0s)", []prioritize.RunOption{prioritize.Every(0)}},
		{"LockTimeout(1µs)", []prioritize.RunOption{prioritize.LockTimeout(time.Microsecond)}},
		{"Allow([everybody])", []prioritize.RunOption{prioritize.Allow("everybody")}},
		{"nosuchfield", []prioritize.RunOption{prioritize.Only(inspect.Where("nosuchfield", "=", "1"))}},
		{"an option is nil", []prioritize.RunOption{nil}},
		{"nil", []prioritize.RunOption{prioritize.OnEvent(nil)}},
		{"nil", []prioritize.RunOption{prioritize.Call(nil)}},
	} {
		err := prioritize.RunOn(t.Context(), nil, nil, fn, test.opts...)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("got %v, want an error with %q", err, test.want)
		}
	}
	for _, test := range []struct {
		want string
		opt  prioritize.RetryOption
	}{
		{"an option is nil", nil},
		{"Budget(0s)", prioritize.Budget(0)},
		{"Tries(0)", prioritize.Tries(0)},
		{"Backoff(1s, 1ms)", prioritize.Backoff(time.Second, time.Millisecond)},
	} {
		if err := prioritize.RetryOn(t.Context(), nil, nil, fn, test.opt); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("got %v, want an error with %q", err, test.want)
		}
	}
}
