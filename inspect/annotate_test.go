package inspect_test

import (
	"context"
	"database/sql"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/inspect/pgxannotate"
	"github.com/pglock-go/pglock/inspect/sqlannotate"
)

func TestComment(t *testing.T) {
	ctx := context.Background()
	if got := inspect.Comment(ctx, "SELECT 1"); got != "SELECT 1" {
		t.Errorf("without a note: %s", got)
	}
	ctx = inspect.Annotate(ctx, "route", "/a b?c=*/'--")
	outer := ctx
	ctx = inspect.Annotate(ctx, "action", "run")
	ctx = inspect.Annotate(ctx, "route", "/x")
	if got, want := inspect.Comment(ctx, "SELECT 1"), "SELECT 1 /*action='run',route='%2Fx'*/"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if got, want := inspect.Comment(outer, "SELECT 1"), "SELECT 1 /*route='%2Fa%20b%3Fc%3D%2A%2F%27--'*/"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	long := "SELECT '" + strings.Repeat("x", 1000) + "'"
	if got := inspect.Comment(ctx, long); got != "/*action='run',route='%2Fx'*/ "+long {
		t.Errorf("a long statement: %s", got)
	}
}

// text returns the value at path, or "" if there is none.
func text(c inspect.Context, path string) string {
	text, _ := c.Lookup(path)
	return text
}

func TestDjangoComment(t *testing.T) {
	ctx := inspect.Annotate(inspect.Annotate(t.Context(), "job", "nightly"), "url", "/a*/ 'b' \x00é🔒")
	const want = `/*pga_context={"job": "nightly", "url": "/a\u002a/ \u0027b\u0027 \ufffd\u00e9\ud83d\udd12"}*/` + "\nSELECT 1"
	if got := inspect.Comment(ctx, "SELECT 1", inspect.DjangoComment()); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if got := inspect.Comment(t.Context(), "SELECT 1", inspect.DjangoComment()); got != "SELECT 1" {
		t.Errorf("without a note: %s", got)
	}
}

func TestTraceparent(t *testing.T) {
	const trace, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
	valid := "00-" + trace + "-" + parent + "-01"
	for _, value := range []string{valid, "01-" + trace + "-" + parent + "-01-later", "cc-" + trace + "-" + parent + "-00"} {
		if got := inspect.Comment(inspect.Annotate(t.Context(), "traceparent", value), "SELECT 1"); got != "SELECT 1 /*traceparent='"+value+"'*/" {
			t.Errorf("%s: %s", value, got)
		}
	}
	for _, value := range []string{
		"", "x", valid + " ", " " + valid, valid + "\n", valid + "-x", strings.ToUpper(valid), "ff-" + trace + "-" + parent + "-01",
		"00-" + strings.Repeat("0", 32) + "-" + parent + "-01", "00-" + trace + "-" + strings.Repeat("0", 16) + "-01",
		"00-" + trace[1:] + "-" + parent + "-01", "00-" + trace + "-" + parent + "-1", "01-" + trace + "-" + parent + "-01-" + strings.Repeat("x", 300),
		"01-" + trace + "-" + parent + "-01x", valid + "," + valid,
	} {
		if got := inspect.Comment(inspect.Annotate(t.Context(), "traceparent", value), "SELECT 1"); got != "SELECT 1" {
			t.Errorf("%q: %s", value, got)
		}
		// It does not replace a valid one.
		if got := inspect.Comment(inspect.Annotate(inspect.Annotate(t.Context(), "traceparent", valid), "traceparent", value), "SELECT 1"); !strings.Contains(got, valid) {
			t.Errorf("%q: %s", value, got)
		}
	}
}

// The annotations of a ctx are shown with the locks, through each driver and in both
// forms.
func TestAnnotate(t *testing.T) {
	s := newScene(t)
	awkward := `it's */ 100% "é" \` + "\n"
	ctx := inspect.Annotate(inspect.Annotate(t.Context(), "job", "nightly"), "awkward", awkward)
	forms := map[string][]inspect.CommentOption{"": nil, " for Django": {inspect.DjangoComment()}}
	check := func(t *testing.T, key, query string) {
		t.Helper()
		locks, err := inspect.Locks(t.Context(), s.q, inspect.Where("key", "=", key))
		if err != nil || len(locks) != 1 {
			t.Fatal(locks, err)
		}
		if l := locks[0]; text(l.Context, "job") != "nightly" || text(l.Context, "awkward") != awkward || l.Query != query {
			t.Errorf("the context is %q, the query %q", l.Context, l.Query)
		}
		locks, err = inspect.Locks(t.Context(), s.q, inspect.Where("key", "=", key), inspect.Where("context.job", "=", "nightly"))
		if err != nil || len(locks) != 1 {
			t.Error(locks, err)
		}
	}
	for name, form := range forms {
		t.Run("pgx"+name, func(t *testing.T) { annotatePgx(ctx, t, s, form, check) })
		t.Run("database/sql"+name, func(t *testing.T) { annotateSQL(ctx, t, s, form, check) })
	}
}

func annotatePgx(ctx context.Context, t *testing.T, s *scene, form []inspect.CommentOption, check func(t *testing.T, key, query string)) {
	pool, err := pgxpool.New(t.Context(), s.dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	db := pgxannotate.DB(pool, form...)
	const query = "SELECT pg_advisory_lock($1::int)"
	if _, err := db.Exec(ctx, query, 1); err != nil {
		t.Fatal(err)
	}
	check(t, "1", query)
	rows, err := db.Query(ctx, query, 1)
	if err != nil {
		t.Fatal(err)
	}
	rows.Close()
	check(t, "1", query)
	if err := db.QueryRow(ctx, "SELECT pg_advisory_lock(@key)::text", pgx.NamedArgs{"key": 1}).Scan(nil); err != nil {
		t.Fatal(err)
	}
	check(t, "1", "SELECT pg_advisory_lock($1)::text")
	if err := db.QueryRow(ctx, query, pgx.QueryExecModeSimpleProtocol, 1).Scan(nil); err != nil {
		t.Fatal(err)
	}
	var prepared int
	if err := pool.QueryRow(t.Context(), "SELECT count(*) FROM pg_prepared_statements WHERE statement ~ 'nightly'", pgx.QueryExecModeExec).Scan(&prepared); err != nil || prepared != 0 {
		t.Errorf("%d statements with comments are prepared, %v", prepared, err)
	}
}

func annotateSQL(ctx context.Context, t *testing.T, s *scene, form []inspect.CommentOption, check func(t *testing.T, key, query string)) {
	pool, err := sql.Open("pgx", s.dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	pool.SetMaxOpenConns(1)
	db := sqlannotate.DB(pool, form...)
	const query = "SELECT pg_advisory_lock(2)"
	if _, err := db.ExecContext(ctx, query); err != nil {
		t.Fatal(err)
	}
	check(t, "2", query)
	rows, err := db.QueryContext(ctx, query+" -- again")
	if err != nil {
		t.Fatal(err)
	}
	rows.Close()
	check(t, "2", query+" -- again")
	if err := db.QueryRowContext(ctx, query+"::text").Scan(new(sql.NullString)); err != nil {
		t.Fatal(err)
	}
	check(t, "2", query+"::text")
}
