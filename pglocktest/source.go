package pglocktest

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pglock-go/pglock/driver"
)

const (
	// shortTimeout limits how long anything may take that must happen soon.
	shortTimeout = 10 * time.Second
	// callTimeout limits how long a call may take that must not wait for the network.
	callTimeout = 5 * time.Second
)

// The tests take the advisory lock with the number "pglt" in ASCII.
const (
	lockSQL = `SELECT pg_advisory_lock(1885826164)::text`
	trySQL  = `SELECT pg_try_advisory_lock(1885826164)::text`
	pidSQL  = `SELECT pg_backend_pid()::text`
)

// Source tests that source and its sessions meet the requirements of [driver.Source] and
// [driver.Session], and that a [pglock.Locker] works with them. Each requirement is a
// subtest. Nothing else may use the database meanwhile, and the role must be allowed to
// terminate its own sessions.
func Source(t *testing.T, source driver.Source) { run(t, sourceChecks(source)) }

func sourceChecks(source driver.Source) []check {
	s := suite{source}
	return append([]check{
		{"QueryText", s.queryText},
		{"QueryTextAfterAServerError", s.queryTextAfterServerError},
		{"QueryTextForOneValue", s.queryTextForOneValue},
		{"QueryTextUntilContextEnds", s.queryTextUntilContextEnds},
		{"QueryTextSimple", s.queryTextSimple},
		{"QueryTextSimpleAfterAServerError", s.queryTextSimpleAfterServerError},
		{"QueryTextSimpleForOneValue", s.queryTextSimpleForOneValue},
		{"QueryTextSimpleLeavesNothing", s.queryTextSimpleLeavesNothing},
		{"QueryTextSimpleUntilContextEnds", s.queryTextSimpleUntilContextEnds},
		{"ExecAndQuery", s.execAndQuery},
		{"SessionsAreTheirOwn", s.sessionsAreTheirOwn},
		{"OpenUntilContextEnds", s.openUntilContextEnds},
		{"CloseEndsTheSession", s.closeEndsTheSession},
		{"CloseInsideATransaction", s.closeInsideATransaction},
		{"CloseWhileAQueryRuns", s.closeWhileAQueryRuns},
		{"CloseTwice", s.closeTwice},
		{"CloseAfterLoss", s.closeAfterLoss},
		{"WatchUntilContextEnds", s.watchUntilContextEnds},
		{"WatchUntilLoss", s.watchUntilLoss},
		{"CloseWhileWatchRuns", s.closeWhileWatchRuns},
	}, s.lockerChecks()...)
}

// A check tests one requirement.
type check struct {
	name string
	run  func(testing.TB)
}

func run(t *testing.T, checks []check) {
	for _, c := range checks {
		t.Run(c.name, func(t *testing.T) { c.run(t) })
	}
}

type suite struct{ source driver.Source }

// open opens a session until the end of the test.
func (s suite) open(t testing.TB) driver.Session {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), shortTimeout)
	defer cancel()
	session, err := s.source.Open(ctx)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() { session.Close() })
	return session
}

// queryText runs a statement that must succeed.
func queryText(t testing.TB, session driver.Session, sql string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), shortTimeout)
	defer cancel()
	reply, err := session.QueryText(ctx, sql, args...)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return reply
}

// await polls until the result is want.
func await(t testing.TB, session driver.Session, want, sql string, args ...string) {
	t.Helper()
	deadline := time.Now().Add(shortTimeout)
	var reply string
	for time.Now().Before(deadline) {
		if reply = queryText(t, session, sql, args...); reply == want {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatalf("%s: still %q, want %q", sql, reply, want)
}

// awaitGone waits until the backend with this pid has ended, and checks that its lock is
// released.
func (s suite) awaitGone(t testing.TB, pid string) {
	t.Helper()
	observer := s.open(t)
	await(t, observer, "0", `SELECT count(*)::text FROM pg_stat_activity WHERE pid = $1::int`, pid)
	if got := queryText(t, observer, trySQL); got != "true" {
		t.Errorf("the lock of backend %s is still held", pid)
	}
	observer.Close()
}

// awaitWaiting waits until the backend with this pid waits for a lock.
func awaitWaiting(t testing.TB, observer driver.Session, pid string) {
	t.Helper()
	await(t, observer, "1", `SELECT count(*)::text FROM pg_locks WHERE pid = $1::int AND NOT granted`, pid)
}

func stateOf(err error) string {
	var state interface{ SQLState() string }
	if errors.As(err, &state) {
		return state.SQLState()
	}
	return ""
}

func (s suite) execAndQuery(t testing.TB) {
	ctx := context.Background()
	session := s.open(t)
	if err := session.Exec(ctx, `CREATE TEMP TABLE pglocktest (n bigint, s text); INSERT INTO pglocktest VALUES (1, 'one')`); err != nil {
		t.Fatalf("several statements without parameters: %v", err)
	}
	if err := session.Exec(ctx, `INSERT INTO pglocktest VALUES ($1::bigint, $2::text)`, int64(-2), "two"); err != nil {
		t.Fatalf("a statement with parameters: %v", err)
	}
	if err := session.Exec(ctx, `INSERT INTO nope VALUES (1)`); stateOf(err) != "42P01" {
		t.Errorf("got %v, want SQLState 42P01", err)
	}
	if err := queryError(session, `SELECT 1 / $1::int`, 0); stateOf(err) != "22012" {
		t.Errorf("got %v, want SQLState 22012", err)
	}
	for range 2 {
		rows, err := session.Query(ctx, `SELECT n, s FROM pglocktest WHERE n < $1::bigint ORDER BY n`, int64(5))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for rows.Next() {
			var n int64
			var s string
			if err := rows.Scan(&n, &s); err != nil {
				t.Fatal(err)
			}
			got = append(got, strconv.FormatInt(n, 10)+s)
		}
		if err := rows.Err(); err != nil {
			t.Fatal(err)
		}
		if err := rows.Close(); err != nil {
			t.Fatal(err)
		}
		rows.Close()
		if strings.Join(got, " ") != "-2two 1one" {
			t.Errorf("got %v", got)
		}
	}

	// Rows closed early leave the session usable.
	rows, err := session.Query(ctx, `SELECT generate_series(1, 1000)`)
	if err != nil {
		t.Fatal(err)
	}
	rows.Next()
	rows.Close()
	queryText(t, session, pidSQL)
}

// queryError returns the error of a query, which may come at once or with the rows.
func queryError(session driver.Session, sql string, args ...any) error {
	rows, err := session.Query(context.Background(), sql, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
	}
	return rows.Err()
}

func (s suite) sessionsAreTheirOwn(t testing.TB) {
	pids := make(map[string]bool)
	for range 4 {
		session := s.open(t)
		pid := queryText(t, session, pidSQL)
		if pids[pid] {
			t.Errorf("backend %s serves two sessions", pid)
		}
		pids[pid] = true
		if reported := session.PID(); reported != 0 && strconv.Itoa(int(reported)) != pid {
			t.Errorf("PID is %d, the backend is %s", reported, pid)
		}
	}
}

func (s suite) openUntilContextEnds(t testing.TB) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if session, err := s.source.Open(ctx); err == nil {
		session.Close()
		t.Error("Open opens a session although its context has ended")
	}

	// The context of Open must not affect the session afterwards.
	ctx, cancel = context.WithTimeout(context.Background(), shortTimeout)
	session, err := s.source.Open(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	cancel()
	queryText(t, session, pidSQL)
}
