package inspect_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
)

// take returns a snapshot; Blocked must return the same pairs.
func (s *scene) take() *inspect.Snapshot {
	s.t.Helper()
	snapshot, err := inspect.ReadSnapshot(s.t.Context(), s.q)
	if err != nil {
		s.t.Fatal(err)
	}
	pairs, err := inspect.Blocked(s.t.Context(), s.q)
	if err != nil {
		s.t.Fatal(err)
	}
	if got, want := describe(pairs), describe(snapshot.Pairs); got != want {
		s.t.Errorf("Blocked has\n%sTake has\n%s", got, want)
	}
	return snapshot
}

// describe returns a line for each pair.
func describe(pairs []inspect.Pair) string {
	var b strings.Builder
	for _, p := range pairs {
		held := "nothing"
		if p.Held != nil {
			held = p.Held.Mode
		}
		blocking := p.Blocking.Application
		if p.Blocking.Prepared != nil {
			blocking = "prepared " + p.Blocking.Prepared.GID
		}
		block := "soft"
		if p.Hard {
			block = "hard"
		}
		fmt.Fprintf(&b, "%s waits for %s of %s: %s by %s with %s\n", p.Application, p.Mode, p.Target(), block, blocking, held)
	}
	return b.String()
}

// wantPairs checks the pairs, in the order of the waits.
func (s *scene) wantPairs(want ...string) *inspect.Snapshot {
	s.t.Helper()
	snapshot := s.take()
	if got := strings.TrimSpace(describe(snapshot.Pairs)); got != strings.Join(want, "\n") {
		s.t.Errorf("the pairs are\n%s\nwant\n%s", got, strings.Join(want, "\n"))
	}
	return snapshot
}

func TestRowQueue(t *testing.T) {
	s := newScene(t)
	a := s.session("a").do("CREATE TABLE t (id int PRIMARY KEY, n int)", "INSERT INTO t VALUES (1, 0)",
		"BEGIN", "UPDATE t SET n = 1 WHERE id = 1")
	b := s.session("b").await("UPDATE t SET n = 2 WHERE id = 1")
	c := s.session("c").await("UPDATE t SET n = 3 WHERE id = 1")
	var xid uint32
	if err := a.conn.QueryRow(t.Context(), "SELECT txid_current() % (2^32)::bigint").Scan(&xid); err != nil {
		t.Fatal(err)
	}
	snapshot := s.wantPairs(
		fmt.Sprintf("b waits for ShareLock of row (0,1) of public.t, by transaction %d: hard by a with ExclusiveLock", xid),
		"c waits for ExclusiveLock of row (0,1) of public.t: hard by b with ExclusiveLock")
	w := b.find("waited for", func(l inspect.Lock) bool { return !l.Granted })
	if w.Type != "transactionid" || w.TransactionID != xid || w.Kind != "TABLE" || w.Relation != "t" || w.Tuple != 1 || len(w.Candidates) != 0 {
		t.Errorf("the first in the queue waits for %+v", w)
	}
	forest := snapshot.Forest()
	if len(forest) != 1 || forest[0].PID != a.pid || forest[0].Behind != 2 || len(forest[0].Blocked) != 1 {
		t.Fatalf("the forest is %+v", forest)
	}
	second := forest[0].Blocked[0]
	if second.PID != b.pid || second.Depth != 1 || second.Behind != 1 || !second.Pair.Hard ||
		len(second.Blocked) != 1 || second.Blocked[0].PID != c.pid || second.Blocked[0].Depth != 2 {
		t.Errorf("below the root is %+v", second)
	}
}

func TestUniqueInsert(t *testing.T) {
	s := newScene(t)
	a := s.session("a").do("CREATE TABLE u (id int PRIMARY KEY)", "BEGIN", "INSERT INTO u VALUES (1)")
	b := s.session("b").await("INSERT INTO u VALUES (1)")
	var xid uint32
	if err := a.conn.QueryRow(t.Context(), "SELECT txid_current() % (2^32)::bigint").Scan(&xid); err != nil {
		t.Fatal(err)
	}
	s.wantPairs(fmt.Sprintf("b waits for ShareLock of transaction %d, perhaps for a key of public.u: hard by a with ExclusiveLock", xid))
	w := b.find("waited for", func(l inspect.Lock) bool { return !l.Granted })
	if w.Relation != "" || w.Tuple != 0 || w.HasPage {
		t.Errorf("the wait asserts to be for %+v", w)
	}
}

