package prioritize_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/prioritize"
)

// A retried program stands for another process: it connects by itself, and reports failure
// without a reason.
type retried struct {
	s           *scene
	lockTimeout time.Duration
	statements  []string
	runs        int
}

var errExit = errors.New("exit status 1")

func (p *retried) run(ctx context.Context) error {
	p.runs++
	config, err := pgx.ParseConfig(p.s.dsn)
	if err != nil {
		return err
	}
	config.RuntimeParams["application_name"] = p.s.program()
	config.RuntimeParams["lock_timeout"] = fmt.Sprint(p.lockTimeout.Milliseconds())
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	for _, sql := range p.statements {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return errExit
		}
	}
	return nil
}

// program returns the application_name of the scene's program. Other tests have the same
// server.
func (s *scene) program() string { return fmt.Sprint("program ", s.observer.PgConn().PID()) }

// retryFor runs a program, whose lock_timeout is a second.
func (s *scene) retryFor(t *testing.T, p *retried, opts ...prioritize.RetryForOption) error {
	p.s = s
	if p.lockTimeout == 0 {
		p.lockTimeout = time.Second
	}
	opts = append([]prioritize.RetryForOption{
		prioritize.LockTimeout(time.Second),
		prioritize.Backoff(10*time.Millisecond, 50*time.Millisecond),
	}, opts...)
	return prioritize.RetryFor(t.Context(), source(t, s.dsn), prioritize.Who{Applications: []string{s.program()}}, p.run, opts...)
}

func TestCatalogRetryForAProgram(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	idle, log := s.session("idle").do("BEGIN", "SELECT FROM t"), s.log()
	log.hear = func(e prioritize.Event) {
		if e.Kind == prioritize.Tried && e.Try == 2 {
			idle.do("COMMIT")
		}
	}
	p := &retried{statements: []string{alter}}
	s.must(s.retryFor(t, p, log.option()))
	tries := log.of(prioritize.Tried)
	if len(tries) != 3 || p.runs != 3 {
		t.Fatalf("%d tries, %d runs, want 3", len(tries), p.runs)
	}
	for i, e := range tries {
		last := i == len(tries)-1
		if e.Try != i+1 || (e.Err == nil) != last || (e.Pause > 0) == last {
			t.Errorf("try %d: %+v", i+1, e)
		}
	}
	if b := tries[0].Blocked; tries[0].Err != errExit || len(b) != 1 || b[0].Blocking.PID != idle.pid {
		t.Errorf("the first try failed with %v, blocked by %v", tries[0].Err, b)
	}
	if n := len(log.of(prioritize.Overdue)); n != 0 {
		t.Errorf("%d blockers were reported as past their grace", n)
	}
	s.wantNoWatcher()
}

func TestRetryForGivesUp(t *testing.T) {
	t.Parallel()
	for name, opt := range map[string]prioritize.RetryForOption{
		"after tries": prioritize.Tries(2), "after a time": prioritize.Budget(1200 * time.Millisecond),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			idle := s.session("idle").do("BEGIN", "SELECT FROM t")
			p := &retried{statements: []string{alter}}
			err := s.retryFor(t, p, opt)
			var e *prioritize.Error
			if !errors.As(err, &e) || !errors.Is(err, errExit) || e.Tries != p.runs || e.Tries < 2 {
				t.Fatalf("got %#v after %d runs", err, p.runs)
			}
			if got := blocking(err); !slices.Equal(got, []int32{idle.pid}) {
				t.Errorf("the error names %v", got)
			}
			hasWord(t, err.Error(), "gave up after", "public.t", `"idle"`)
			idle.wantAlive(true)
		})
	}
}

