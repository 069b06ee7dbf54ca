package inspect

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"pgregory.net/rapid"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
	"github.com/pglock-go/pglock/internal/sessiontest"
	"github.com/pglock-go/pglock/pgxlock"
)

// A queueScene has sessions that lock the same few objects in turn.
type queueScene struct {
	t        testing.TB
	eye      *pgx.Conn
	q        driver.Querier // through eye
	version  int
	players  []*player
	prepared []string // prepared transactions, as literals
	canceled bool     // a wait has ended with an error

	seen map[seenEdge]bool // what compare has counted already
}

// A seenEdge is an edge that was compared, and the result.
type seenEdge struct {
	sql             string // the file that was read
	waiter, blocker int32
	wrong           bool
}

// A player is a session of a queueScene.
type player struct {
	conn *pgx.Conn
	pid  int32
	done chan error // of the statement that runs, or nil
}

func newQueueScene(t testing.TB, sessions int) *queueScene {
	dsn := pgtest.Database(t)
	s := &queueScene{t: t, eye: sessiontest.Connect(t, dsn, "eye")}
	s.q = newDirectConn(pgxlock.Conn(s.eye))
	if err := s.eye.QueryRow(t.Context(), "SELECT current_setting('server_version_num')::int").Scan(&s.version); err != nil {
		t.Fatal(err)
	}
	s.exec("CREATE TABLE t1 (id int); CREATE TABLE t2 (id int); CREATE TABLE r (id int PRIMARY KEY); INSERT INTO r VALUES (1), (2)")
	for i := range sessions {
		conn := sessiontest.Connect(t, dsn, fmt.Sprint("player ", i))
		s.players = append(s.players, &player{conn: conn, pid: int32(conn.PgConn().PID())})
	}
	t.Cleanup(s.reset)
	return s
}

// exec runs a statement of the observing session.
func (s *queueScene) exec(sql string) {
	s.t.Helper()
	if _, err := s.eye.PgConn().Exec(context.WithoutCancel(s.t.Context()), sql).ReadAll(); err != nil {
		s.t.Fatalf("%s: %v", sql, err)
	}
}

// send runs a statement of p in the background.
func (p *player) send(sql string) {
	p.done = make(chan error, 1)
	go func(done chan error) {
		_, err := p.conn.PgConn().Exec(context.Background(), sql).ReadAll()
		done <- err
	}(p.done)
}

// settle waits until each player has finished its statement or waits for a lock.
func (s *queueScene) settle() {
	s.t.Helper()
	deadline := time.Now().Add(sessiontest.Patience)
	for {
		var waiting []int32
		if err := s.eye.QueryRow(s.t.Context(), "SELECT array_agg(pid) FROM pg_locks WHERE NOT granted").Scan(&waiting); err != nil {
			s.t.Fatal(err)
		}
		settled := true
		for _, p := range s.players {
			if p.done == nil {
				continue
			}
			select {
			case err := <-p.done:
				p.done = nil
				var pgErr *pgconn.PgError
				if errors.As(err, &pgErr) {
					s.canceled = true
				} else if err != nil {
					s.t.Fatal(err)
				}
			default:
				settled = settled && slices.Contains(waiting, p.pid)
			}
		}
		if settled {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatal("a statement neither ends nor waits")
		}
	}
}

// reset ends all transactions.
func (s *queueScene) reset() {
	for _, p := range s.players {
		for p.done != nil {
			s.exec(fmt.Sprintf("SELECT pg_cancel_backend(%d)", p.pid))
			select {
			case <-p.done:
				p.done = nil
			case <-time.After(10 * time.Millisecond):
			}
		}
		if _, err := p.conn.PgConn().Exec(context.Background(), "ROLLBACK").ReadAll(); err != nil {
			s.t.Fatal(err)
		}
	}
	for _, gid := range s.prepared {
		s.exec("ROLLBACK PREPARED " + gid)
	}
	s.prepared, s.canceled, s.seen = nil, false, map[seenEdge]bool{}
}

