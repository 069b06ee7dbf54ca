package prioritize_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/internal/signal"
	"github.com/pglock-go/pglock/pgxlock"
	"github.com/pglock-go/pglock/prioritize"
)

// plain runs a statement with priority and only the given options.
func (a *actor) plain(sql string, opts ...prioritize.RunOption) error {
	a.s.t.Helper()
	return a.runWith(source(a.s.t, a.s.dsn), sql, opts...)
}

// Everything runs as one superuser, as with docker-compose: its sessions are ours.
func TestCatalogSuperuserOfOurOwnRole(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	idle := s.session("idle").do("BEGIN", "SELECT FROM t")
	me, log := s.session("me"), s.log()
	s.must(me.plain(alter, prioritize.After(soon), prioritize.Terminate(), prioritize.LockTimeout(patience), log.option()))
	idle.wantAlive(false)
	log.want(prioritize.Terminated, idle.pid, 1)
}

// Another superuser's session is spared, and the error names it and the reason.
func TestCatalogSuperuserOfAnotherRole(t *testing.T) {
	t.Parallel()
	s := roles(t, nil)
	boss := s.sessionOn(s.as("boss"), "boss").do("BEGIN", "SELECT FROM t")
	ours := s.session("ours").do("BEGIN", "SELECT FROM t")
	app := s.sessionOn(s.as("app"), "app").do("BEGIN", "SELECT FROM t")
	me, log := s.session("me"), s.log()
	err := me.plain(alter, prioritize.After(soon), prioritize.Terminate(), prioritize.LockTimeout(3*time.Second), log.option())
	s.wantCode(err, "55P03")
	boss.wantAlive(true)
	ours.wantAlive(false)
	app.wantAlive(false)
	log.wantSpared(boss.pid, protected(inspect.Superusers))
	var failure *prioritize.Error
	if !errors.As(err, &failure) || len(failure.Spared) != 1 || failure.Spared[0].Blocked[0].Blocking.PID != boss.pid ||
		failure.Spared[0].Reason != inspect.Protected || failure.Spared[0].Class != inspect.Superusers {
		t.Errorf("the error is %+v", failure)
	}
	hasWord(t, err.Error(), fmt.Sprintf("pid %d was spared: its role is a superuser", boss.pid))

	// Being a member of every role, as a superuser is, or of a superuser's role, does
	// not make the role the same.
	s.exec("GRANT boss TO signaller")
	log = s.log()
	err = s.sessionOn(s.as("app"), "me").runWith(source(t, s.as("signaller")), alter, prioritize.After(soon), prioritize.Terminate(),
		prioritize.LockTimeout(time.Second), log.option())
	s.wantCode(err, "55P03")
	log.wantSpared(boss.pid, protected(inspect.Superusers))

	// A watcher that has switched to that role, by its own settings, is that role.
	log = s.log()
	s.must(me.runWith(source(t, s.dsn+" options='-c role=boss'"), alter, prioritize.After(soon), prioritize.Terminate(),
		prioritize.LockTimeout(patience), log.option()))
	boss.wantAlive(false)
}

// A name is no proof: a session with the name of a watcher is ended like any other,
// and is watched if it is chosen.
func TestCatalogNameIsNoProof(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	idle := s.session("pglock prioritize").do("BEGIN", "SELECT FROM t")
	me := s.session("me")
	s.must(me.plain(alter, prioritize.After(soon), prioritize.Terminate(), prioritize.LockTimeout(patience)))
	idle.wantAlive(false)

	named := s.session("pglock prioritize")
	other := s.session("other").do("BEGIN", "SELECT FROM t")
	log := s.log()
	s.must(prioritize.RunFor(t.Context(), source(t, s.dsn), prioritize.Who{PIDs: []int32{named.pid}}, func(ctx context.Context) error {
		_, err := named.conn.Exec(ctx, "SET lock_timeout = '30s'; ALTER TABLE t ADD COLUMN w2 int")
		return err
	}, prioritize.After(soon), prioritize.Terminate(), log.option()))
	other.wantAlive(false)
	if watching := log.of(prioritize.Watching); len(watching) != 1 || watching[0].PID != named.pid {
		t.Errorf("watching %v", watching)
	}
}

