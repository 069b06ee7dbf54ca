package pglocktest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/driver"
)

// Conn tests that the connections returned by open meet the requirements of
// [driver.Conn]: that pglock can lock and set timeouts on them, and that they are in a
// known state after errors, the end of a ctx, and the loss of their session. open opens a
// connection for the test's exclusive use, without a transaction on it, and closes it
// with t.Cleanup. source is for the other sessions that the tests need, in the same
// database, with the same requirements as for [Source]. The tests create tables in it and
// drop them.
func Conn(t *testing.T, source driver.Source, open func(t testing.TB) driver.Conn) {
	run(t, connChecks(source, open))
}

// Tx tests that the transactions that db begins meet the requirements of [driver.Conn]
// and [driver.Tx], and that [pglock.DoTx] and [pglock.DoTables] work with them.
// Everything else is as for [Conn].
func Tx[T any](t *testing.T, source driver.Source, db driver.Beginner[T]) {
	run(t, txChecks(source, db))
}

// A tx is a transaction used by a test.
type tx struct {
	driver.Conn
	commit, rollback func(context.Context) error
}

// A connSuite has the checks of what runs inside a transaction, however that began.
type connSuite struct {
	source driver.Source
	begin  func(context.Context, testing.TB) (tx, error)
}

func (s connSuite) checks() []check {
	return []check{
		{"OneSession", s.oneSession},
		{"SeveralStatements", s.severalStatements},
		{"StatementsAsTheyAre", s.statementsAsTheyAre},
		{"Parameters", s.parameters},
		{"Rows", s.rows},
		{"Nulls", s.nulls},
		{"ErrorsHaveSQLState", s.errorsHaveSQLState},
		{"ErrorsAmongRows", s.errorsAmongRows},
		{"RowsClosedEarly", s.rowsClosedEarly},
		{"SavepointsAfterErrors", s.savepointsAfterErrors},
		{"Commit", s.commit},
		{"Rollback", s.rollback},
		{"LockTx", s.lockTx},
		{"TryLockTx", s.tryLockTx},
		{"LockTxWaits", s.lockTxWaits},
		{"LockAllTx", s.lockAllTx},
		{"LockTables", s.lockTables},
		{"WithLockTimeout", s.withLockTimeout},
		{"InTransaction", s.inTransaction},
		{"ContextEndsAWait", s.contextEndsAWait},
		{"SessionIsLost", s.sessionIsLost},
	}
}

// start begins a transaction that ends with the test.
func (s connSuite) start(t testing.TB) tx {
	t.Helper()
	ctx, cancel := timeoutCtx()
	defer cancel()
	tx, err := s.begin(context.WithoutCancel(ctx), t)
	if err != nil {
		t.Fatalf("begin: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := timeoutCtx()
		defer cancel()
		_ = tx.rollback(ctx) // it may have ended
	})
	return tx
}

// table creates a table with a column n until the end of the test.
func (s connSuite) table(t testing.TB) string {
	t.Helper()
	return s.tableNamed(t, "pglocktest")
}

func (s connSuite) tableNamed(t testing.TB, name string) string {
	t.Helper()
	session, _ := open(t, s.source)
	exec(t, session, `DROP TABLE IF EXISTS `+name+`; CREATE TABLE `+name+` (n bigint)`)
	t.Cleanup(func() {
		ctx, cancel := timeoutCtx()
		defer cancel()
		if err := session.Exec(ctx, `SET lock_timeout = '10s'; DROP TABLE `+name); err != nil {
			t.Errorf("the table is still in use after the test: %v", err)
		}
		session.Close()
	})
	return name
}

// count returns how many rows another session sees in a table.
func (s connSuite) count(t testing.TB, table string) string {
	t.Helper()
	session, _ := open(t, s.source)
	defer session.Close()
	return queryValue(t, session, `SELECT count(*)::text FROM `+table)
}

