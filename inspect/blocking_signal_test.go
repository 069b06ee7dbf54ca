package inspect_test

import (
	"context"
	"testing"
	"time"

	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/pgxlock"
)

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

// signalOf returns a signal for the blocker of the only pair.
func (s *scene) signalOf(action inspect.SignalAction) inspect.BlockingSignal {
	s.t.Helper()
	pairs, err := inspect.Blocked(s.t.Context(), s.q)
	if err != nil || len(pairs) != 1 {
		s.t.Fatalf("%d pairs, %v", len(pairs), err)
	}
	p := pairs[0]
	b := inspect.BlockingSignal{
		Waiter: p.PID, WaiterStart: p.BackendStart, Blocker: p.Blocking.PID, BlockerStart: p.Blocking.BackendStart,
		Action: action, Superusers: true,
	}
	if !p.WaitApprox {
		b.WaitStart = p.WaitStart
	}
	return b
}

func wantOutcome(t *testing.T, q driver.Session, b inspect.BlockingSignal, want inspect.BlockingOutcome) {
	t.Helper()
	got, err := b.Send(t.Context(), q)
	if err != nil || got != want {
		t.Errorf("the outcome is %q, %v, want %q", got, err, want)
	}
}

func (a *actor) wantThere(want bool) {
	a.s.t.Helper()
	var there bool
	err := a.s.eye.QueryRow(a.s.t.Context(), "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1)", a.pid).Scan(&there)
	if err != nil || there != want {
		a.s.t.Errorf("%s is there: %v, %v, want %v", a.name, there, err, want)
	}
}

// Each condition separately: if it is wrong the session is not signaled, if it is
// right the session is.
func TestBlockingSignalGuard(t *testing.T) {
	s := newScene(t)
	s.session("owner").do("CREATE TABLE t (i int)", "CREATE TABLE u (i int)")
	q := s.asker()
	blocker := s.session("blocker").do("BEGIN", "SELECT FROM t")
	bystander := s.session("bystander").do("BEGIN", "SELECT FROM u")
	waiter := s.session("waiter").await("ALTER TABLE t ADD COLUMN w int")
	good := s.signalOf(inspect.TerminateClient)

	b := good
	b.Blocker = bystander.pid // right number, but it blocks nobody
	b.BlockerStart = bystander.start()
	wantOutcome(t, q, b, inspect.BlocksNoMore)

	b = good // the number of one that is there, which began at another time
	b.BlockerStart = b.BlockerStart.Add(time.Microsecond)
	wantOutcome(t, q, b, inspect.BlockerGone)
	b.BlockerStart = time.Time{}
	wantOutcome(t, q, b, inspect.BlockerGone)

	b = good
	b.WaiterStart = b.WaiterStart.Add(time.Microsecond)
	wantOutcome(t, q, b, inspect.BlocksNoMore)

	if !good.WaitStart.IsZero() {
		b = good
		b.WaitStart = b.WaitStart.Add(-time.Microsecond)
		wantOutcome(t, q, b, inspect.BlocksNoMore)
	}

	b = good
	b.Action, b.Superusers = inspect.OnlyAsk, false // our own role is a superuser, and no stranger
	wantOutcome(t, q, b, inspect.WouldSignal)

	b = good
	b.Action = inspect.CancelQuery
	wantOutcome(t, q, b, inspect.IsIdle)

	b = good
	b.Action = inspect.OnlyAsk
	wantOutcome(t, q, b, inspect.WouldSignal)

	b = good
	b.Action = "boil"
	wantOutcome(t, q, b, "unknown action")

	blocker.wantThere(true)
	bystander.wantThere(true)
	wantOutcome(t, q, good, inspect.SignalSent)
	waiter.join()
	s.until("the end of the blocker", "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1)", blocker.pid)
	wantOutcome(t, q, good, inspect.BlockerGone)
}

