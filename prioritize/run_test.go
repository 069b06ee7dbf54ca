package prioritize_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/internal/pgserver"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
	"github.com/pglock-go/pglock/prioritize"
)

const (
	soon  = 100 * time.Millisecond // a short grace
	alter = "ALTER TABLE t ADD COLUMN w int"
)

func TestCatalogTerminate(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	idle := s.session("idle").do("BEGIN", "SELECT FROM t")
	me, log := s.session("me"), s.log()
	began := time.Now()
	s.must(me.run(alter, prioritize.After(soon), prioritize.Terminate(), log.option()))
	if took := time.Since(began); took < soon {
		t.Errorf("the grace was %v, not %v", took, soon)
	}
	idle.wantAlive(false)
	log.want(prioritize.Terminated, idle.pid, 1)
	if freed := log.of(prioritize.Freed); len(freed) != 1 || freed[0].Waited < soon {
		t.Errorf("freed: %v", freed)
	}
}

func TestCancelRunningStatement(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	busy := s.session("busy").start("SELECT pg_sleep(1000) FROM t LIMIT 1")
	me, log := s.session("me"), s.log()
	s.must(me.run(alter, prioritize.After(soon), prioritize.Cancel(), log.option()))
	s.wantCode(busy.Join(), "57014")
	busy.wantAlive(true)
	log.want(prioritize.Canceled, busy.pid, 1)
}

// A cancel releases nothing of a session that is idle in a transaction: none is sent,
// and that is reported once.
func TestCancelIdleInTransaction(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	idle := s.session("idle").do("BEGIN", "SELECT FROM t")
	me, log := s.session("me"), s.log()
	err := me.run(alter, prioritize.After(soon), prioritize.Cancel(), prioritize.LockTimeout(time.Second), log.option())
	s.wantCode(err, "55P03")
	if got := blocking(err); !slices.Equal(got, []int32{idle.pid}) {
		t.Errorf("the error names %v: %v", got, err)
	}
	hasWord(t, err.Error(), "AccessExclusiveLock", "public.t", `"idle"`, "idle in transaction")
	if strings.Contains(err.Error(), "SELECT") {
		t.Errorf("the error has a query: %v", err)
	}
	log.wantSpared(idle.pid, because(inspect.Idle))
	if n := log.spared(idle.pid, because(inspect.Idle)); n != 1 {
		t.Errorf("it was reported %d times", n)
	}
	log.want(prioritize.Canceled, idle.pid, 0)
	idle.do("COMMIT")
}

// An idle session that begins to run a statement is canceled.
func TestCancelOnceItRuns(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	idle := s.session("idle").do("BEGIN", "SELECT FROM t")
	me, log := s.session("me"), s.log()
	log.hear = func(e prioritize.Event) {
		if e.Reason == inspect.Idle {
			idle.Background("SELECT pg_sleep(1000)")
		}
	}
	s.must(me.run(alter, prioritize.After(soon), prioritize.Cancel(), log.option()))
	s.wantCode(idle.Join(), "57014")
}

func TestCancelThenTerminate(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	// A cancel ends the statement. Because of the savepoint, the transaction keeps
	// its other locks.
	idle := s.session("idle").do("BEGIN", "SELECT FROM t")
	stubborn := s.session("stubborn").do("BEGIN", "SELECT FROM t", "SAVEPOINT a").start("SELECT pg_sleep(1000)")
	busy := s.session("busy").start("SELECT pg_sleep(1000) FROM t LIMIT 1")
	me, log := s.session("me"), s.log()
	began := time.Now()
	s.must(me.run(alter, prioritize.After(soon), prioritize.CancelThenTerminate(400*time.Millisecond), log.option()))
	if took := time.Since(began); took < soon+400*time.Millisecond {
		t.Errorf("terminated after %v", took)
	}
	busy.wantAlive(true)
	stubborn.wantAlive(false)
	idle.wantAlive(false)
	log.want(prioritize.Canceled, busy.pid, 1)
	log.want(prioritize.Terminated, busy.pid, 0)
	log.want(prioritize.Canceled, stubborn.pid, 1)
	log.want(prioritize.Terminated, stubborn.pid, 1)
	log.want(prioritize.Canceled, idle.pid, 0)
	log.want(prioritize.Terminated, idle.pid, 1)
	log.wantSpared(idle.pid, because(inspect.Idle))
}

