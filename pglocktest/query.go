package pglocktest

import (
	"context"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pglock-go/pglock/driver"
)

func (s suite) queryText(t testing.TB) {
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

func (s suite) queryTextAfterServerError(t testing.TB) {
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

func (s suite) queryTextForOneValue(t testing.TB) {
	for _, sql := range []string{`SELECT 'a' WHERE false`, `SELECT NULL::text`, `SELECT 'a' UNION ALL SELECT 'b'`} {
		session := s.open(t)
		if got, err := session.QueryText(context.Background(), sql); err == nil {
			t.Errorf("%s: returned %q, want an error", sql, got)
		} else if stateOf(err) != "" {
			t.Errorf("%s: an error with an SQLState that Postgres did not send: %v", sql, err)
		}
	}
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

func (s suite) queryTextSimpleAfterServerError(t testing.TB) {
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

func (s suite) queryTextSimpleForOneValue(t testing.TB) {
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

// queryTextSimpleLeavesNothing uses only QueryTextSimple, since QueryText may prepare statements.
func (s suite) queryTextSimpleLeavesNothing(t testing.TB) {
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

// untilContextEnds checks that query, which is QueryText or QueryTextSimple of a session,
// returns when its context ends.
func (s suite) untilContextEnds(t testing.TB, name string, query func(context.Context, driver.Session, string) (string, error)) {
	holder, session, observer := s.open(t), s.open(t), s.open(t)
	queryText(t, holder, lockSQL)
	holderPID, pid := queryText(t, holder, pidSQL), querySimple(t, session, pidSQL)

	ctx, cancel := context.WithCancel(context.Background())
	result := make(chan error, 1)
	go func() {
		_, err := query(ctx, session, lockSQL)
		result <- err
	}()
	awaitWaiting(t, observer, pid)
	cancel()
	select {
	case err := <-result:
		if err == nil {
			t.Fatalf("%s acquired a lock held by another session", name)
		}
		if stateOf(err) != "" {
			if got := queryText(t, session, pidSQL); got != pid {
				t.Errorf("after %v, which has an SQLState, the session changed", err)
			}
		}
	case <-time.After(callTimeout):
		t.Fatalf("%s continues after its context has ended", name)
	}
	session.Close()
	if _, err := query(context.Background(), session, pidSQL); err == nil || stateOf(err) != "" {
		t.Errorf("%s after Close: %v", name, err)
	}
	holder.Close()
	await(t, observer, "0", `SELECT count(*)::text FROM pg_stat_activity WHERE pid = $1::int`, holderPID)
	s.awaitGone(t, pid)
}

func (s suite) queryTextUntilContextEnds(t testing.TB) {
	s.untilContextEnds(t, "QueryText", func(ctx context.Context, session driver.Session, sql string) (string, error) {
		return session.QueryText(ctx, sql)
	})
}

func (s suite) queryTextSimpleUntilContextEnds(t testing.TB) {
	s.untilContextEnds(t, "QueryTextSimple", func(ctx context.Context, session driver.Session, sql string) (string, error) {
		return session.QueryTextSimple(ctx, sql)
	})
}