// A migration waits behind a reader, and the next reader behind the migration: the
// last one waits only because of the queue.
func TestSoftBlock(t *testing.T) {
	s := newScene(t)
	a := s.session("a").do("CREATE TABLE t (id int)", "BEGIN", "SELECT * FROM t")
	s.session("d").await("ALTER TABLE t ADD COLUMN n int")
	s.session("e").await("SELECT * FROM t")
	s.session("f").await("DROP TABLE t")
	snapshot := s.wantPairs(
		"d waits for AccessExclusiveLock of public.t: hard by a with AccessShareLock",
		"e waits for AccessShareLock of public.t: soft by d with nothing",
		"f waits for AccessExclusiveLock of public.t: hard by a with AccessShareLock",
		"f waits for AccessExclusiveLock of public.t: soft by d with nothing",
		"f waits for AccessExclusiveLock of public.t: soft by e with nothing")
	forest := snapshot.Forest()
	if got, want := draw(forest), "a 3\n  d 1\n    e 0\n  f 0\n"; got != want {
		t.Errorf("the forest is\n%swant\n%s", got, want)
	}
	if got := draw(snapshot.Forest(a.pid)); got != draw(forest) {
		t.Errorf("the forest of a is\n%s", got)
	}
	if got := draw(snapshot.Forest(1)); got != "" {
		t.Errorf("the forest of nobody is\n%s", got)
	}
}

// draw draws trees, with the number of sessions behind each.
func draw(trees []*inspect.Tree) string {
	var b strings.Builder
	for _, t := range trees {
		fmt.Fprintf(&b, "%*s%s %d", 2*t.Depth, "", name(t), t.Behind)
		if t.Cycle {
			b.WriteString(" cycle")
		}
		if t.Again {
			b.WriteString(" again")
		}
		b.WriteString("\n" + draw(t.Blocked))
	}
	return b.String()
}

func name(t *inspect.Tree) string {
	if t.Prepared != nil {
		return t.Prepared.GID
	}
	return t.Application
}

func TestPreparedTransaction(t *testing.T) {
	s := newScene(t)
	gid := "it's " + s.database()
	literal := "'" + strings.ReplaceAll(gid, "'", "''") + "'"
	a := s.session("a").do("CREATE TABLE t (id int)", "BEGIN", "LOCK TABLE t IN SHARE MODE", "PREPARE TRANSACTION "+literal)
	t.Cleanup(func() { a.conn.PgConn().Exec(t.Context(), "ROLLBACK PREPARED "+literal).ReadAll() })
	b := s.session("b").do("BEGIN").await("LOCK TABLE t IN ROW EXCLUSIVE MODE")
	snapshot := s.wantPairs("b waits for RowExclusiveLock of public.t: hard by prepared " + gid + " with ShareLock")
	p := snapshot.Pairs[0].Blocking
	if p.PID != 0 || p.State != "prepared" || p.Database != s.database() || p.User == "" || p.Duration <= 0 ||
		p.Prepared.TransactionID == 0 || p.Prepared.PreparedAt.IsZero() {
		t.Errorf("the prepared transaction is %+v, %+v", p, p.Prepared)
	}
	if p.Prepared.Remedy() != "ROLLBACK PREPARED "+literal {
		t.Errorf("its remedy is %s", p.Prepared.Remedy())
	}
	if got, want := draw(snapshot.Forest()), gid+" 1\n  b 0\n"; got != want {
		t.Errorf("the forest is\n%swant\n%s", got, want)
	}
	a.do(p.Prepared.Remedy())
	b.join().do("ROLLBACK")
}

func (s *scene) database() (name string) {
	s.t.Helper()
	if err := s.eye.QueryRow(s.t.Context(), "SELECT current_database()").Scan(&name); err != nil {
		s.t.Fatal(err)
	}
	return name
}

func TestParallelQuery(t *testing.T) {
	s := newScene(t)
	s.session("setup").do("CREATE TABLE t AS SELECT generate_series(1, 10000) AS id", "ANALYZE t")
	a := s.session("a").do("SET parallel_setup_cost = 0", "SET parallel_tuple_cost = 0", "SET min_parallel_table_scan_size = 0",
		"SET max_parallel_workers_per_gather = 2")
	a.Background("SELECT count(*) FROM t WHERE pg_sleep(0.05) IS NOT NULL")
	workers := "SELECT count(*) = 2 FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE a.backend_type = 'parallel worker' AND l.relation = 't'::regclass"
	s.until("parallel workers", workers)
	s.session("b").do("BEGIN").await("LOCK TABLE t")
	snapshot := s.wantPairs("b waits for AccessExclusiveLock of public.t: hard by a with AccessShareLock")
	if pid := snapshot.Pairs[0].Blocking.PID; pid != a.pid {
		t.Errorf("the blocker is %d, want the leader %d", pid, a.pid)
	}
	if s.version() >= 130000 {
		n := 0
		for _, l := range snapshot.Locks {
			if l.LeaderPID == a.pid && l.Relation == "t" {
				n++
			}
		}
		if n != 2 {
			t.Errorf("%d workers of a hold locks of t, want 2", n)
		}
	}
}