// The default policy is to report.
func TestReport(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	idle := s.session("idle").do("BEGIN", "SELECT FROM t")
	me, log := s.session("me"), s.log()
	err := me.run(alter, prioritize.After(soon), prioritize.LockTimeout(time.Second), log.option(), prioritize.Every(soon))
	s.wantCode(err, "55P03")
	idle.wantAlive(true)
	log.want(prioritize.Overdue, idle.pid, 1)
	log.want(prioritize.Blocked, idle.pid, 1)
	idle.do("COMMIT")
}

func TestNotBeforeTheGrace(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	idle := s.session("idle").do("BEGIN", "SELECT FROM t")
	me, log := s.session("me"), s.log()
	err := me.run(alter, prioritize.After(time.Minute), prioritize.Interval(5*time.Millisecond), prioritize.Terminate(),
		prioritize.LockTimeout(500*time.Millisecond), log.option())
	s.wantCode(err, "55P03")
	idle.do("COMMIT")
	log.want(prioritize.Terminated, idle.pid, 0)
	log.want(prioritize.Overdue, idle.pid, 0)
}

// A session ahead in the lock queue holds nothing, and proceeds by itself when the
// holder is gone.
func TestQueueAhead(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	holder := s.session("holder").do("BEGIN", "SELECT FROM t")
	queued := s.session("queued").await("ALTER TABLE t ADD COLUMN x int")
	me, log := s.session("me"), s.log()
	s.must(me.run(alter, prioritize.After(soon), prioritize.Terminate(), log.option()))
	if err := queued.Join(); err != nil {
		t.Errorf("the one ahead in the queue: %v", err)
	}
	holder.wantAlive(false)
	queued.wantAlive(true)
	log.want(prioritize.Terminated, queued.pid, 0)
	if blocked := log.of(prioritize.Blocked); len(blocked) == 0 || len(blocked[0].Blocked) != 2 ||
		blocked[0].Blocked[0].Blocking.PID != holder.pid || blocked[0].Blocked[1].Hard {
		t.Errorf("the first event has %v", blocked)
	}
}

// A reader behind DDL in the queue waits for no holder: the holder blocks only the
// DDL.
func TestOnlyTheQueueIsInTheWay(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	holder := s.session("holder").do("BEGIN", "SELECT FROM t")
	queued := s.session("queued").await("ALTER TABLE t ADD COLUMN x int")
	me, log := s.session("me"), s.log()
	s.wantCode(me.run("SELECT FROM t", prioritize.After(soon), prioritize.Terminate(),
		prioritize.LockTimeout(time.Second), log.option()), "55P03")
	holder.wantAlive(true)
	queued.wantAlive(true)
	log.wantSpared(queued.pid, because(inspect.Queued))
	log.want(prioritize.Terminated, holder.pid, 0)

	s.must(me.run("SELECT FROM t", prioritize.After(soon), prioritize.Cancel(), prioritize.ClearQueue(), log.option()))
	s.wantCode(queued.Join(), "57014")
	holder.do("COMMIT")
}

// A session that acquires the lock while we wait has its own grace.
func TestWhoTakesHoldHasAGrace(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	first := s.session("first").do("BEGIN", "SELECT FROM t")
	next := s.session("next").do("BEGIN").await("ALTER TABLE t ADD COLUMN x int")
	me, log := s.session("me"), s.log()
	s.must(me.run(alter, prioritize.After(400*time.Millisecond), prioritize.Terminate(), log.option()))
	a, b := log.about(prioritize.Terminated, first.pid), log.about(prioritize.Terminated, next.pid)
	if len(a) != 1 || len(b) != 1 {
		t.Fatalf("terminated: %v, %v", a, b)
	}
	if gap := b[0].Time.Sub(a[0].Time); gap < 400*time.Millisecond {
		t.Errorf("the second had a grace of %v", gap)
	}
}