// A policy applies to the last try only.
func TestRetryForClearsTheWayAtLast(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		opt  prioritize.RetryForOption
		runs int
	}{
		"tries":       {prioritize.Tries(3), 3},
		"only try":    {prioritize.Tries(1), 1},
		"budget":      {prioritize.Budget(1500 * time.Millisecond), 0},
		"used budget": {prioritize.Budget(time.Millisecond), 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			idle, log := s.session("idle").do("BEGIN", "SELECT FROM t"), s.log()
			p := &retried{statements: []string{alter}, lockTimeout: 2 * time.Second}
			s.must(s.retryFor(t, p, test.opt, prioritize.LockTimeout(2*time.Second), prioritize.After(100*time.Millisecond),
				prioritize.Terminate(), prioritize.Allow(inspect.Superusers), log.option()))
			idle.wantAlive(false)
			if tries := log.of(prioritize.Tried); test.runs > 0 && len(tries) != test.runs || len(tries) < 1 {
				t.Errorf("%d tries, want %d", len(tries), test.runs)
			}
			log.want(prioritize.Terminated, idle.pid, 1)
			if n := len(log.about(prioritize.Spared, idle.pid)); n != 0 {
				t.Errorf("spared %d times", n)
			}
		})
	}
}

// The last try fails if the blocker may not be ended.
func TestRetryForSparesAtLast(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	idle, log := s.session("idle").do("BEGIN", "SELECT FROM t"), s.log()
	p := &retried{statements: []string{alter}, lockTimeout: 2 * time.Second}
	err := s.retryFor(t, p, prioritize.Tries(2), prioritize.LockTimeout(2*time.Second), prioritize.After(100*time.Millisecond),
		prioritize.Cancel(), prioritize.Allow(inspect.Superusers), log.option())
	var e *prioritize.Error
	if !errors.As(err, &e) || e.Tries != 2 {
		t.Errorf("got %v", err)
	}
	if n := log.spared(idle.pid, because(inspect.Idle)); n != 1 {
		t.Errorf("spared %d times, want in the last try", n)
	}
	idle.wantAlive(true)
}

// A program that failed for another reason is not run again.
func TestRetryForOtherFailures(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	p := &retried{statements: []string{"SELECT 1/0"}}
	if err := s.retryFor(t, p, prioritize.Tries(2)); err != errExit || p.runs != 1 {
		t.Errorf("without a wait: got %v after %d runs", err, p.runs)
	}

	// It waited, but acquired the lock long before lock_timeout.
	idle, log := s.session("idle").do("BEGIN", "SELECT FROM t"), s.log()
	log.hear = func(e prioritize.Event) {
		if e.Kind == prioritize.Blocked {
			idle.do("COMMIT")
		}
	}
	p = &retried{statements: []string{alter, "SELECT 1/0"}, lockTimeout: time.Minute}
	if err := s.retryFor(t, p, prioritize.Tries(2), prioritize.LockTimeout(time.Minute), log.option()); err != errExit || p.runs != 1 {
		t.Errorf("after a short wait: got %v after %d runs", err, p.runs)
	}
	if len(log.of(prioritize.Blocked)) == 0 {
		t.Error("no wait was seen")
	}
}

// A program that knows that a lock was the reason is run again.
func TestRetryForKnownReason(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	runs := 0
	s.must(prioritize.RetryFor(t.Context(), source(t, s.dsn), prioritize.Who{Applications: []string{s.program()}}, func(context.Context) error {
		if runs++; runs < 3 {
			return fmt.Errorf("exit status 75: %w", pglock.ErrNotAcquired)
		}
		return nil
	}, prioritize.Backoff(time.Millisecond, time.Millisecond)))
	if runs != 3 {
		t.Errorf("%d runs, want 3", runs)
	}
}

func TestRetryForInvalid(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	who := prioritize.Who{Applications: []string{s.program()}}
	run := func(context.Context) error { t.Error("it ran"); return nil }
	for name, err := range map[string]error{
		"nobody": prioritize.RetryFor(t.Context(), source(t, s.dsn), prioritize.Who{}, run),
		"policy too late": prioritize.RetryFor(t.Context(), source(t, s.dsn), who, run,
			prioritize.Terminate(), prioritize.After(2*time.Second), prioritize.LockTimeout(2*time.Second)),
		"no server": prioritize.RetryFor(t.Context(), source(t, "host=/nonexistent"), who, run),
	} {
		if err == nil {
			t.Errorf("%s: no error", name)
		} else if (name == "no server") != errors.Is(err, pglock.ErrUnavailable) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