// Runs spare each other's commands and report it: the blocked one waits until the
// other has ended.
func TestCatalogRunsSpareEachOther(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	first, second := s.session("first"), s.session("second")
	log := s.log()
	spared := make(chan struct{})
	var once sync.Once
	log.hear = func(e prioritize.Event) {
		if reasonOf(e) == protected(inspect.OtherRuns) {
			once.Do(func() { close(spared) })
		}
	}
	opts := []prioritize.RunOption{prioritize.After(soon), prioritize.Terminate(), prioritize.LockTimeout(patience), prioritize.Allow(inspect.Superusers)}
	s.must(prioritize.RunOn(t.Context(), source(t, s.dsn), pgxlock.Conn(first.conn), func(ctx context.Context) error {
		first.do("BEGIN", "SELECT FROM t")
		done := make(chan error, 1)
		go func() { done <- second.plain(alter, append(opts, log.option())...) }()
		select {
		case <-spared:
		case err := <-done:
			t.Errorf("the second run has ended: %v", err)
			done <- err
		}
		first.do("COMMIT")
		return <-done
	}, opts...))
	first.wantAlive(true)
	second.wantAlive(true)
	e := log.wantSpared(first.pid, protected(inspect.OtherRuns))
	hasWord(t, e.String(), "another run of pglock prioritize")
	// No mark is left.
	s.until("the end of the marks", "SELECT NOT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))")
}

// Two runs that lock in opposite order deadlock. Postgres cancels one statement, and
// no session is ended.
func TestTwoRunsInADeadlock(t *testing.T) {
	t.Parallel()
	for range 3 {
		s := newScene(t)
		s.exec("CREATE TABLE u (i int)")
		a, b := s.session("a"), s.session("b")
		run := func(me, other *actor, mine, theirs string) error {
			return prioritize.RunOn(t.Context(), source(t, s.dsn), pgxlock.Conn(me.conn), func(ctx context.Context) error {
				if _, err := me.conn.Exec(ctx, "BEGIN; LOCK "+mine); err != nil {
					return err
				}
				defer me.conn.Exec(ctx, "ROLLBACK")
				for held := false; !held; {
					// QueryText on the other session, since the scene's is in use.
					if err := me.conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_locks WHERE pid = $1 AND mode = 'AccessExclusiveLock' AND granted)", other.pid).Scan(&held); err != nil {
						return err
					}
				}
				_, err := me.conn.Exec(ctx, "LOCK "+theirs)
				return err
			}, prioritize.After(soon), prioritize.Terminate(), prioritize.LockTimeout(patience), prioritize.Allow(inspect.Superusers))
		}
		done := make(chan error)
		go func() { done <- run(b, a, "u", "t") }()
		errs := []error{run(a, b, "t", "u"), <-done}
		failed := slices.DeleteFunc(errs, func(err error) bool { return err == nil })
		if len(failed) != 1 {
			t.Fatalf("got %v, want one deadlock", errs)
		}
		s.wantCode(failed[0], "40P01")
		a.wantAlive(true)
		b.wantAlive(true)
	}
}

// A program is the command of a run, with two sessions: one holds a lock, and the
// other wants the lock of the next program. Postgres sees no deadlock.
type program struct {
	name          string
	holds, wants  *actor
	log           *log
	holding, done chan struct{}
	err           error
}