// A session that is only ahead in the queue is not taken for a holder, even if it
// holds another lock on the same table.
func TestBlockingSignalQueue(t *testing.T) {
	s := newScene(t)
	s.session("owner").do("CREATE TABLE t (i int)")
	q := s.asker()
	holder := s.session("holder").do("BEGIN", "SELECT FROM t")
	queued := s.session("queued").do("BEGIN", "LOCK t IN ROW SHARE MODE").await("LOCK t IN ACCESS EXCLUSIVE MODE")
	reader := s.session("reader").await("SELECT FROM t") // behind queued, whose ROW SHARE is no trouble
	ddl := s.session("ddl").await("ALTER TABLE t ADD COLUMN w int")

	of := func(waiter, blocker *actor, queue bool) inspect.BlockingSignal {
		return inspect.BlockingSignal{
			Waiter: waiter.pid, Blocker: blocker.pid, BlockerStart: blocker.start(), Superusers: true, Queue: queue,
		}
	}
	wantOutcome(t, q, of(reader, queued, false), inspect.OnlyQueued)
	wantOutcome(t, q, of(reader, queued, true), inspect.WouldSignal)
	wantOutcome(t, q, of(reader, holder, true), inspect.BlocksNoMore) // it blocks queued, and not the reader
	wantOutcome(t, q, of(ddl, holder, false), inspect.WouldSignal)
	wantOutcome(t, q, of(ddl, queued, false), inspect.WouldSignal) // its ROW SHARE conflicts with this one
	wantOutcome(t, q, of(ddl, reader, false), inspect.OnlyQueued)
	holder.do("COMMIT")
	queued.join()
	queued.do("COMMIT")
}

// A blocker that has released its lock since it was seen is not signaled, whatever it
// does now.
func TestBlockingSignalAfterTheBlockerLetGo(t *testing.T) {
	s := newScene(t)
	s.session("owner").do("CREATE TABLE t (i int)")
	q := s.asker()
	blocker := s.session("blocker").do("BEGIN", "SELECT FROM t")
	waiter := s.session("waiter").await("ALTER TABLE t ADD COLUMN w int")
	good := s.signalOf(inspect.TerminateClient)

	blocker.do("COMMIT")
	waiter.join()
	wantOutcome(t, q, good, inspect.BlocksNoMore)

	// It blocks again, but another wait.
	blocker.do("BEGIN", "SELECT FROM t")
	again := s.session("again").await("ALTER TABLE t ADD COLUMN x int")
	wantOutcome(t, q, good, inspect.BlocksNoMore)
	waiter.await("ALTER TABLE t ADD COLUMN y int")
	if !good.WaitStart.IsZero() {
		wantOutcome(t, q, good, inspect.BlocksNoMore)
	}
	blocker.wantThere(true)
	blocker.do("COMMIT")
	again.join()
	waiter.join()
}

// Many sessions acquire and release a lock while they are signaled all the time: only
// the one that holds it at that moment is hit.
func TestBlockingSignalRace(t *testing.T) {
	s := newScene(t)
	s.session("owner").do("CREATE TABLE t (i int)")
	q := s.asker()
	blocker := s.session("blocker")
	waiter := s.session("waiter").do("SET lock_timeout = '5ms'")
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		for ctx.Err() == nil {
			waiter.conn.PgConn().Exec(context.WithoutCancel(ctx), "BEGIN; LOCK t; ROLLBACK").ReadAll()
			waiter.conn.PgConn().Exec(context.WithoutCancel(ctx), "ROLLBACK").ReadAll()
		}
		waiter.busy.Done()
	}()
	waiter.busy.Add(1)
	b := inspect.BlockingSignal{
		Waiter: waiter.pid, Blocker: blocker.pid, BlockerStart: blocker.start(), Action: inspect.CancelQuery, Superusers: true,
	}
	hits := 0
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			if outcome, err := b.Send(context.WithoutCancel(ctx), q); err != nil {
				t.Error(err)
				return
			} else if outcome == inspect.SignalSent {
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
	waiter.join()
	if hits == 0 {
		t.Error("it was never hit at all")
	}
	t.Logf("hit %d times", hits)
}

// start returns when the session began.
func (a *actor) start() (start time.Time) {
	a.s.t.Helper()
	if err := a.s.eye.QueryRow(a.s.t.Context(), "SELECT backend_start FROM pg_stat_activity WHERE pid = $1", a.pid).Scan(&start); err != nil {
		a.s.t.Fatal(err)
	}
	return start
}