// exec runs statements that must succeed.
func exec(t testing.TB, conn driver.Conn, sql string, args ...any) {
	t.Helper()
	ctx, cancel := timeoutCtx()
	defer cancel()
	if err := conn.Exec(ctx, sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// fails runs statements that must fail with the given SQLSTATE.
func fails(t testing.TB, conn driver.Conn, state, sql string) {
	t.Helper()
	ctx, cancel := timeoutCtx()
	defer cancel()
	if err := conn.Exec(ctx, sql); stateOf(err) != state {
		t.Errorf("%s: %v, want an error with SQLState %s, found by errors.As", sql, err, state)
	}
}

// queryAll returns the rows of a query, one text each, separated by spaces.
func queryAll(conn driver.Conn, sql string, args ...any) (string, error) {
	ctx, cancel := timeoutCtx()
	defer cancel()
	rows, err := conn.Query(ctx, sql, args...)
	if err != nil {
		return "", err
	}
	defer rows.Close()
	var all []string
	for rows.Next() {
		var text string
		if err := rows.Scan(&text); err != nil {
			return "", err
		}
		all = append(all, text)
	}
	if err := rows.Err(); err != nil {
		return strings.Join(all, " "), err
	}
	return strings.Join(all, " "), rows.Close()
}

// want checks the result of a query.
func want(t testing.TB, conn driver.Conn, want, sql string, args ...any) {
	t.Helper()
	got, err := queryAll(conn, sql, args...)
	if err != nil || got != want {
		t.Errorf("%s: %.200q, %v, want %.200q", sql, got, err, want)
	}
}

// pid returns the backend's process ID.
func pid(t testing.TB, conn driver.Conn) string {
	t.Helper()
	pid, err := queryAll(conn, pidSQL)
	if err != nil || pid == "" {
		t.Fatalf("%s: %q, %v", pidSQL, pid, err)
	}
	return pid
}

func (s connSuite) oneSession(t testing.TB) {
	one, other := s.start(t), s.start(t)
	first := pid(t, one)
	if pid(t, other) == first {
		t.Errorf("two open transactions share one session, backend %s", first)
	}
	for range 3 {
		exec(t, one, `SELECT 1`)
		exec(t, one, `SELECT $1::bigint`, int64(1))
		want(t, one, first, pidSQL)
	}
}

func (s connSuite) severalStatements(t testing.TB) {
	table := s.table(t)
	tx := s.start(t)
	exec(t, tx, `INSERT INTO `+table+` VALUES (1); SELECT 1; INSERT INTO `+table+` SELECT max(n) + 1 FROM `+table)
	want(t, tx, "1 2", `SELECT n::text FROM `+table+` ORDER BY n`)
	// The last of them fails, or one in the middle.
	for _, sql := range []string{`SELECT 1; SELECT 1/0`, `SELECT 1; SELECT 1/0; SELECT 1`} {
		exec(t, tx, `SAVEPOINT a`)
		fails(t, tx, "22012", sql)
		exec(t, tx, `ROLLBACK TO SAVEPOINT a; RELEASE SAVEPOINT a`)
	}
	want(t, tx, "2", `SELECT count(*)::text FROM `+table)
}

// statementsAsTheyAre checks statements with characters that a library could interpret
// itself.
func (s connSuite) statementsAsTheyAre(t testing.TB) {
	tx := s.start(t)
	want(t, tx, `?{}:a@b%s\`, `SELECT '?{}:a@b%s\'`)
	want(t, tx, `?:a@ba`, `SELECT '?:a@b' || $1::text`, "a")
	want(t, tx, "true", `SELECT ('{"a": 1}'::jsonb ? 'a')::text`)
	exec(t, tx, `SELECT '?', '{}', ':a', '@b'; DO $body$BEGIN PERFORM 1; END$body$ -- ? $1`)
}

func (s connSuite) parameters(t testing.TB) {
	table := s.table(t)
	tx := s.start(t)
	for _, text := range []string{"", "a", "ü 日本 🔒", `'"\$1`, strings.Repeat("long", 5000)} {
		want(t, tx, text, `SELECT $1::text`, text)
	}
	want(t, tx, "-7 true b", `SELECT unnest(ARRAY[$1::bigint::text, $2::bool::text, $3::text])`, int64(-7), true, "b")
	want(t, tx, "9223372036854775807", `SELECT $1::bigint::text`, int64(1<<63-1))
	exec(t, tx, `INSERT INTO `+table+` VALUES ($1::bigint), ($2::bigint)`, int64(-1), int64(5))
	want(t, tx, "-1 5", `SELECT n::text FROM `+table+` ORDER BY n`)
}

func (s connSuite) rows(t testing.TB) {
	tx := s.start(t)
	ctx, cancel := timeoutCtx()
	defer cancel()
	rows, err := tx.Query(ctx, `SELECT i, i::text, i > 1, '\x6200'::bytea, '2026-01-02 03:04:05+00'::timestamptz
		FROM generate_series(1::bigint, 3) AS s (i) ORDER BY s.i DESC`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var got []string
	for rows.Next() {
		var (
			n     int64
			text  string
			more  bool
			bytes []byte
			at    time.Time
		)
		if err := rows.Scan(&n, &text, &more, &bytes, &at); err != nil {
			t.Fatalf("scan into an int64, a string, a bool, bytes and a time: %v", err)
		}
		got = append(got, fmt.Sprintf("%d %s %t %v %d", n, text, more, bytes, at.Unix()))
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		t.Fatal(err)
	}
	if err := rows.Close(); err != nil {
		t.Errorf("closed again: %v", err)
	}
	const wanted = `3 3 true [98 0] 1767323045, 2 2 true [98 0] 1767323045, 1 1 false [98 0] 1767323045`
	if got := strings.Join(got, ", "); got != wanted {
		t.Errorf("got  %s\nwant %s", got, wanted)
	}
	want(t, tx, "", `SELECT 'none' WHERE false`)
	want(t, tx, "5000", `SELECT count(*)::text FROM generate_series(1, 5000)`)
}

func (s connSuite) nulls(t testing.TB) {
	tx := s.start(t)
	ctx, cancel := timeoutCtx()
	defer cancel()
	rows, err := tx.Query(ctx, `SELECT NULL::text, 'a'::text, ($1::text IS NULL)`, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var (
		none = new(string)
		some *string
		null bool
	)
	if !rows.Next() {
		t.Fatalf("no row: %v", rows.Err())
	}
	if err := rows.Scan(&none, &some, &null); err != nil {
		t.Fatalf("scan into pointers: %v", err)
	}
	if none != nil || some == nil || *some != "a" || !null {
		t.Errorf("NULL was read as %v, text as %v; nil sent as NULL: %v", none, some, null)
	}
	rows.Close()
	if got, err := queryAll(tx, `SELECT NULL::text`); err == nil {
		t.Errorf("NULL was read into a string, as %q", got)
	}
}

func (s connSuite) errorsHaveSQLState(t testing.TB) {
	table := s.table(t)
	tx := s.start(t)
	exec(t, tx, `CREATE UNIQUE INDEX ON `+table+` (n); INSERT INTO `+table+` VALUES (1)`)
	for sql, state := range map[string]string{
		`SELEKT 1`:                             "42601",
		`SELECT 1 FROM nope`:                   "42P01",
		`SELECT 1 / $1::int`:                   "22012",
		`INSERT INTO ` + table + ` VALUES (1)`: "23505",
		`SELECT 'a'::int`:                      "22P02",
		`DO $$BEGIN RAISE 'no' USING ERRCODE = 'PGLCK'; END$$`: "PGLCK",
	} {
		var args []any
		if strings.Contains(sql, "$1") {
			args = []any{0}
		}
		for name, do := range map[string]func() error{
			"Exec": func() error {
				ctx, cancel := timeoutCtx()
				defer cancel()
				return tx.Exec(ctx, sql, args...)
			},
			"Query": func() error { _, err := queryAll(tx, sql, args...); return err },
		} {
			exec(t, tx, `SAVEPOINT a`)
			if err := do(); stateOf(err) != state {
				t.Errorf("%s: %s: %v, want an error with SQLState %s, found by errors.As", name, sql, err, state)
			}
			exec(t, tx, `ROLLBACK TO SAVEPOINT a; RELEASE SAVEPOINT a`)
		}
	}
}

func (s connSuite) errorsAmongRows(t testing.TB) {
	tx := s.start(t)
	// Enough rows for some of them to arrive before the error.
	got, err := queryAll(tx, `SELECT (1 / (4000 - n))::text || repeat(' ', 100) FROM generate_series(1, 5000) n`)
	if stateOf(err) != "22012" {
		t.Errorf("rows ended by an error: %d bytes and %v, want SQLState 22012", len(got), err)
	}
}

func (s connSuite) rowsClosedEarly(t testing.TB) {
	tx := s.start(t)
	was := pid(t, tx)
	for range 3 {
		ctx, cancel := timeoutCtx()
		rows, err := tx.Query(ctx, `SELECT n::text FROM generate_series(1, 5000) n`)
		if err != nil {
			t.Fatal(err)
		}
		rows.Next()
		rows.Close()
		cancel()
		want(t, tx, was, pidSQL)
	}
}

func (s connSuite) savepointsAfterErrors(t testing.TB) {
	table := s.table(t)
	tx := s.start(t)
	was := pid(t, tx)
	exec(t, tx, `INSERT INTO `+table+` VALUES (1)`)
	exec(t, tx, `SAVEPOINT a; INSERT INTO `+table+` VALUES (2)`)
	fails(t, tx, "22012", `SELECT 1/0`)
	fails(t, tx, "25P02", `SELECT 1`) // the adapter did not roll back by itself
	if _, err := queryAll(tx, `SELECT 'a'`); stateOf(err) != "25P02" {
		t.Errorf("a query in an aborted transaction: %v, want SQLState 25P02", err)
	}
	exec(t, tx, `ROLLBACK TO SAVEPOINT a; RELEASE SAVEPOINT a`)
	want(t, tx, was, pidSQL)
	exec(t, tx, `INSERT INTO `+table+` VALUES (3)`)
	want(t, tx, "1 3", `SELECT n::text FROM `+table+` ORDER BY n`)
}

func (s connSuite) commit(t testing.TB) {
	table := s.table(t)
	outside := Key(t, s.source, key())
	tx := s.start(t)
	ctx, cancel := timeoutCtx()
	defer cancel()
	if err := pglock.LockTx(ctx, tx, key()); err != nil {
		t.Fatal(err)
	}
	exec(t, tx, `INSERT INTO `+table+` VALUES (1)`)
	if got := s.count(t, table); got != "0" {
		t.Errorf("another session sees %s rows before the commit", got)
	}
	if err := tx.commit(ctx); err != nil {
		t.Fatal(err)
	}
	outside.WantFree()
	if got := s.count(t, table); got != "1" {
		t.Errorf("another session sees %s rows after the commit, want 1", got)
	}
}

func (s connSuite) rollback(t testing.TB) {
	table := s.table(t)
	outside := Key(t, s.source, key())
	ctx, cancel := timeoutCtx()
	defer cancel()
	for _, sql := range []string{`SELECT 1`, `SELECT 1/0`} { // also of an aborted transaction
		tx := s.start(t)
		if err := pglock.LockTx(ctx, tx, key()); err != nil {
			t.Fatal(err)
		}
		exec(t, tx, `INSERT INTO `+table+` VALUES (1)`)
		_ = tx.Exec(ctx, sql)
		if err := tx.rollback(ctx); err != nil {
			t.Fatal(err)
		}
		outside.WantFree()
		if got := s.count(t, table); got != "0" {
			t.Errorf("another session sees %s rows after the rollback", got)
		}
	}
}