// asked returns the blockers of each waiting session, without duplicates, from
// pg_blocking_pids.
func (s *queueScene) asked() map[int32][]int32 {
	s.t.Helper()
	rows, err := s.eye.Query(s.t.Context(), "SELECT pid, pg_blocking_pids(pid) FROM (SELECT DISTINCT pid FROM pg_locks WHERE NOT granted) AS w")
	if err != nil {
		s.t.Fatal(err)
	}
	waits := map[int32][]int32{}
	var pid int32
	var blockers []int32
	if _, err = pgx.ForEachRow(rows, []any{&pid, &blockers}, func() error {
		waits[pid] = distinct(blockers)
		return nil
	}); err != nil {
		s.t.Fatal(err)
	}
	return waits
}

func distinct(pids []int32) []int32 { return slices.Compact(slices.Sorted(slices.Values(pids))) }

// A comparison is the sum of what was compared. An edge counts once, however long it lasts:
// an order that cannot be known stays wrong until its sessions have gone on.
type comparison struct{ pictures, computed, unstable, edges, wrong int }

// compare compares the blockers that are computed with those of pg_blocking_pids, if
// nothing changed in between.
func (s *queueScene) compare(sum *comparison) {
	s.t.Helper()
	ctx, q := s.t.Context(), s.q
	before := s.asked()
	snapshot, err := read(ctx, q, snapshotSQL, map[string]string{"crowd": "1"})
	if err != nil {
		s.t.Fatal(err)
	}
	sql, err := new(conditions).statement(matchingSQL)
	if err != nil {
		s.t.Fatal(err)
	}
	matching, err := read(ctx, q, sql, map[string]string{"crowd": "1", "pairs": "true"})
	if err != nil {
		s.t.Fatal(err)
	}
	if !maps.EqualFunc(before, s.asked(), slices.Equal) {
		sum.unstable++
		return
	}
	sum.pictures++
	maps.DeleteFunc(s.seen, func(e seenEdge, _ bool) bool { return before[e.waiter] == nil })
	for name, r := range map[string]*reading{"snapshot.sql": snapshot, "matching.sql": matching} {
		if s.version >= 140000 && len(r.waits) > 0 {
			if r.waitsUnknown() {
				sum.unstable++ // Postgres was about to write when the wait began
				continue
			}
			s.t.Fatalf("%s: pg_blocking_pids was called: %v", name, r.waits)
		}
		if !r.computeBlockers() {
			continue // the sessions are in a cycle
		}
		sum.computed++
		for pid, want := range before {
			for _, blocker := range want {
				if s.firstSeen(seenEdge{name, pid, blocker, false}) {
					sum.edges++
				}
			}
			got := distinct(r.waits[pid])
			if slices.Equal(got, want) {
				continue
			}
			s.settle() // a wait may have been canceled just before
			for _, blocker := range append(slices.Clone(got), want...) {
				if slices.Contains(got, blocker) == slices.Contains(want, blocker) {
					continue
				}
				if s.firstSeen(seenEdge{name, pid, blocker, true}) {
					sum.wrong++
				}
				if !s.canceled || r.holds(blocker, pid) {
					s.t.Fatalf("%s: %d is blocked by %v, computed are %v\n%s", name, pid, want, got, describeLocks(r))
				}
			}
		}
		if len(r.waits) != len(before) {
			s.t.Fatalf("%s: %d wait, computed are %d", name, len(before), len(r.waits))
		}
	}
}

// firstSeen reports whether e was not counted yet, and counts it.
func (s *queueScene) firstSeen(e seenEdge) bool {
	seen := s.seen[e]
	s.seen[e] = true
	return !seen
}

// waitsUnknown reports whether it is unknown when a wait began.
func (r *reading) waitsUnknown() bool {
	return slices.ContainsFunc(slices.Concat(r.locks, r.sideLocks), func(l Lock) bool { return !l.Granted && (l.WaitApprox || l.WaitStart.IsZero()) })
}

