package trace_test

import (
	"context"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
	"github.com/pglock-go/pglock/trace"
)

// Each piece, sent alone, is at most one statement to the server, and is in the text.
func FuzzSplit(f *testing.F) {
	for text := range splits() {
		f.Add(text)
	}
	f.Add("SELECT 1 AS a, '\\'';'; SELECT E'\\\\'; SELECT $a1$;$a1$; SELECT 'a' -- '\n 'b'; SELECT 2")
	f.Add("CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC; SELECT 1; END; SELECT 2")
	f.Add("CREATE OR REPLACE PROCEDURE begin_atomic() LANGUAGE sql AS 'SELECT 1; SELECT 2'; SELECT 3")
	dsn := pgtest.Database(f)
	mustExec(f, connect(f, dsn), "CREATE TABLE t (a int)", "CREATE ROLE trace_fuzz LOGIN")
	conn := connect(f, dsn+" user=trace_fuzz") // of the same keys, the last one counts
	f.Fuzz(func(t *testing.T, text string) {
		if !utf8.ValidString(text) {
			return
		}
		script, err := trace.Parse("f.sql", text, trace.As(trace.Plain))
		if err != nil {
			return
		}
		for _, p := range script.Pieces {
			if n := completed(t, conn, p.SQL); n > 1 {
				t.Fatalf("%q is %d statements", p.SQL, n)
			}
			if !strings.Contains(text, p.SQL) && !strings.Contains(text, `\set`) {
				t.Fatalf("%q is not in %q", p.SQL, text)
			}
		}
	})
}

// completed returns how many statements of a message the server completed. Nothing of
// them lasts.
func completed(t *testing.T, conn *pgx.Conn, sql string) int {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	// A role without privileges, in a transaction that may not write files or connect.
	if _, err := conn.PgConn().Exec(ctx, "ROLLBACK; RESET ALL; SET client_min_messages = error; SET statement_timeout = '1s'; BEGIN READ ONLY").ReadAll(); err != nil {
		t.Fatal(err)
	}
	n := 0
	results := conn.PgConn().Exec(ctx, sql)
	for results.NextResult() {
		reader := results.ResultReader()
		for reader.NextRow() {
		}
		if tag, err := reader.Close(); err == nil && tag.String() != "" {
			n++
		}
	}
	if err := results.Close(); err != nil && conn.IsClosed() {
		t.Fatalf("%q: %v", sql, err)
	}
	return n
}

func connect(t testing.TB, dsn string) *pgx.Conn {
	t.Helper()
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	config.OnNotice = func(*pgconn.PgConn, *pgconn.Notice) {}
	conn, err := pgx.ConnectConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func mustExec(t testing.TB, conn *pgx.Conn, sql ...string) {
	t.Helper()
	for _, s := range sql {
		if _, err := conn.Exec(t.Context(), s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}
