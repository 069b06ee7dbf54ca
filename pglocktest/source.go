package pglocktest

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync"
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
		{"QueryText", s.ask},
		{"AskAfterAServerError", s.askAfterServerError},
		{"AskForOneValue", s.askForOneValue},
		{"AskUntilContextEnds", s.askUntilContextEnds},
		{"QueryTextSimple", s.queryTextSimple},
		{"AskSimpleAfterAServerError", s.askSimpleAfterServerError},
		{"AskSimpleForOneValue", s.askSimpleForOneValue},
		{"AskSimpleLeavesNothing", s.askSimpleLeavesNothing},
		{"AskSimpleUntilContextEnds", s.askSimpleUntilContextEnds},
		{"ExecAndQuery", s.execAndQuery},
		{"SessionsAreTheirOwn", s.sessionsAreTheirOwn},
		{"OpenUntilContextEnds", s.openUntilContextEnds},
		{"CloseEndsTheSession", s.closeEndsTheSession},
		{"CloseInsideATransaction", s.closeInsideATransaction},
		{"CloseWhileAskRuns", s.closeWhileAskRuns},
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

func (s suite) ask(t testing.TB) {
	session := s.open(t)
	for range 3 { // a repeated statement may be prepared
		for _, arg := range []string{"", "a", "ü 日本", `'"\`, "NULL", strings.Repeat("long", 5000)} {
			if got := queryText(t, session, `SELECT $1::text`, arg); got != arg {
				t.Errorf("got %q, want %q", got, arg)
			}
		}
		if got := queryText(t, session, `SELECT ($1::bigint + cardinality($2::bigint[]))::text`, "-7", "{1,2}"); got != "-5" {
			t.Errorf("got %q, want -5", got)
		}
		if got := queryText(t, session, `SELECT 'constant'`); got != "constant" {
			t.Errorf("got %q", got)
		}
	}
	for i := range 50 { // more statements than a small cache keeps
		want := strconv.Itoa(i)
		if got := queryText(t, session, `SELECT '`+want+`'::text`); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func (s suite) askAfterServerError(t testing.TB) {
	session := s.open(t)
	pid := queryText(t, session, pidSQL)
	for range 3 {
		for sql, want := range map[string]string{
			`SELECT (1 / $1::int)::text`:     "22012",
			`SELECT no_such_function($1)`:    "42883",
			`SELEKT $1`:                      "42601",
			`SELECT $1::int::text FROM nope`: "42P01",
		} {
			_, err := session.QueryText(context.Background(), sql, "0")
			if got := stateOf(err); got != want {
				t.Errorf("%s: the error has SQLState %q, want %q: %v", sql, got, want, err)
			}
			if got := queryText(t, session, pidSQL); got != pid {
				t.Fatalf("the session changed: backend %s, was %s", got, pid)
			}
		}
	}

	holder := s.open(t)
	queryText(t, holder, lockSQL)
	if err := session.Exec(context.Background(), `SET lock_timeout = 20`); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := session.QueryText(context.Background(), lockSQL); stateOf(err) != "55P03" {
			t.Fatalf("waiting past lock_timeout: %v", err)
		}
	}
	if err := session.Exec(context.Background(), `SET lock_timeout = 0`); err != nil {
		t.Fatal(err)
	}
	holder.Close()
	queryText(t, session, lockSQL)
}

func (s suite) askForOneValue(t testing.TB) {
	for _, sql := range []string{`SELECT 'a' WHERE false`, `SELECT NULL::text`, `SELECT 'a' UNION ALL SELECT 'b'`} {
		session := s.open(t)
		if got, err := session.QueryText(context.Background(), sql); err == nil {
			t.Errorf("%s: returned %q, want an error", sql, got)
		} else if stateOf(err) != "" {
			t.Errorf("%s: an error with an SQLState that Postgres did not send: %v", sql, err)
		}
	}
}

func (s suite) askUntilContextEnds(t testing.TB) {
	holder, session, observer := s.open(t), s.open(t), s.open(t)
	queryText(t, holder, lockSQL)
	holderPID, pid := queryText(t, holder, pidSQL), queryText(t, session, pidSQL)

	ctx, cancel := context.WithCancel(context.Background())
	result := make(chan error, 1)
	go func() {
		_, err := session.QueryText(ctx, lockSQL)
		result <- err
	}()
	awaitWaiting(t, observer, pid)
	cancel()
	select {
	case err := <-result:
		if err == nil {
			t.Fatal("QueryText acquired a lock held by another session")
		}
		if stateOf(err) != "" {
			if got := queryText(t, session, pidSQL); got != pid {
				t.Errorf("after %v, which has an SQLState, the session changed", err)
			}
		}
	case <-time.After(callTimeout):
		t.Fatal("QueryText continues after its context has ended")
	}
	session.Close()
	holder.Close()
	await(t, observer, "0", `SELECT count(*)::text FROM pg_stat_activity WHERE pid = $1::int`, holderPID)
	s.awaitGone(t, pid)
}

// querySimple runs sql with the simple query protocol; it must succeed.
func querySimple(t testing.TB, session driver.Session, sql string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), shortTimeout)
	defer cancel()
	reply, err := session.QueryTextSimple(ctx, sql)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return reply
}

func (s suite) queryTextSimple(t testing.TB) {
	session := s.open(t)
	pid := queryText(t, session, pidSQL)
	long := strings.Repeat("long", 5000)
	for sql, want := range map[string]string{
		pidSQL:                             pid,
		`SELECT ''`:                        "",
		`SELECT 'ü 日本 $1 ?'::text`:         "ü 日本 $1 ?",
		`SELECT '` + long + `'`:            long,
		`SELECT 1 WHERE false; SELECT 'a'`: "a", // statements without a result before the one with a result
		`SELECT 'b'; SELECT FROM pg_class WHERE false`: "b",
		// One message is one transaction: SET LOCAL lasts until its end, and the
		// transaction's mode can be set before its first query.
		`SET LOCAL pglocktest.a = 'in'; SELECT current_setting('pglocktest.a')`:                                  "in",
		`SET LOCAL TRANSACTION ISOLATION LEVEL REPEATABLE READ; SELECT current_setting('transaction_isolation')`: "repeatable read",
		`SET pglocktest.b = 'out'; SELECT pg_backend_pid()::text || current_setting('pglocktest.b')`:             pid + "out",
	} {
		if got := querySimple(t, session, sql); got != want {
			t.Errorf("%.100s: got %.100q, want %.100q", sql, got, want)
		}
	}
	if got := queryText(t, session, `SELECT current_setting('pglocktest.a') || current_setting('pglocktest.b')`); got != "out" {
		t.Errorf("the settings for the message and for the session are %q afterwards, want %q", got, "out")
	}
}

func (s suite) askSimpleAfterServerError(t testing.TB) {
	session := s.open(t)
	pid := queryText(t, session, pidSQL)
	for range 3 {
		for sql, want := range map[string]string{
			`SELECT (1 / 0)::text`:                     "22012",
			`SELECT 'a'; SELECT nope()`:                "42883",
			`SELEKT 1`:                                 "42601",
			`SET pglocktest.c = 'a'; SELECT FROM nope`: "42P01",
		} {
			ctx, cancel := context.WithTimeout(context.Background(), shortTimeout)
			reply, err := session.QueryTextSimple(ctx, sql)
			cancel()
			if got := stateOf(err); got != want {
				t.Errorf("%s: %q and an error with SQLState %q, want %q: %v", sql, reply, got, want, err)
			}
			if got := querySimple(t, session, pidSQL); got != pid {
				t.Fatalf("the session changed: backend %s, was %s", got, pid)
			}
			if got := queryText(t, session, pidSQL); got != pid {
				t.Fatalf("the session changed: backend %s, was %s", got, pid)
			}
		}
	}
}

func (s suite) askSimpleForOneValue(t testing.TB) {
	for _, sql := range []string{
		`SELECT 'a' WHERE false`, `SELECT NULL::text`, `SELECT 'a' UNION ALL SELECT 'b'`, `SELECT 'a'; SELECT 'b'`, `SET pglocktest.d = 'a'`,
	} {
		session := s.open(t)
		ctx, cancel := context.WithTimeout(context.Background(), shortTimeout)
		got, err := session.QueryTextSimple(ctx, sql)
		cancel()
		if err == nil {
			t.Errorf("%s: returned %q, want an error", sql, got)
		} else if stateOf(err) != "" {
			t.Errorf("%s: an error with an SQLState that Postgres did not send: %v", sql, err)
		}
	}
}

// askSimpleLeavesNothing uses only QueryTextSimple, since QueryText may prepare statements.
func (s suite) askSimpleLeavesNothing(t testing.TB) {
	const prepared = `SELECT (SELECT count(*)::text || coalesce(': ' || string_agg(statement, '; '), '') FROM pg_prepared_statements)`
	session := s.open(t)
	for range 3 { // a repeated statement may be prepared
		querySimple(t, session, pidSQL)
		if got := querySimple(t, session, prepared); got != "0" {
			t.Fatalf("prepared statements are left on the session: %s", got)
		}
	}
	if got := querySimple(t, session, `SELECT coalesce((SELECT string_agg(name, ' ') FROM pg_cursors WHERE statement NOT LIKE '%pg_cursors%'), '')`); got != "" {
		t.Errorf("cursors are left on the session: %s", got)
	}
}

func (s suite) askSimpleUntilContextEnds(t testing.TB) {
	holder, session, observer := s.open(t), s.open(t), s.open(t)
	queryText(t, holder, lockSQL)
	pid := querySimple(t, session, pidSQL)
	ctx, cancel := context.WithCancel(context.Background())
	result := make(chan error, 1)
	go func() {
		_, err := session.QueryTextSimple(ctx, lockSQL)
		result <- err
	}()
	awaitWaiting(t, observer, pid)
	cancel()
	select {
	case err := <-result:
		if err == nil {
			t.Fatal("QueryTextSimple acquired a lock held by another session")
		}
		if stateOf(err) != "" {
			if got := queryText(t, session, pidSQL); got != pid {
				t.Errorf("after %v, which has an SQLState, the session changed", err)
			}
		}
	case <-time.After(callTimeout):
		t.Fatal("QueryTextSimple continues after its context has ended")
	}
	session.Close()
	if _, err := session.QueryTextSimple(context.Background(), pidSQL); err == nil || stateOf(err) != "" {
		t.Errorf("QueryTextSimple after Close: %v", err)
	}
	holder.Close()
	s.awaitGone(t, pid)
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

func (s suite) closeEndsTheSession(t testing.TB) {
	session := s.open(t)
	pid := queryText(t, session, pidSQL)
	queryText(t, session, lockSQL)
	if err := session.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	s.awaitGone(t, pid)
	if _, err := session.QueryText(context.Background(), pidSQL); err == nil || stateOf(err) != "" {
		t.Errorf("QueryText after Close: %v", err)
	}
	if err := session.Exec(context.Background(), `SELECT 1`); err == nil || stateOf(err) != "" {
		t.Errorf("Exec after Close: %v", err)
	}
}

func (s suite) closeInsideATransaction(t testing.TB) {
	session := s.open(t)
	pid := queryText(t, session, pidSQL)
	if err := session.Exec(context.Background(), `BEGIN`); err != nil {
		t.Fatal(err)
	}
	queryText(t, session, `SELECT pg_advisory_xact_lock(1885826164)::text`)
	session.Close()
	s.awaitGone(t, pid)
}

func (s suite) closeWhileAskRuns(t testing.TB) {
	holder, session, observer := s.open(t), s.open(t), s.open(t)
	queryText(t, holder, lockSQL)
	pid := queryText(t, session, pidSQL)
	result := make(chan error, 1)
	go func() {
		_, err := session.QueryText(context.Background(), lockSQL)
		result <- err
	}()
	awaitWaiting(t, observer, pid)

	began := time.Now()
	session.Close()
	if took := time.Since(began); took > callTimeout {
		t.Errorf("Close took %v", took)
	}
	select {
	case err := <-result:
		if err == nil {
			t.Error("QueryText acquired a lock held by another session")
		}
	case <-time.After(callTimeout):
		t.Fatal("QueryText continues after Close")
	}
	await(t, observer, "0", `SELECT count(*)::text FROM pg_stat_activity WHERE pid = $1::int`, pid)
	holder.Close()
}

func (s suite) closeTwice(t testing.TB) {
	session := s.open(t)
	pid := queryText(t, session, pidSQL)
	done := make(chan struct{})
	go func() {
		defer close(done)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() { session.Close() })
		}
		wg.Wait()
		session.Close()
	}()
	select {
	case <-done:
	case <-time.After(callTimeout):
		t.Fatal("Close does not return when it is called again")
	}
	s.awaitGone(t, pid)
}

func (s suite) closeAfterLoss(t testing.TB) {
	session, observer := s.open(t), s.open(t)
	pid := queryText(t, session, pidSQL)
	queryText(t, observer, `SELECT pg_terminate_backend($1::int)::text`, pid)
	s.awaitGone(t, pid)
	if _, err := session.QueryText(context.Background(), pidSQL); err == nil {
		t.Error("QueryText succeeds on a session whose backend is gone")
	}
	if _, err := session.QueryText(context.Background(), pidSQL); err == nil || stateOf(err) != "" {
		t.Errorf("QueryText once more: %v", err)
	}
	session.Close()
}

// watch starts Watch. It skips the check if the adapter does not support it.
func watch(ctx context.Context, t testing.TB, session driver.Session) <-chan error {
	t.Helper()
	result := make(chan error, 1)
	go func() { result <- session.Watch(ctx) }()
	select {
	case err := <-result:
		if !errors.Is(err, errors.ErrUnsupported) {
			t.Fatalf("Watch returned at once: %v", err)
		}
		queryText(t, session, pidSQL)
		t.Skipf("no Watch: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	return result
}

func (s suite) watchUntilContextEnds(t testing.TB) {
	session := s.open(t)
	pid := queryText(t, session, pidSQL)
	for range 5 {
		ctx, cancel := context.WithCancel(context.Background())
		result := watch(ctx, t, session)
		cancel()
		select {
		case err := <-result:
			if err != nil {
				t.Fatalf("Watch: %v, want nil when its context ends", err)
			}
		case <-time.After(callTimeout):
			t.Fatal("Watch continues after its context has ended")
		}
		if got := queryText(t, session, pidSQL); got != pid {
			t.Fatalf("the session changed: backend %s, was %s", got, pid)
		}
	}
}

func (s suite) watchUntilLoss(t testing.TB) {
	session, observer := s.open(t), s.open(t)
	pid := queryText(t, session, pidSQL)
	result := watch(context.Background(), t, session)
	queryText(t, observer, `SELECT pg_terminate_backend($1::int)::text`, pid)
	select {
	case err := <-result:
		if err == nil {
			t.Error("Watch: nil although the session is lost")
		}
	case <-time.After(callTimeout):
		t.Fatal("Watch did not notice that the backend was terminated")
	}
	if _, err := session.QueryText(context.Background(), pidSQL); err == nil {
		t.Error("QueryText succeeds on a lost session")
	}
}

func (s suite) closeWhileWatchRuns(t testing.TB) {
	session := s.open(t)
	pid := queryText(t, session, pidSQL)
	result := watch(context.Background(), t, session)
	session.Close()
	select {
	case err := <-result:
		if err == nil {
			t.Error("Watch: nil although the session is closed")
		}
	case <-time.After(callTimeout):
		t.Fatal("Watch continues after Close")
	}
	s.awaitGone(t, pid)
}