func TestVirtualTransaction(t *testing.T) {
	s := newScene(t)
	s.session("setup").do("CREATE TABLE t (id int)")
	a := s.session("a").do("BEGIN ISOLATION LEVEL REPEATABLE READ", "SELECT 1")
	b := s.session("b").await("CREATE INDEX CONCURRENTLY i ON t (id)")
	w := b.find("waited for", func(l inspect.Lock) bool { return !l.Granted })
	if w.Type != "virtualxid" || w.Target() != "transaction "+w.VirtualXID || w.VirtualXID == "" {
		t.Errorf("it waits for %+v", w)
	}
	s.wantPairs("b waits for ShareLock of transaction " + w.VirtualXID + ": hard by a with ExclusiveLock")
	a.do("COMMIT")
	b.join()
}

func TestObject(t *testing.T) {
	s := newScene(t)
	a := s.session("a").do("CREATE SCHEMA x", "BEGIN", "CREATE TABLE x.t ()")
	b := s.session("b").await("DROP SCHEMA x")
	var oid uint32
	if err := s.eye.QueryRow(t.Context(), "SELECT 'x'::regnamespace::oid").Scan(&oid); err != nil {
		t.Fatal(err)
	}
	s.wantPairs(fmt.Sprintf("b waits for AccessExclusiveLock of object %d of pg_catalog.pg_namespace: hard by a with AccessShareLock", oid))
	a.do("ROLLBACK")
	b.join()
}

func TestAdvisoryQueue(t *testing.T) {
	s := newScene(t)
	a := s.session("a").do("SELECT pg_advisory_lock(-5)", "SELECT pg_advisory_lock_shared(7, -9)")
	s.session("b").await("SELECT pg_advisory_lock(-5)")
	s.session("c").await("SELECT pg_advisory_lock(7, -9)")
	s.session("d").do("SELECT pg_advisory_lock_shared(7, 9)") // another key
	snapshot := s.wantPairs(
		"b waits for ExclusiveLock of advisory -5: hard by a with ExclusiveLock",
		"c waits for ExclusiveLock of advisory (7, -9): hard by a with ShareLock")
	if snapshot.Pairs[1].Key != pglock.Pair(7, -9) {
		t.Errorf("the key is %v", snapshot.Pairs[1].Key)
	}
	if got, want := draw(snapshot.Forest()), "a 2\n  b 0\n  c 0\n"; got != want {
		t.Errorf("the forest is\n%swant\n%s", got, want)
	}
	a.do("SELECT pg_advisory_unlock_all()")
}

// What a serializable transaction has read is marked, and blocks nothing.
func TestPredicateLocks(t *testing.T) {
	s := newScene(t)
	s.session("setup").do("CREATE TABLE t (id int)", "INSERT INTO t VALUES (1)")
	a := s.session("a").do("BEGIN ISOLATION LEVEL SERIALIZABLE", "SELECT * FROM t", "SELECT * FROM t WHERE id = 1")
	l := a.find("an SIRead", func(l inspect.Lock) bool { return l.Mode == "SIReadLock" && l.Type == "relation" })
	if !l.Granted || l.Relation != "t" {
		t.Errorf("the lock is %+v", l)
	}
	s.session("b").do("BEGIN").do("LOCK TABLE t IN EXCLUSIVE MODE")
	s.wantPairs()
}

func TestPairOfAnotherDatabase(t *testing.T) {
	s := newScene(t)
	other := pgtest.Database(t)
	a := s.sessionIn(other, "a").do("CREATE TABLE t ()", "BEGIN", "LOCK TABLE t")
	b := s.sessionIn(other, "b").await("SELECT * FROM t")
	var target string
	if err := a.conn.QueryRow(t.Context(), "SELECT current_database() || ':' || 't'::regclass::oid").Scan(&target); err != nil {
		t.Fatal(err)
	}
	s.wantPairs("b waits for AccessShareLock of " + target + ": hard by a with AccessExclusiveLock")
	a.do("ROLLBACK")
	b.join()
}

