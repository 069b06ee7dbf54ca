package inspect_test

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/internal/signal"
	"github.com/pglock-go/pglock/pgxlock"
)

// dimScene returns a scene with a role that may signal others but not see their
// activity, and the role of those others.
func dimScene(t *testing.T) (s *scene, dim, app string) {
	s = newScene(t)
	dim, app = "dim_"+s.database(), "dimapp_"+s.database()
	s.session("setup").do("CREATE ROLE "+dim+" LOGIN IN ROLE pg_signal_backend", "CREATE ROLE "+app+" LOGIN",
		"CREATE TABLE t (i int)", "GRANT ALL ON t TO PUBLIC", "ALTER TABLE t OWNER TO "+app, "GRANT ALL ON SCHEMA public TO PUBLIC")
	t.Cleanup(func() {
		s.eye.Exec(t.Context(), "DROP OWNED BY "+app)
		s.eye.Exec(t.Context(), "DROP ROLE "+dim+", "+app)
	})
	return s, dim, app
}

// as opens a session of another role.
func (s *scene) as(role, name string) *actor {
	s.t.Helper()
	return s.sessionIn(s.dsn+" user="+role, name)
}

// end ends a's session, and returns when it has ended.
func (a *actor) end() {
	a.s.t.Helper()
	a.conn.Close(a.s.t.Context())
	a.s.until("the end of "+a.name, "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1)", a.pid)
}

// reuse opens a session of the same role with the PID of gone: it makes the kernel
// give that PID to the next process.
func (s *scene) reuse(gone *actor, role string) *actor {
	s.t.Helper()
	const last = "/proc/sys/kernel/ns_last_pid"
	for range 200 {
		if err := os.WriteFile(last, []byte(strconv.Itoa(int(gone.pid)-1)), 0); err != nil {
			if os.Getenv("CI") == "true" {
				s.t.Fatalf("a PID cannot be chosen here: %v", err)
			}
			s.t.Skipf("a PID cannot be chosen on %s as this user: %v", runtime.GOOS, err)
		}
		a := s.as(role, gone.name)
		if a.pid == gone.pid {
			return a
		}
		a.end()
	}
	s.t.Fatal("the PID was never given again")
	return nil
}

// locksOf returns the locks of a session as another one sees them.
func locksOf(t *testing.T, q driver.Querier, pid int32) []inspect.Lock {
	t.Helper()
	locks, err := inspect.Locks(t.Context(), q, inspect.PIDs(pid))
	if err != nil || len(locks) == 0 {
		t.Fatalf("%d locks, %v", len(locks), err)
	}
	if !locks[0].BackendStart.IsZero() {
		t.Fatal("the start of the session is not hidden")
	}
	return locks
}

// seenThen returns locks that were seen of a session whose PID another session now
// has.
func seenThen(locks []inspect.Lock, now int32) []inspect.Lock {
	for i := range locks {
		locks[i].PID = now
	}
	return locks
}

// wantRefused checks that the session was not signaled, and which grant would help.
func wantRefused(t *testing.T, what string, outcomes []inspect.Outcome, err error, role string) {
	t.Helper()
	if o := one(t, outcomes, err); o.Reason != inspect.Hidden || o.Grant != `GRANT pg_read_all_stats TO "`+role+`"` {
		t.Errorf("%s: %+v", what, o)
	}
}

