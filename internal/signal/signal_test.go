package signal_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/internal/signal"
	"github.com/pglock-go/pglock/pgxlock"
)

// requestOf returns a request for the blocker of the only pair.
func (s *scene) requestOf(action signal.Action) signal.Request {
	s.t.Helper()
	pairs, err := inspect.Blocked(s.t.Context(), pgxlock.Conn(s.eye))
	if err != nil || len(pairs) != 1 {
		s.t.Fatalf("%d pairs, %v", len(pairs), err)
	}
	p := pairs[0]
	b := signal.Request{
		Waiter: p.PID, WaiterStart: p.BackendStart, Blocker: p.Blocking.PID, BlockerStart: p.Blocking.BackendStart,
		Action: action, Allow: superusers(),
	}
	if !p.WaitApprox {
		b.WaitStart = p.WaitStart
	}
	return b
}

func wantResult(t *testing.T, q driver.Session, b signal.Request, want signal.Result) {
	t.Helper()
	got, err := b.Send(t.Context(), q)
	if err != nil || got != want {
		t.Errorf("the result is %+v, %v, want %+v", got, err, want)
	}
}

// superusers allows what the tests need: the role of every session is a superuser.
func superusers() []inspect.Class { return []inspect.Class{inspect.Superusers} }

// Each condition separately: if it is wrong the session is not signaled, if it is
// right the session is.
func TestGuard(t *testing.T) {
	s := newScene(t)
	s.session("owner").do("CREATE TABLE t (i int)", "CREATE TABLE u (i int)")
	q := s.asker()
	blocker := s.session("blocker").do("BEGIN", "SELECT FROM t")
	bystander := s.session("bystander").do("BEGIN", "SELECT FROM u")
	waiter := s.session("waiter").await("ALTER TABLE t ADD COLUMN w int")
	good := s.requestOf(signal.Terminate)

	b := good
	b.Blocker = bystander.pid // right number, but it blocks nobody
	b.BlockerStart = bystander.start()
	wantResult(t, q, b, signal.Result{Reason: inspect.NotBlocking})

	b = good // the number of one that is there, which began at another time
	b.BlockerStart = b.BlockerStart.Add(time.Microsecond)
	wantResult(t, q, b, signal.Result{Reason: inspect.Gone})
	b.BlockerStart = time.Time{}
	wantResult(t, q, b, signal.Result{Reason: inspect.Gone})

	b = good
	b.WaiterStart = b.WaiterStart.Add(time.Microsecond)
	wantResult(t, q, b, signal.Result{Reason: inspect.NotBlocking})

	if !good.WaitStart.IsZero() {
		b = good
		b.WaitStart = b.WaitStart.Add(-time.Microsecond)
		wantResult(t, q, b, signal.Result{Reason: inspect.NotBlocking})
	}

	b = good
	b.Action, b.Allow = signal.Check, nil // our own role is a superuser, and no stranger
	wantResult(t, q, b, signal.Result{})

	b = good
	b.Action = signal.Cancel
	wantResult(t, q, b, signal.Result{Reason: inspect.Idle})

	b = good
	b.Action = signal.Check
	wantResult(t, q, b, signal.Result{})

	b = good
	b.Action = "boil"
	if got, err := b.Send(t.Context(), q); err == nil || !strings.Contains(err.Error(), "unknown action") || got != (signal.Result{Reason: inspect.Failed}) {
		t.Errorf("an unknown action: %+v, %v", got, err)
	}

	blocker.wantThere(true)
	bystander.wantThere(true)
	wantResult(t, q, good, signal.Result{Signaled: true})
	waiter.join()
	s.until("the end of the blocker", "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1)", blocker.pid)
	wantResult(t, q, good, signal.Result{Reason: inspect.Gone})
}