// Two sessions that wait for each other are shown until Postgres ends one of them.
func TestDeadlock(t *testing.T) {
	s := newScene(t)
	a := s.session("a").do("SET deadlock_timeout = '1min'", "SELECT pg_advisory_lock(1)")
	b := s.session("b").do("SET deadlock_timeout = '1min'", "SELECT pg_advisory_lock(2)")
	a.await("SELECT pg_advisory_lock(2)")
	b.await("SELECT pg_advisory_lock(1)")
	s.session("c").await("SELECT pg_advisory_lock(1)")
	snapshot := s.wantPairs(
		"a waits for ExclusiveLock of advisory 2: hard by b with ExclusiveLock",
		"b waits for ExclusiveLock of advisory 1: hard by a with ExclusiveLock",
		"c waits for ExclusiveLock of advisory 1: hard by a with ExclusiveLock",
		"c waits for ExclusiveLock of advisory 1: soft by b with nothing")
	if got, want := draw(snapshot.Forest()), "a 2 cycle\n  b 2 cycle\n    a 2 cycle again\n  c 0\n"; got != want {
		t.Errorf("the forest is\n%swant\n%s", got, want)
	}
}

// A session that holds a lock that does not conflict, and waits ahead for one that
// does, is a soft blocker.
func TestSoftHolder(t *testing.T) {
	s := newScene(t)
	s.session("y").do("CREATE TABLE t (id int)", "BEGIN", "LOCK TABLE t IN ACCESS SHARE MODE")
	s.session("x").do("BEGIN", "LOCK TABLE t IN ACCESS SHARE MODE").await("LOCK TABLE t")
	s.session("z").await("SELECT * FROM t")
	s.wantPairs(
		"x waits for AccessExclusiveLock of public.t: hard by y with AccessShareLock",
		"z waits for AccessShareLock of public.t: soft by x with nothing")
}

// A blocker may come after pg_stat_activity was read for the others.
func TestBlockerThatCameMeanwhile(t *testing.T) {
	s := newScene(t)
	holder := s.session("holder").do("SELECT pg_advisory_lock(1)").pid
	waiter := s.session("waiter")
	waiter.Background("SELECT pg_advisory_lock(1)")
	s.until("a wait", "SELECT count(*) = 1 FROM pg_locks WHERE NOT granted AND pid = $1", waiter.pid)
	read := map[string]func(q driver.Querier) ([]inspect.Pair, error){
		"ReadSnapshot": func(q driver.Querier) ([]inspect.Pair, error) {
			snapshot, err := inspect.ReadSnapshot(t.Context(), q)
			if err != nil {
				return nil, err
			}
			return snapshot.Pairs, nil
		},
		"Blocked": func(q driver.Querier) ([]inspect.Pair, error) {
			return inspect.Blocked(t.Context(), q, inspect.PIDs(waiter.pid))
		},
	}
	for name, read := range read {
		late := &lateSession{Querier: s.q, pid: holder}
		pairs, err := read(late)
		if err != nil {
			t.Fatal(name, err)
		}
		i := slices.IndexFunc(pairs, func(p inspect.Pair) bool { return p.Application == "waiter" })
		if !late.hid || i < 0 {
			t.Fatalf("%s: the holder was left out: %t; %+v", name, late.hid, pairs)
		}
		p := pairs[i]
		if p.Blocking.PID != holder || p.Blocking.Application != "holder" || p.Blocking.Hidden || p.Blocking.Duration <= 0 {
			t.Errorf("%s: blocked by %+v", name, p.Blocking)
		}
		if p.Held == nil || p.Held.Session != p.Blocking {
			t.Errorf("%s: the lock that is held is %+v", name, p.Held)
		}
	}
}

// lateSession hides a session from the first statement's result.
type lateSession struct {
	driver.Querier
	pid int32
	hid bool
}

func (l *lateSession) Query(ctx context.Context, sql string, args ...any) (driver.Rows, error) {
	rows, err := l.Querier.Query(ctx, sql, args...)
	if err != nil || l.hid {
		return rows, err
	}
	return &lateRows{Rows: rows, late: l}, nil
}

type lateRows struct {
	driver.Rows
	late       *lateSession
	what, that string
}

func (r *lateRows) Next() bool {
	for r.Rows.Next() {
		if r.Rows.Scan(&r.what, &r.that) != nil {
			return true
		}
		if r.what != "session" || !strings.HasPrefix(r.that, fmt.Sprintf("(%d,", r.late.pid)) {
			return true
		}
		r.late.hid = true
	}
	return false
}

func (r *lateRows) Scan(dest ...any) error {
	*dest[0].(*string), *dest[1].(*string) = r.what, r.that
	return nil
}
