package inspect_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/pgxlock"
)

// victim returns the session of a as the server shows it now.
func (a *actor) victim() inspect.Victim {
	a.s.t.Helper()
	return a.s.victim(a.pid)
}

func (s *scene) victim(pid int32) inspect.Victim {
	s.t.Helper()
	v := inspect.Session{PID: pid}
	err := s.eye.QueryRow(s.t.Context(), "SELECT coalesce(usename, ''), coalesce(datname, ''), backend_start, coalesce(state, '') FROM pg_stat_activity WHERE pid = $1", pid).
		Scan(&v.User, &v.Database, &v.BackendStart, &v.State)
	if err != nil {
		s.t.Fatal(err)
	}
	return inspect.Victim{Session: &v}
}

func (a *actor) alive() bool {
	a.s.t.Helper()
	return a.Alive(a.s.eye)
}

// one checks the outcome of the only victim.
func one(t *testing.T, outcomes []inspect.Outcome, err error) inspect.Outcome {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	if len(outcomes) != 1 {
		t.Fatalf("%d outcomes: %+v", len(outcomes), outcomes)
	}
	return outcomes[0]
}

func TestCancelWaiter(t *testing.T) {
	s := newScene(t)
	s.session("a").do("SELECT pg_advisory_lock(1)")
	b := s.session("b").await("SELECT pg_advisory_lock(1)")
	locks, err := inspect.Locks(t.Context(), s.q, inspect.Where("granted", "=", "no"), inspect.PIDs(b.pid))
	if err != nil {
		t.Fatal(err)
	}
	victims := inspect.SessionsOf(locks)
	outcomes, err := inspect.Cancel(t.Context(), s.q, victims, inspect.DryRun())
	if o := one(t, outcomes, err); !o.Signaled {
		t.Errorf("a dry run: %+v", o)
	}
	b.find("waited for", func(l inspect.Lock) bool { return !l.Granted })
	outcomes, err = inspect.Cancel(t.Context(), s.q, victims)
	if o := one(t, outcomes, err); !o.Signaled || o.Reason != "" || o.Detail != "" || o.Victim.PID != b.pid {
		t.Errorf("%+v", o)
	}
	b.join().do("SELECT 1")
}

func TestTerminateBlocker(t *testing.T) {
	s := newScene(t)
	a := s.session("a").do("CREATE TABLE t ()", "BEGIN", "SELECT * FROM t")
	d := s.session("d").await("ALTER TABLE t ADD COLUMN n int")
	e := s.session("e").await("SELECT * FROM t")
	pairs, err := inspect.Blocked(t.Context(), s.q, inspect.On("t"))
	if err != nil {
		t.Fatal(err)
	}
	// a blocks d; d is only ahead of e, and nothing else blocks e.
	var pids []int32
	for _, v := range inspect.BlockersOf(pairs) {
		pids = append(pids, v.PID)
	}
	if fmt.Sprint(pids) != fmt.Sprint([]int32{a.pid, d.pid}) {
		t.Errorf("the blockers are %v, want %v", pids, []int32{a.pid, d.pid})
	}
	victims := inspect.BlockersOf(pairs[:1])

	outcomes, err := inspect.Cancel(t.Context(), s.q, victims)
	if o := one(t, outcomes, err); o.Reason != inspect.Idle || !strings.Contains(o.Detail, "idle in transaction") {
		t.Errorf("canceling an idle session: %+v", o)
	}
	outcomes, err = inspect.Cancel(t.Context(), s.q, victims, inspect.DryRun())
	if o := one(t, outcomes, err); o.Reason != inspect.Idle {
		t.Errorf("a dry run of canceling an idle session: %+v", o)
	}
	outcomes, err = inspect.Terminate(t.Context(), s.q, victims, inspect.DryRun(), inspect.WaitGone(time.Second))
	if o := one(t, outcomes, err); !o.Signaled || o.Ended || !a.alive() {
		t.Errorf("a dry run: %+v, alive %v", o, a.alive())
	}
	// Our session and the blocker are a superuser's, so no rule forbids it.
	outcomes, err = inspect.Terminate(t.Context(), s.q, victims, inspect.WaitGone(patience))
	if o := one(t, outcomes, err); !o.Signaled || !o.Ended || a.alive() {
		t.Errorf("%+v, alive %v", o, a.alive())
	}
	d.join()
	e.join()
	outcomes, err = inspect.Terminate(t.Context(), s.q, victims, inspect.WaitGone(patience))
	if o := one(t, outcomes, err); o.Reason != inspect.Gone {
		t.Errorf("the second time: %+v", o)
	}
}