// A session that is only ahead in the queue is not taken for a holder, even if it
// holds another lock on the same table.
func TestQueue(t *testing.T) {
	s := newScene(t)
	s.session("owner").do("CREATE TABLE t (i int)")
	q := s.asker()
	holder := s.session("holder").do("BEGIN", "SELECT FROM t")
	queued := s.session("queued").do("BEGIN", "LOCK t IN ROW SHARE MODE").await("LOCK t IN ACCESS EXCLUSIVE MODE")
	reader := s.session("reader").await("SELECT FROM t") // behind queued, whose ROW SHARE is no trouble
	ddl := s.session("ddl").await("ALTER TABLE t ADD COLUMN w int")

	of := func(waiter, blocker *actor, queue bool) signal.Request {
		return signal.Request{
			Waiter: waiter.pid, Blocker: blocker.pid, BlockerStart: blocker.start(), Allow: superusers(), Queue: queue,
		}
	}
	wantResult(t, q, of(reader, queued, false), signal.Result{Reason: inspect.Queued})
	wantResult(t, q, of(reader, queued, true), signal.Result{})
	wantResult(t, q, of(reader, holder, true), signal.Result{Reason: inspect.NotBlocking}) // it blocks queued, and not the reader
	wantResult(t, q, of(ddl, holder, false), signal.Result{})
	wantResult(t, q, of(ddl, queued, false), signal.Result{}) // its ROW SHARE conflicts with this one
	wantResult(t, q, of(ddl, reader, false), signal.Result{Reason: inspect.Queued})
	holder.do("COMMIT")
	queued.join()
	queued.do("COMMIT")
}

// A blocker that has released its lock since it was seen is not signaled, whatever it
// does now.
func TestAfterTheBlockerLetGo(t *testing.T) {
	s := newScene(t)
	s.session("owner").do("CREATE TABLE t (i int)")
	q := s.asker()
	blocker := s.session("blocker").do("BEGIN", "SELECT FROM t")
	waiter := s.session("waiter").await("ALTER TABLE t ADD COLUMN w int")
	good := s.requestOf(signal.Terminate)

	blocker.do("COMMIT")
	waiter.join()
	wantResult(t, q, good, signal.Result{Reason: inspect.NotBlocking})

	// It blocks again, but another wait.
	blocker.do("BEGIN", "SELECT FROM t")
	again := s.session("again").await("ALTER TABLE t ADD COLUMN x int")
	wantResult(t, q, good, signal.Result{Reason: inspect.NotBlocking})
	waiter.await("ALTER TABLE t ADD COLUMN y int")
	if !good.WaitStart.IsZero() {
		wantResult(t, q, good, signal.Result{Reason: inspect.NotBlocking})
	}
	blocker.wantThere(true)
	blocker.do("COMMIT")
	again.join()
	waiter.join()
}

// Many sessions acquire and release a lock while they are signaled all the time: only
// the one that holds it at that moment is hit.
func TestRace(t *testing.T) {
	s := newScene(t)
	s.session("owner").do("CREATE TABLE t (i int)")
	q := s.asker()
	blocker := s.session("blocker")
	waiter := s.session("waiter").do("SET lock_timeout = '5ms'")
	ctx, cancel := context.WithCancel(t.Context())
	var waiting sync.WaitGroup
	waiting.Go(func() {
		for ctx.Err() == nil {
			waiter.conn.PgConn().Exec(context.WithoutCancel(ctx), "BEGIN; LOCK t; ROLLBACK").ReadAll()
			waiter.conn.PgConn().Exec(context.WithoutCancel(ctx), "ROLLBACK").ReadAll()
		}
	})
	b := signal.Request{
		Waiter: waiter.pid, Blocker: blocker.pid, BlockerStart: blocker.start(), Action: signal.Cancel, Allow: superusers(),
	}
	hits := 0
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			if result, err := b.Send(context.WithoutCancel(ctx), q); err != nil {
				t.Error(err)
				return
			} else if result.Signaled {
				hits++
			}
		}
	}()
	for range 100 {
		// It blocks and runs a statement: it may be canceled.
		blocker.conn.PgConn().Exec(t.Context(), "BEGIN; LOCK t IN SHARE MODE; SELECT pg_sleep(0.01)").ReadAll()
		blocker.conn.PgConn().Exec(t.Context(), "ROLLBACK").ReadAll()
		// It no longer blocks and runs a statement: it must not be canceled. (A
		// signal that was already sent has arrived: the previous statement takes it.)
		blocker.conn.PgConn().Exec(t.Context(), "SELECT 1").ReadAll()
		if _, err := blocker.conn.PgConn().Exec(t.Context(), "SELECT pg_sleep(0.002)").ReadAll(); err != nil {
			t.Errorf("it no longer blocked: %v", err)
			break
		}
	}
	cancel()
	<-done
	waiting.Wait()
	if hits == 0 {
		t.Error("it was never hit at all")
	}
	t.Logf("hit %d times", hits)
}