// A role that may not see when sessions began signals only those of which it can
// prove that they are the ones that were meant.
func TestCatalogHiddenStart(t *testing.T) {
	s, dim, app := dimScene(t)
	eye := s.as(dim, "dim")
	q := eye.querier()

	// Another session with the same PID, in a transaction with the same lock.
	old := s.as(app, "app").do("BEGIN", "SELECT FROM t")
	locks := locksOf(t, q, old.pid)
	next := s.as(app, "app").do("BEGIN", "SELECT FROM t")
	old.end()
	outcomes, err := inspect.Terminate(t.Context(), q, inspect.SessionsOf(seenThen(locks, next.pid)))
	wantRefused(t, "another transaction", outcomes, err, dim)
	outcomes, err = inspect.Cancel(t.Context(), q, inspect.SessionsOf(seenThen(locks, next.pid)))
	wantRefused(t, "another transaction, to cancel", outcomes, err, dim)
	if !next.alive() {
		t.Fatal("another session was ended")
	}
	// The same session in its next transaction cannot be identified.
	locks = locksOf(t, q, next.pid)
	next.do("COMMIT", "BEGIN", "SELECT FROM t")
	outcomes, err = inspect.Terminate(t.Context(), q, inspect.SessionsOf(locks))
	wantRefused(t, "its next transaction", outcomes, err, dim)
	// In the same transaction it can.
	outcomes, err = inspect.Terminate(t.Context(), q, inspect.SessionsOf(locksOf(t, q, next.pid)), inspect.WaitGone(patience))
	if o := one(t, outcomes, err); !o.Signaled || !o.Ended || next.alive() {
		t.Errorf("the same transaction: %+v", o)
	}

	// A session-level lock, outside of a transaction.
	old = s.as(app, "app").do("SELECT pg_advisory_lock(7)")
	outcomes, err = inspect.Terminate(t.Context(), q, inspect.SessionsOf(locksOf(t, q, old.pid)))
	wantRefused(t, "without a transaction", outcomes, err, dim)
	waiter := s.as(app, "waiter").await("SELECT pg_advisory_lock(7)")
	pairs, err := inspect.Blocked(t.Context(), q, inspect.PIDs(waiter.pid))
	if err != nil || len(pairs) != 1 || pairs[0].Blocking.PID != old.pid {
		t.Fatalf("%v, %v", pairs, err)
	}
	told := !pairs[0].WaitApprox // from Postgres 14 on
	outcomes, err = inspect.Terminate(t.Context(), q, inspect.BlockersOf(pairs), inspect.DryRun())
	if o := one(t, outcomes, err); told && !o.Signaled {
		t.Errorf("blocking the wait that was seen: %+v", o)
	} else if !told {
		wantRefused(t, "without waitstart", outcomes, err, dim)
	}
	// Another session with that PID has the lock, and blocks another wait.
	next = s.as(app, "app")
	old.end()
	waiter.join().do("SELECT pg_advisory_unlock(7)")
	next.do("SELECT pg_advisory_lock(7)")
	waiter.await("SELECT pg_advisory_lock(7)")
	pairs[0].Blocking.PID = next.pid
	outcomes, err = inspect.Terminate(t.Context(), q, inspect.BlockersOf(pairs))
	wantRefused(t, "blocking another wait", outcomes, err, dim)
	if !next.alive() {
		t.Error("another session was ended")
	}

	// With the grant of the Outcome, the role sees enough.
	s.session("setup").do("GRANT pg_read_all_stats TO " + dim)
	locks, err = inspect.Locks(t.Context(), q, inspect.PIDs(next.pid))
	if err != nil {
		t.Fatal(err)
	}
	outcomes, err = inspect.Terminate(t.Context(), q, inspect.SessionsOf(locks), inspect.WaitGone(patience))
	if o := one(t, outcomes, err); !o.Signaled || !o.Ended {
		t.Errorf("with the grant: %+v", o)
	}
}