// holds reports whether a session holds a lock that another one waits for.
func (r *reading) holds(blocker, waiter int32) bool {
	for i := range r.locks {
		if w := &r.locks[i]; !w.Granted && w.PID == waiter {
			return slices.ContainsFunc(conflictingLocks(r.holders()[w.object()], w.Mode), func(l *Lock) bool { return l.PID == blocker })
		}
	}
	return false
}

func describeLocks(r *reading) string {
	var b strings.Builder
	for _, locks := range [][]Lock{r.locks, r.sideLocks} {
		for i := range locks {
			l := &locks[i]
			fmt.Fprintf(&b, "%d %s of %s granted %t fast %t since %v\n", l.PID, l.Mode, l.Target(), l.Granted, l.FastPath, l.WaitStart)
		}
	}
	return b.String()
}

// step lets one player do something.
func (s *queueScene) step(t *rapid.T) {
	p := rapid.SampledFrom(s.players).Draw(t, "player")
	if p.done != nil {
		if rapid.IntRange(0, 9).Draw(t, "cancel") == 0 {
			s.exec(fmt.Sprintf("SELECT pg_cancel_backend(%d)", p.pid))
		}
		return
	}
	begin := ""
	switch p.conn.PgConn().TxStatus() {
	case 'E':
		p.send("ROLLBACK")
		return
	case 'I':
		timeout := rapid.SampledFrom([]string{"1ms", "1h"}).Draw(t, "deadlock_timeout")
		begin = "BEGIN; SET LOCAL deadlock_timeout = '" + timeout + "'; "
	}
	switch kind := rapid.IntRange(0, 19).Draw(t, "kind"); {
	case kind < 9: // tables, in all modes
		table := rapid.SampledFrom([]string{"t1", "t1", "t2"}).Draw(t, "table")
		mode := rapid.SampledFrom(pglock.Modes()).Draw(t, "mode")
		p.send(begin + fmt.Sprintf("LOCK TABLE %s IN %s MODE", table, mode))
	case kind < 12: // advisory locks
		p.send(begin + rapid.SampledFrom([]string{
			"SELECT pg_advisory_xact_lock(1)", "SELECT pg_advisory_xact_lock_shared(1)", "SELECT pg_advisory_xact_lock(1, 1)",
		}).Draw(t, "advisory"))
	case kind < 16: // rows: tuple, transactionid
		row := rapid.IntRange(1, 2).Draw(t, "row")
		strength := rapid.SampledFrom([]string{"UPDATE", "NO KEY UPDATE", "SHARE", "KEY SHARE"}).Draw(t, "strength")
		p.send(begin + fmt.Sprintf("SELECT FROM r WHERE id = %d FOR %s", row, strength))
	case kind < 17: // unique keys
		p.send(begin + "INSERT INTO r VALUES (3)")
	case kind < 18 && begin == "" && len(s.prepared) < 2:
		gid := fmt.Sprintf("'%d %d'", p.pid, time.Now().UnixNano())
		if _, err := p.conn.PgConn().Exec(context.Background(), "PREPARE TRANSACTION "+gid).ReadAll(); err == nil {
			s.prepared = append(s.prepared, gid)
		}
	case kind < 19 && len(s.prepared) > 0:
		s.exec("ROLLBACK PREPARED " + s.prepared[0])
		s.prepared = s.prepared[1:]
	case kind < 19 && begin == "":
		p.send("ROLLBACK")
	}
}

// The computed blockers are those of pg_blocking_pids, in random scenes of sessions with
// queues, lock upgrades, deadlocks, and deadlock checks that reorder a queue.
func TestCatalogQueues(t *testing.T) {
	s := newQueueScene(t, 8)
	var sum comparison
	scenes := 0
	rapid.Check(t, func(r *rapid.T) {
		if scenes++; scenes > 30 {
			return
		}
		s.reset()
		for range 40 {
			s.step(r)
			s.settle()
			s.compare(&sum)
		}
	})
	t.Logf("%+v", sum)
	if s.version >= 140000 && sum.computed == 0 {
		t.Error("no blockers were computed")
	}
	// Each of these was explained by a wait that was canceled, of which there are many here.
	if sum.wrong*10 > sum.edges {
		t.Errorf("%d of %d edges are wrong", sum.wrong, sum.edges)
	}
}