// If runs wait for each other in a cycle that Postgres cannot see, the oldest run
// acts, and the others spare.
func TestRingsOfRuns(t *testing.T) {
	t.Parallel()
	for _, n := range []int{2, 3} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			programs := make([]*program, n)
			for i := range programs {
				s.exec(fmt.Sprintf("CREATE TABLE cycle%d (i int)", i))
				name := fmt.Sprintf("cycle %d of %d", i, n)
				programs[i] = &program{
					name: name, holds: s.session(name), wants: s.session(name), log: s.log(),
					holding: make(chan struct{}), done: make(chan struct{}),
				}
			}
			for i, p := range programs {
				p.holds.do("BEGIN", fmt.Sprintf("LOCK cycle%d", i))
				go func() {
					defer close(p.done)
					p.err = prioritize.RunFor(t.Context(), source(t, s.dsn), prioritize.Who{Applications: []string{p.name}}, func(ctx context.Context) error {
						close(p.holding)
						for j := range programs { // all of them watch
							<-programs[j].holding
						}
						_, err := p.wants.conn.Exec(ctx, fmt.Sprintf("SET lock_timeout = '60s'; LOCK cycle%d", (i+1)%n))
						if err == nil {
							_, err = p.holds.conn.Exec(ctx, "COMMIT")
						}
						return err
					}, prioritize.After(soon), prioritize.Terminate(), p.log.option())
				}()
				// They are ordered by the second in which they begin.
				<-p.holding
				var second int64
				s.must(s.observer.QueryRow(t.Context(), "SELECT floor(extract(epoch FROM clock_timestamp()))::bigint").Scan(&second))
				s.until("the next second", "SELECT floor(extract(epoch FROM clock_timestamp()))::bigint > $1", second)
			}
			ended := 0
			for i, p := range programs {
				<-p.done
				if !p.holds.alive() {
					ended++
					if i != 1 {
						t.Errorf("the session of run %d was ended, want that of run 1, which blocks the oldest", i)
					}
				}
				if n := len(p.log.of(prioritize.Terminated)); (n == 1) != (i == 0) {
					t.Errorf("run %d ended %d sessions", i, n)
				}
				if i > 0 {
					log := p.log
					log.wantSpared(programs[(i+1)%len(programs)].holds.pid, protected(inspect.OtherRuns))
				}
				if (p.err != nil) != (i == 1) {
					t.Errorf("run %d: %v", i, p.err)
				}
			}
			if ended != 1 {
				t.Errorf("%d were ended, want 1", ended)
			}
		})
	}
}

// A mark counts only if the role that made it could signal the session that reads it:
// any role may take an advisory lock.
func TestWhoseMarksCount(t *testing.T) {
	t.Parallel()
	s := roles(t, nil)
	s.exec("CREATE ROLE peer LOGIN IN ROLE pg_signal_backend")
	mark := func(role string, pid int32) *actor {
		a := s.sessionOn(s.as(role), "marks")
		return a.do(fmt.Sprintf("SELECT pg_advisory_lock_shared(%d, 1), pg_advisory_lock_shared(%d, %d)", signal.RunClass, signal.SessionClass, pid))
	}
	for _, test := range []struct {
		by, watcher string
		counts      bool
	}{
		{"app", "signaller", false},
		{"other", "signaller", false},
		{"signaller", "signaller", true},
		{"peer", "signaller", true},
		{"boss", "signaller", true},
	} {
		victim := s.sessionOn(s.as("other"), "victim").do("BEGIN", "SELECT FROM t")
		marks := mark(test.by, victim.pid)
		me, log := s.sessionOn(s.as("app"), "me"), s.log()
		err := me.runWith(source(t, s.as(test.watcher)), "ALTER TABLE t ADD COLUMN IF NOT EXISTS w int", prioritize.After(soon), prioritize.Terminate(),
			prioritize.LockTimeout(4*time.Second), log.option())
		victim.wantAlive(test.counts)
		if test.counts {
			s.wantCode(err, "55P03")
			log.wantSpared(victim.pid, protected(inspect.OtherRuns))
			victim.do("COMMIT")
		} else if err != nil {
			t.Errorf("marks of %s, read by %s: %v", test.by, test.watcher, err)
		}
		marks.conn.Close(t.Context())
	}
}