// The same with a PID that the kernel has reused.
func TestCatalogPIDGivenAgain(t *testing.T) {
	s, dim, app := dimScene(t)
	q := s.as(dim, "dim").querier()

	old := s.as(app, "app").do("BEGIN", "SELECT FROM t")
	victims := inspect.SessionsOf(locksOf(t, q, old.pid))
	old.end()
	next := s.reuse(old, app).do("BEGIN", "SELECT FROM t")
	outcomes, err := inspect.Terminate(t.Context(), q, victims)
	wantRefused(t, "the PID of another session", outcomes, err, dim)
	if !next.alive() {
		t.Fatal("another session was ended")
	}
	next.end()

	// With a request of package signal.
	old = s.as(app, "app").do("SELECT pg_advisory_lock(8)")
	waiter := s.as(app, "waiter").await("SELECT pg_advisory_lock(8)")
	pairs, err := inspect.Blocked(t.Context(), q, inspect.PIDs(waiter.pid))
	if err != nil || len(pairs) != 1 {
		t.Fatalf("%v, %v", pairs, err)
	}
	p := pairs[0]
	b := signal.Request{
		Waiter: p.PID, Blocker: p.Blocking.PID, BlockerTransaction: p.Held.Transaction, Action: signal.Terminate,
	}
	if !p.WaitApprox {
		b.WaitStart = p.WaitStart
	}
	session := s.askerAs(dim)
	look := b
	look.Action = signal.Check
	want := signal.Result{}
	if p.WaitApprox {
		want = signal.Result{Reason: inspect.Hidden}
	}
	wantResult(t, session, look, want)
	old.end()
	waiter.join().do("SELECT pg_advisory_unlock(8)")
	next = s.reuse(old, app).do("SELECT pg_advisory_lock(8)")
	waiter.await("SELECT pg_advisory_lock(8)")
	b.Waiter = waiter.pid
	want = signal.Result{Reason: inspect.NotBlocking} // not in that wait
	if p.WaitApprox {
		want = signal.Result{Reason: inspect.Hidden}
	}
	wantResult(t, session, b, want)
	b.WaitStart = time.Time{} // as one that does not know when the wait began
	wantResult(t, session, b, signal.Result{Reason: inspect.Hidden})
	if !next.alive() {
		t.Error("another session was ended")
	}
}

// Each proof that identifies a blocker whose start is hidden, separately.
func TestCatalogSignalHidden(t *testing.T) {
	s, dim, app := dimScene(t)
	session := s.askerAs(dim)
	blocker := s.as(app, "app").do("BEGIN", "SELECT FROM t")
	waiter := s.as(app, "waiter").await("ALTER TABLE t ADD COLUMN w int")
	q := s.as(dim, "dim").querier()
	pairs, err := inspect.Blocked(t.Context(), q, inspect.PIDs(waiter.pid))
	if err != nil || len(pairs) != 1 {
		t.Fatalf("%v, %v", pairs, err)
	}
	p := pairs[0]
	var transaction string
	if err := s.eye.QueryRow(t.Context(), "SELECT DISTINCT virtualtransaction FROM pg_locks WHERE pid = $1", blocker.pid).Scan(&transaction); err != nil {
		t.Fatal(err)
	}
	number, _ := strconv.Atoi(transaction[strings.Index(transaction, "/")+1:])
	another := fmt.Sprintf("%s/%d", transaction[:strings.Index(transaction, "/")], number-1)

	b := signal.Request{Waiter: waiter.pid, Blocker: blocker.pid}
	wantResult(t, session, b, signal.Result{Reason: inspect.Hidden})
	b.BlockerTransaction = another
	wantResult(t, session, b, signal.Result{Reason: inspect.Hidden})
	b.BlockerTransaction = transaction
	wantResult(t, session, b, signal.Result{})
	b.BlockerTransaction = ""
	if !p.WaitApprox {
		b.WaitStart = p.WaitStart
		wantResult(t, session, b, signal.Result{})
		b.WaitStart = p.WaitStart.Add(time.Microsecond)
		wantResult(t, session, b, signal.Result{Reason: inspect.NotBlocking})
		b.WaitStart = time.Time{}
	}
	b.BlockerTransaction = transaction
	b.WaiterTransaction = transaction // which is not its
	wantResult(t, session, b, signal.Result{Reason: inspect.NotBlocking})
	b.WaiterTransaction = p.Transaction
	b.Action = signal.Terminate
	wantResult(t, session, b, signal.Result{Signaled: true})
	waiter.join()
}

func wantResult(t *testing.T, q driver.Session, r signal.Request, want signal.Result) {
	t.Helper()
	got, err := r.Send(t.Context(), q)
	if err != nil || got != want {
		t.Errorf("the result is %+v, %v, want %+v", got, err, want)
	}
}

// askerAs opens the session that sends signals, as another role.
func (s *scene) askerAs(role string) driver.Session {
	s.t.Helper()
	config, err := pgx.ParseConfig(s.dsn)
	if err != nil {
		s.t.Fatal(err)
	}
	config.User = role
	session, err := pgxlock.Config(config).Open(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { session.Close() })
	return session
}