// A blocker that has released its lock meanwhile is left alone.
func TestNoLongerBlocking(t *testing.T) {
	s := newScene(t)
	a := s.session("a").do("SELECT pg_advisory_lock(1)")
	b := s.session("b").await("SELECT pg_advisory_lock(1)")
	pairs, err := inspect.Blocked(t.Context(), s.q, inspect.PIDs(b.pid))
	if err != nil || len(pairs) != 1 {
		t.Fatal(pairs, err)
	}
	a.do("SELECT pg_advisory_unlock(1)")
	b.join()
	outcomes, err := inspect.Terminate(t.Context(), s.q, inspect.BlockersOf(pairs))
	if o := one(t, outcomes, err); o.Reason != inspect.NotBlocking || !a.alive() {
		t.Errorf("%+v, alive %v", o, a.alive())
	}
}

// A process with the victim's PID and another start is another session.
func TestReusedPID(t *testing.T) {
	s := newScene(t)
	a := s.session("a")
	for what, change := range map[string]func(*inspect.Session){
		"beginning": func(v *inspect.Session) { v.BackendStart = v.BackendStart.Add(-time.Microsecond) },
		"role":      func(v *inspect.Session) { v.User += "x" },
		"database":  func(v *inspect.Session) { v.Database += "x" },
	} {
		v := a.victim()
		change(v.Session)
		for _, signal := range []func() ([]inspect.Outcome, error){
			func() ([]inspect.Outcome, error) { return inspect.Terminate(t.Context(), s.q, []inspect.Victim{v}) },
			func() ([]inspect.Outcome, error) { return inspect.Cancel(t.Context(), s.q, []inspect.Victim{v}) },
		} {
			outcomes, err := signal()
			if o := one(t, outcomes, err); o.Reason != inspect.Gone {
				t.Errorf("another %s: %+v", what, o)
			}
		}
	}
	a.do("SELECT 1")
	outcomes, err := inspect.Terminate(t.Context(), s.q, []inspect.Victim{a.victim()}, inspect.WaitGone(patience))
	if o := one(t, outcomes, err); !o.Signaled || !o.Ended {
		t.Errorf("the same: %+v", o)
	}
}

func TestProtected(t *testing.T) {
	s := newScene(t)
	config, err := pgx.ParseConfig(s.dsn)
	if err != nil {
		t.Fatal(err)
	}
	config.RuntimeParams["replication"] = "database"
	config.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol
	sender, err := pgx.ConnectConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer sender.Close(t.Context())
	checkpointer := func() (pid int32) {
		if err := s.eye.QueryRow(t.Context(), "SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'").Scan(&pid); err != nil {
			t.Fatal(err)
		}
		return pid
	}()
	walsender := int32(sender.PgConn().PID())
	for _, test := range []struct {
		what   string
		pid    int32
		reason inspect.Reason
		class  inspect.Class
	}{
		{"the session that sends the signal", s.pid(), inspect.Protected, inspect.Ourselves},
		{"a standby", walsender, inspect.Protected, inspect.WALSenders},
		{"not a client session", checkpointer, inspect.Protected, inspect.Background},
		{"no process", 0, inspect.NoProcess, ""},
		{"ROLLBACK PREPARED 'x' in da", -1, inspect.NoProcess, ""},
	} {
		what, pid := test.what, test.pid
		v := inspect.Victim{Session: &inspect.Session{PID: pid}}
		switch {
		case pid > 0:
			v = s.victim(pid)
		case pid < 0:
			v.Session = &inspect.Session{Prepared: &inspect.Prepared{GID: "x", Database: "d", Owner: "o"}}
		}
		for _, option := range []inspect.EndOption{inspect.DryRun(), nil} {
			outcomes, err := inspect.Terminate(t.Context(), s.q, []inspect.Victim{v}, option)
			if o := one(t, outcomes, err); o.Reason != test.reason || !strings.Contains(o.Detail, what) || o.Class != test.class {
				t.Errorf("%s: %+v", what, o)
			}
		}
	}
	if _, err := sender.Exec(t.Context(), "SELECT 1"); err != nil {
		t.Errorf("the walsender: %v", err)
	}
	// If allowed, it may be ended.
	outcomes, err := inspect.Terminate(t.Context(), s.q, []inspect.Victim{s.victim(walsender)}, inspect.Allow(inspect.WALSenders), inspect.WaitGone(patience))
	if o := one(t, outcomes, err); !o.Signaled || !o.Ended {
		t.Errorf("a walsender that is named: %+v", o)
	}
	if _, err := inspect.Terminate(t.Context(), s.q, []inspect.Victim{{}}); err == nil {
		t.Error("an empty Victim is accepted")
	}
}