func TestAdvisoryLockOfASession(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	holder := s.session("holder").do("SELECT pg_advisory_lock(42)")
	me, log := s.session("me"), s.log()
	s.must(me.run("SELECT pg_advisory_xact_lock(42)", prioritize.After(soon), prioritize.CancelThenTerminate(soon), log.option()))
	holder.wantAlive(false)
	log.wantSpared(holder.pid, because(inspect.Idle))
}

func TestRowLock(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	holder := s.session("holder").do("BEGIN", "UPDATE t SET v = 1 WHERE id = 1")
	me, log := s.session("me"), s.log()
	s.must(me.run("UPDATE t SET v = 2 WHERE id = 1", prioritize.After(soon), prioritize.Terminate(), log.option()))
	holder.wantAlive(false)
	hasWord(t, log.of(prioritize.Blocked)[0].String(), "row (0,1) of public.t")
}

// Parallel workers hold their own locks; their leader is ended.
func TestCatalogParallelWorkers(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.exec("CREATE TABLE big AS SELECT i FROM generate_series(1, 100000) AS i",
		"ANALYZE big",
		`CREATE FUNCTION nap(i int) RETURNS bool LANGUAGE sql PARALLEL SAFE COST 100000 VOLATILE
			AS 'SELECT pg_sleep(0.01) IS NOT NULL'`)
	busy := s.session("busy").do("SET max_parallel_workers_per_gather = 2", "SET parallel_setup_cost = 0",
		"SET parallel_tuple_cost = 0", "SET min_parallel_table_scan_size = 0")
	busy.Background("SELECT count(*) FROM big WHERE nap(i)")
	s.until("parallel workers", "SELECT count(*) >= 3 FROM pg_locks WHERE relation = 'big'::regclass AND granted")
	me, log := s.session("me"), s.log()
	s.must(me.run("ALTER TABLE big ADD COLUMN w int", prioritize.After(soon), prioritize.Cancel(), log.option()))
	s.wantCode(busy.Join(), "57014")
	log.want(prioritize.Canceled, busy.pid, 1)
	if n := len(log.of(prioritize.Canceled)); n != 1 {
		t.Errorf("%d were canceled, want the leader alone", n)
	}
}

// roles starts a separate server with roles that are not superusers.
func roles(t *testing.T, settings map[string]string) *scene {
	server := pgtest.Own(t, pgserver.Options{Settings: settings})
	s := newSceneIn(t, server.ConnString(pgtest.DatabaseOn(t, server)))
	s.exec("CREATE ROLE app LOGIN", "CREATE ROLE boss LOGIN SUPERUSER", "CREATE ROLE other LOGIN", "CREATE ROLE signaller LOGIN IN ROLE pg_signal_backend",
		"GRANT ALL ON t TO PUBLIC", "ALTER TABLE t OWNER TO app", "GRANT ALL ON SCHEMA public TO PUBLIC")
	return s
}

// as returns the connection string of another role.
func (s *scene) as(role string) string {
	return strings.Replace(s.dsn, "user="+s.observer.Config().User, "user="+role, 1)
}

// A session that may not be signaled does not prevent acting on the rest.
func TestPermissionMissing(t *testing.T) {
	t.Parallel()
	s := roles(t, nil)
	other := s.sessionOn(s.as("other"), "other").do("BEGIN", "SELECT FROM t")
	super := s.session("super").do("BEGIN", "SELECT FROM t")
	app := s.sessionOn(s.as("app"), "app").do("BEGIN", "SELECT FROM t")
	me, log := s.sessionOn(s.as("app"), "me"), s.log()
	err := me.runWith(source(t, s.as("app")), alter, prioritize.After(soon), prioritize.Terminate(),
		prioritize.LockTimeout(time.Second), log.option())
	s.wantCode(err, "55P03")
	if got := blocking(err); len(got) != 2 || !slices.Contains(got, other.pid) || !slices.Contains(got, super.pid) {
		t.Errorf("the error names %v, want %d and %d", got, other.pid, super.pid)
	}
	app.wantAlive(false)
	other.wantAlive(true)
	super.wantAlive(true)
	denied := log.wantSpared(other.pid, because(inspect.NotPermitted))
	s.wantCode(denied.Err, "42501")
	log.wantSpared(super.pid, protected(inspect.Superusers))
	if n := log.spared(other.pid, because(inspect.NotPermitted)); n != 1 {
		t.Errorf("it was reported %d times", n)
	}

	// If allowed, it is tried, and Postgres refuses.
	err = me.runWith(source(t, s.as("app")), alter, prioritize.After(soon), prioritize.Terminate(),
		prioritize.LockTimeout(time.Second), log.option(), prioritize.Allow(inspect.Superusers))
	s.wantCode(err, "55P03")
	log.wantSpared(super.pid, because(inspect.NotPermitted))
}