// A wait shorter than the interval is seen, and its error names the blocker.
func TestLockTimeoutShorterThanTheInterval(t *testing.T) {
	t.Parallel()
	for _, opts := range [][]prioritize.RunOption{
		{prioritize.LockTimeout(3 * time.Second), prioritize.Interval(time.Minute)},
		{prioritize.LockTimeout(3 * time.Second), prioritize.Interval(time.Minute), prioritize.After(time.Minute), prioritize.Terminate()},
	} {
		s := newScene(t)
		idle := s.session("idle").do("BEGIN", "SELECT FROM t")
		me := s.session("me")
		err := prioritize.RunOn(t.Context(), source(t, s.dsn), pgxlock.Conn(me.conn), func(ctx context.Context) error {
			// The wait begins after the first poll.
			s.until("the first poll", "SELECT count(*) > 0 FROM pg_stat_activity WHERE application_name = 'pglock prioritize' AND datname = current_database() AND state = 'idle' AND clock_timestamp() - state_change > '20ms'")
			_, err := me.conn.Exec(ctx, alter)
			return err
		}, opts...)
		s.wantCode(err, "55P03")
		var failure *prioritize.Error
		if !errors.As(err, &failure) {
			t.Errorf("got %v, want an *Error", err)
		}
		if got := blocking(err); !slices.Equal(got, []int32{idle.pid}) {
			t.Errorf("the error names %v, want %d: %v", got, idle.pid, err)
		}
	}
}

// The error of Call's function is in the error of Run, unless a later call succeeded.
func TestErrorOfCall(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	idle := s.session("idle").do("BEGIN", "SELECT FROM t")
	me := s.session("me")
	noPager := errors.New("the pager is out of order")
	err := me.run(alter, prioritize.After(soon), prioritize.LockTimeout(time.Second),
		prioritize.Call(func(context.Context, inspect.Pair) error { return noPager }))
	s.wantCode(err, "55P03")
	if !errors.Is(err, noPager) || !strings.Contains(err.Error(), noPager.Error()) {
		t.Errorf("got %v, want Call's error in it", err)
	}

	// Also if fn failed for another reason, such as the caller ending it.
	boom := errors.New("boom")
	called := make(chan struct{})
	var once sync.Once
	err = prioritize.RunOn(t.Context(), source(t, s.dsn), pgxlock.Conn(me.conn), func(ctx context.Context) error {
		ctx, cancel := context.WithCancel(ctx)
		go func() { <-called; cancel() }()
		me.conn.Exec(ctx, alter)
		return boom
	}, prioritize.After(soon), prioritize.Allow(inspect.Superusers), prioritize.Call(func(context.Context, inspect.Pair) error {
		defer once.Do(func() { close(called) })
		return noPager
	}))
	if !errors.Is(err, noPager) || !errors.Is(err, boom) {
		t.Errorf("got %v, want both errors", err)
	}
	idle.wantAlive(true)
}

// A slowSource opens sessions whose answers are delayed by what slow returns.
type slowSource struct {
	driver.Source
	slow func() time.Duration
}

type slowSession struct {
	driver.Session
	slow func() time.Duration
}

func (s slowSource) Open(ctx context.Context) (driver.Session, error) {
	session, err := s.Source.Open(ctx)
	if err != nil {
		return nil, err
	}
	return slowSession{session, s.slow}, nil
}

func (s slowSession) QueryText(ctx context.Context, sql string, args ...string) (string, error) {
	text, err := s.Session.QueryText(ctx, sql, args...)
	time.Sleep(s.slow())
	return text, err
}

// Unseen is reported only after a poll, not because the watcher was waiting for an
// answer.
func TestUnseen(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	log := s.log()
	s.must(prioritize.RunFor(t.Context(), source(t, s.dsn), prioritize.Who{Applications: []string{"never"}}, func(context.Context) error {
		log.untilKind(prioritize.Unseen)
		return nil
	}, log.option()))
	if e := log.of(prioritize.Unseen); len(e) != 1 || e[0].Waited < 3*time.Second {
		t.Errorf("unseen: %v", e)
	}

	// The answer to the first poll takes 4 s. The session exists all the time, except
	// at the moment of that poll.
	log = s.log()
	var first sync.Once
	slow := func() (d time.Duration) {
		first.Do(func() { d = 4 * time.Second })
		return d
	}
	armed := make(chan struct{})
	s.must(prioritize.RunFor(t.Context(), slowSource{source(t, s.dsn), func() time.Duration {
		select {
		case <-armed:
			return slow()
		default:
			return 0
		}
	}}, prioritize.Who{Applications: []string{"late"}}, func(context.Context) error {
		close(armed)
		s.session("late")
		log.untilKind(prioritize.Watching)
		return nil
	}, log.option()))
	if e := log.of(prioritize.Unseen); len(e) != 0 {
		t.Errorf("unseen: %v", e)
	}
}