func TestUnprivileged(t *testing.T) {
	s := newScene(t)
	role := "reader_" + s.database()
	s.session("setup").do("CREATE ROLE "+role+" LOGIN", "CREATE ROLE app_"+role+" LOGIN")
	t.Cleanup(func() { s.eye.Exec(t.Context(), "DROP ROLE "+role+", app_"+role) })
	app := s.as("app_"+role, "app").do("SELECT pg_advisory_lock(1)")
	own := s.as(role, "own").do("SELECT pg_advisory_lock(2)")
	super := s.session("super").do("SELECT pg_advisory_lock(3)")
	s.session("waiter").await("SELECT pg_advisory_lock(1)")
	eye := s.as(role, "eye")
	q := pgxlock.Conn(eye.conn)

	snapshot, err := inspect.ReadSnapshot(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	if snapshot.Server.SeesAll || snapshot.Server.SignalsAll || len(snapshot.Server.Grants()) != 2 ||
		snapshot.Server.Grants()[0] != `GRANT pg_read_all_stats TO "`+role+`"` {
		t.Errorf("the server is %+v, the grants %q", snapshot.Server, snapshot.Server.Grants())
	}
	if len(snapshot.Pairs) != 1 || snapshot.Pairs[0].Blocking.PID != app.pid || !snapshot.Pairs[0].Blocking.Hidden || !snapshot.Pairs[0].Hard {
		t.Errorf("the pairs are\n%s", describe(snapshot.Pairs))
	}
	for _, l := range snapshot.Locks {
		switch l.PID {
		case app.pid:
			if !l.Hidden || l.Query != "" || l.State != "" || l.User != "app_"+role || l.Application != "app" {
				t.Errorf("what is hidden is %+v", l.Session)
			}
		case own.pid:
			if l.Hidden || l.Query == "" || l.State != "idle" {
				t.Errorf("what is our own is %+v", l.Session)
			}
		}
	}

	// Also in a transaction: a refusal must not abort it.
	eye.do("BEGIN")
	victims := inspect.SessionsOf(snapshot.Locks)
	outcomes, err := inspect.Terminate(t.Context(), q, victims, inspect.DryRun())
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range outcomes {
		switch o.Victim.PID {
		case app.pid:
			if o.Reason != inspect.NotPermitted || o.Grant != `GRANT pg_signal_backend TO "`+role+`"` {
				t.Errorf("another's session: %+v", o)
			}
		case own.pid:
			if !o.Signaled {
				t.Errorf("our own role's session: %+v", o)
			}
		case super.pid:
			if o.Reason != inspect.NotPermitted || o.Grant != "" || !strings.Contains(o.Detail, "superuser") {
				t.Errorf("a superuser's session: %+v", o)
			}
		}
	}
	eye.do("COMMIT")

	s.session("setup").do("GRANT pg_signal_backend TO " + role)
	outcomes, err = inspect.Terminate(t.Context(), q, inspect.BlockersOf(snapshot.Pairs), inspect.WaitGone(patience))
	switch o := one(t, outcomes, err); {
	case snapshot.Pairs[0].WaitApprox: // before Postgres 14 nothing proves that it is still the same session
		if o.Reason != inspect.Hidden || o.Grant != `GRANT pg_read_all_stats TO "`+role+`"` || !app.alive() {
			t.Errorf("with the grant: %+v", o)
		}
	case !o.Signaled || !o.Ended || app.alive():
		t.Errorf("with the grant: %+v", o)
	}
}