// A role that may not see the activity of others still sees the blockers, and may end
// them if it is a member of pg_signal_backend.
func TestCatalogRoleThatSeesNothing(t *testing.T) {
	t.Parallel()
	s := roles(t, nil)
	other := s.sessionOn(s.as("other"), "other").do("BEGIN", "SELECT FROM t")
	super := s.session("super").do("BEGIN", "SELECT FROM t")
	me, log := s.sessionOn(s.as("app"), "me"), s.log()
	log.hear = func(e prioritize.Event) {
		if reasonOf(e) == protected(inspect.Superusers) {
			super.do("COMMIT")
		}
	}
	s.must(me.runWith(source(t, s.as("signaller")), alter, prioritize.After(soon), prioritize.Terminate(), log.option()))
	other.wantAlive(false)
	super.wantAlive(true)
	if !s.is("SELECT backend_start IS NOT NULL FROM pg_stat_activity WHERE pid = $1", me.pid) {
		t.Error("the observer does not see when the session began")
	}
	if start := log.of(prioritize.Blocked)[0].Blocked[0].Blocking.BackendStart; !start.IsZero() {
		t.Errorf("the watcher sees when it began: %v", start)
	}
}

func TestCatalogPreparedTransaction(t *testing.T) {
	t.Parallel()
	s := roles(t, map[string]string{"max_prepared_transactions": "2"})
	s.session("gone").do("BEGIN", "SELECT FROM t", `PREPARE TRANSACTION 'pay''d'`)
	t.Cleanup(func() {
		if _, err := s.observer.Exec(context.Background(), `ROLLBACK PREPARED 'pay''d'`); err != nil {
			t.Error(err)
		}
	})
	me, log := s.session("me"), s.log()
	err := me.run(alter, prioritize.After(soon), prioritize.Terminate(), prioritize.LockTimeout(3*time.Second), log.option())
	s.wantCode(err, "55P03")
	hasWord(t, err.Error(), `ROLLBACK PREPARED 'pay''d'`, "prepared transaction", s.observer.Config().Database)
	e := log.wantSpared(0, because(inspect.NoProcess))
	hasWord(t, e.String(), `ROLLBACK PREPARED 'pay''d'`)
	if p := e.Blocked[0].Blocking.Prepared; p == nil || p.GID != "pay'd" {
		t.Errorf("the event has %+v", p)
	}
}

// autovacuum returns a scene with an autovacuum worker at a table big, which takes
// long.
func autovacuum(t *testing.T, parameters string) (s *scene, worker int32) {
	server := pgtest.Own(t, pgserver.Options{Settings: map[string]string{
		"autovacuum": "on", "autovacuum_naptime": "1s", "autovacuum_vacuum_cost_delay": "100ms",
		"autovacuum_vacuum_cost_limit": "1", "vacuum_cost_page_dirty": "10000", "deadlock_timeout": "1h",
	}})
	s = newSceneIn(t, server.ConnString(pgtest.DatabaseOn(t, server)))
	s.exec("CREATE TABLE scratch (i int) WITH (autovacuum_enabled = off)",
		"CREATE TABLE big (i int) WITH ("+parameters+")",
		"INSERT INTO big SELECT i FROM generate_series(1, 200000) AS i", "DELETE FROM big",
		// Many transactions, to make the table old.
		`DO $$ BEGIN
			FOR i IN 1..110000 LOOP
				BEGIN INSERT INTO scratch VALUES (i); EXCEPTION WHEN division_by_zero THEN NULL; END;
			END LOOP;
		END $$`)
	s.until("autovacuum", `SELECT EXISTS (SELECT FROM pg_stat_activity AS a JOIN pg_locks AS l USING (pid)
		WHERE a.backend_type = 'autovacuum worker' AND l.relation = 'big'::regclass AND l.granted)`)
	s.must(s.observer.QueryRow(t.Context(), `SELECT pid FROM pg_locks WHERE relation = 'big'::regclass AND granted
		AND mode = 'ShareUpdateExclusiveLock'`).Scan(&worker))
	return s, worker
}