// play lets a player run statements. The last one may wait.
func (s *queueScene) play(player int, statements ...string) *player {
	s.t.Helper()
	p := s.players[player]
	for i, sql := range statements {
		p.send(sql)
		s.settle()
		if p.done != nil && i < len(statements)-1 {
			s.t.Fatalf("player %d waits in %s", player, sql)
		}
	}
	return p
}

// edges reads what sql selects, and returns who blocks whom. crowd is the length from which
// the blockers are computed.
func (s *queueScene) edges(sql string, values map[string]string, crowd int) string {
	s.t.Helper()
	own := map[string]string{} // readEdges changes it
	maps.Copy(own, values)
	r, err := readEdges(s.t.Context(), s.q, sql, own, crowd)
	if err != nil {
		s.t.Fatal(err)
	}
	if !strings.Contains(sql, "BLOCKING") {
		r.blocking = nil
	}
	var lines []string
	for _, p := range r.pairs() {
		lines = append(lines, fmt.Sprintf("%s waits for %s: %t, %s\n", p.Application, p.Mode, p.Hard, p.Blocking.Application))
	}
	slices.Sort(lines)
	return strings.Join(lines, "")
}

// With filters, the rest of the queue is read, too, and the filters select from the same
// pairs.
func TestCatalogQueueFilters(t *testing.T) {
	s := newQueueScene(t, 6)
	s.play(0, "BEGIN", "LOCK TABLE t1 IN ROW EXCLUSIVE MODE")
	s.play(1, "BEGIN", "LOCK TABLE t1 IN ACCESS SHARE MODE", "LOCK TABLE t1 IN SHARE MODE")
	s.play(2, "LOCK TABLE t1") // fails: not in a transaction
	s.play(2, "BEGIN", "LOCK TABLE t1")
	s.play(3, "BEGIN", "LOCK TABLE t1 IN ROW EXCLUSIVE MODE")
	last := s.play(4, "BEGIN", "LOCK TABLE t1 IN EXCLUSIVE MODE").pid
	s.play(5, "SELECT FROM t1")
	for _, test := range []struct {
		c    conditions
		want int
	}{
		{conditions{}, 10},
		{conditions{lock: []string{fmt.Sprintf("l.pid = %d", last)}}, 4},
		{conditions{blocking: []string{"b.application = 'player 2' /* BLOCKING */"}}, 3},
	} {
		sql, err := test.c.statement(matchingSQL)
		if err != nil {
			t.Fatal(err)
		}
		values := map[string]string{"pairs": "true"}
		want := s.edges(sql, values, noCrowd)
		if got := s.edges(sql, values, 2); got != want || strings.Count(got, "\n") != test.want {
			t.Errorf("%v: computed\n%swant %d:\n%s", test.c, got, test.want, want)
		}
	}
}

// A session that holds a lock on the object waits ahead of those that it blocks, though they
// came first.
func TestCatalogQueueUpgrade(t *testing.T) {
	s := newQueueScene(t, 4)
	s.play(0, "BEGIN", "LOCK TABLE t1 IN ROW EXCLUSIVE MODE")
	upgrade := s.play(1, "BEGIN", "LOCK TABLE t1 IN ACCESS SHARE MODE").pid
	first := s.play(2, "BEGIN", "LOCK TABLE t1").pid
	second := s.play(3, "BEGIN", "LOCK TABLE t1 IN EXCLUSIVE MODE").pid
	s.play(1, "LOCK TABLE t1 IN SHARE MODE")
	want := s.edges(snapshotSQL, nil, noCrowd)
	if got := s.edges(snapshotSQL, nil, 2); got != want || strings.Count(got, "\n") != 6 {
		t.Errorf("computed\n%swant 6:\n%s", got, want)
	}
	r, err := read(t.Context(), s.q, snapshotSQL, map[string]string{"crowd": "2"})
	if err != nil {
		t.Fatal(err)
	}
	if !r.computeBlockers() {
		t.Error("the blockers were not computed")
	}
	if len(r.waits[upgrade]) != 1 || !slices.Contains(r.waits[first], upgrade) || !slices.Contains(r.waits[second], upgrade) {
		t.Errorf("the upgrade is %d, the others %d and %d: %v", upgrade, first, second, r.waits)
	}
}

// A deadlock check that moves a session ahead in the queue leaves no trace in pg_locks.
func TestCatalogQueueReordered(t *testing.T) {
	s := newQueueScene(t, 4)
	a, h := s.players[0].pid, s.players[2].pid
	s.play(0, "BEGIN; SET LOCAL deadlock_timeout = '1h'", "SELECT pg_advisory_xact_lock(1)")
	s.play(1, "BEGIN; SET LOCAL deadlock_timeout = '1h'")
	s.play(2, "BEGIN; SET LOCAL deadlock_timeout = '1ms'", "LOCK TABLE t1 IN ACCESS SHARE MODE")
	s.play(3, "BEGIN", "LOCK TABLE t1 IN ROW EXCLUSIVE MODE")
	b := s.play(1, "LOCK TABLE t1").pid
	s.play(0, "LOCK TABLE t1 IN SHARE MODE")     // behind b
	s.play(2, "SELECT pg_advisory_xact_lock(1)") // and b is behind h
	sessiontest.Until(t, s.eye, "a before b", "SELECT $1 = ANY (pg_blocking_pids($2))", a, b)
	r, err := read(t.Context(), s.q, snapshotSQL, map[string]string{"crowd": "2"})
	if err != nil {
		t.Fatal(err)
	}
	if computed := r.computeBlockers(); computed != (s.version < 140000) {
		t.Errorf("the blockers were computed: %t: %v", computed, r.waits)
	}
	r, err = readEdges(t.Context(), s.q, snapshotSQL, map[string]string{}, 2)
	if err != nil {
		t.Fatal(err)
	}
	if got := distinct(r.waits[b]); !slices.Contains(got, a) || !slices.Contains(got, h) || slices.Contains(r.waits[a], b) {
		t.Errorf("a is %d, b is %d, the waits are %v", a, b, r.waits)
	}
}

// Parallel workers in a queue count as their leader.
func TestCatalogQueueParallel(t *testing.T) {
	s := newQueueScene(t, 3)
	s.play(0, "CREATE TABLE big AS SELECT generate_series(1, 10000) AS id", "ANALYZE big", "SET parallel_setup_cost = 0",
		"SET parallel_tuple_cost = 0", "SET min_parallel_table_scan_size = 0", "SET max_parallel_workers_per_gather = 2")
	leader := s.players[0]
	leader.send("SELECT count(*) FROM big WHERE pg_sleep(0.05) IS NOT NULL")
	sessiontest.Until(t, s.eye, "parallel workers",
		"SELECT count(*) = 2 FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE a.backend_type = 'parallel worker' AND l.relation = 'big'::regclass")
	for _, p := range s.players[1:] {
		p.send("BEGIN; LOCK TABLE big")
	}
	sessiontest.Until(t, s.eye, "two waits", "SELECT count(*) = 2 FROM pg_locks WHERE NOT granted")
	want := s.edges(snapshotSQL, nil, noCrowd)
	if got := s.edges(snapshotSQL, nil, 2); got != want || strings.Count(got, "\n") != 3 {
		t.Errorf("computed\n%swant 3:\n%s", got, want)
	}
	r, err := read(t.Context(), s.q, snapshotSQL, map[string]string{"crowd": "2"})
	if err != nil {
		t.Fatal(err)
	}
	if computed := r.computeBlockers(); computed != (s.version < 140000) {
		t.Errorf("the blockers were computed: %t: %v", computed, r.waits)
	}
}