func TestAutovacuum(t *testing.T) {
	t.Parallel()
	s, worker := autovacuum(t, "autovacuum_vacuum_threshold = 0, autovacuum_vacuum_scale_factor = 0")
	me, log := s.session("me"), s.log()
	const sql = "ALTER TABLE big ADD COLUMN w int"
	err := me.run(sql, prioritize.After(soon), prioritize.Terminate(), prioritize.LockTimeout(time.Second), log.option())
	s.wantCode(err, "55P03")
	hasWord(t, err.Error(), "autovacuum worker")
	log.wantSpared(worker, protected(inspect.Autovacuum))
	log.want(prioritize.Terminated, worker, 0)

	// If allowed, it is ended.
	s.must(me.run(sql, prioritize.After(soon), prioritize.Cancel(), prioritize.Allow(inspect.Autovacuum), log.option()))
	log.want(prioritize.Canceled, worker, 1)
}

func TestAutovacuumAgainstWraparound(t *testing.T) {
	t.Parallel()
	s, worker := autovacuum(t, "autovacuum_enabled = off, autovacuum_freeze_max_age = 100000")
	me, log := s.session("me"), s.log()
	err := me.run("ALTER TABLE big ADD COLUMN w int", prioritize.After(soon), prioritize.Terminate(), prioritize.LockTimeout(time.Second), log.option())
	s.wantCode(err, "55P03")
	log.wantSpared(worker, spareReason{inspect.Wraparound, inspect.Autovacuum})
}

// Only direct blockers are ended, not the blockers of blockers.
func TestSecondHandBlockersAreSpared(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	far := s.session("far").do("SELECT pg_advisory_lock(1)")
	near := s.session("near").do("BEGIN", "SELECT FROM t").await("SELECT pg_advisory_lock(1)")
	me, log := s.session("me"), s.log()
	s.must(me.run(alter, prioritize.After(soon), prioritize.Terminate(), log.option()))
	near.wantAlive(false)
	far.wantAlive(true)
	log.want(prioritize.Blocked, far.pid, 0)
}

// Sessions come and go, and are blocked at the same time.
func TestRunForSeveral(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.exec("CREATE TABLE u (i int)")
	x := s.session("x").do("BEGIN", "SELECT FROM t")
	y := s.session("y").do("BEGIN", "SELECT FROM u")
	log := s.log()
	err := prioritize.RunFor(t.Context(), source(t, s.dsn), prioritize.Who{Applications: []string{"tool"}},
		func(ctx context.Context) error {
			a, b := s.session("tool"), s.session("tool")
			a.Background("ALTER TABLE t ADD COLUMN w int")
			b.Background("ALTER TABLE u ADD COLUMN w int")
			if err := errors.Join(a.Join(), b.Join()); err != nil {
				return err
			}
			a.conn.Close(ctx)
			log.untilKind(prioritize.Left)
			return nil
		}, prioritize.After(soon), prioritize.Terminate(), log.option(), prioritize.Allow(inspect.Superusers))
	s.must(err)
	x.wantAlive(false)
	y.wantAlive(false)
	for _, e := range log.of(prioritize.Watching) {
		if e.Application != "tool" || e.User == "" {
			t.Errorf("watching %+v", e)
		}
	}
}

func TestWhoIsChecked(t *testing.T) {
	t.Parallel()
	fn := func(context.Context) error { t.Error("fn was run"); return nil }
	for _, who := range []prioritize.Who{
		{},
		{PIDs: []int32{0}},
		{Applications: []string{""}},
		{Users: []string{""}},
		{Applications: []string{strings.Repeat("x", 64)}},
		{Applications: []string{"pglock prioritize"}},
	} {
		if err := prioritize.RunFor(t.Context(), nil, who, fn); err == nil {
			t.Errorf("%v is no error", who)
		}
	}
}
