package inspect_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/internal/pgserver"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
	"github.com/pglock-go/pglock/pgxlock"
)

// hostileNames are names with special characters that tables, roles and the like can
// have.
var hostileNames = []string{
	`a"b`, `"`, `""`, `a.b`, `a;b`, `a'b`, `a\b`, `$$`, `%s%n%`, `:'x'`, `$1`, "new\nline", "tab\t", "\r", " ", " lead", "UPPER",
	`x"; DROP TABLE victim; --`, `*/ DROP TABLE victim /*`, "esc\x1b[31m", "\u009b", "bidi\u202e", "zero\u200bwidth", "\ufeff",
	"K", "ſ", "İ", "é", "e\u0301", "日本", "\U0001f512", "שלום",
	strings.Repeat("x", 63), strings.Repeat("é", 31) + "x", "select", "NULL", "{a,b}", "(a,b)", `a,b`, "<x>", "=cmd()",
}

// bare returns a filter for a name as it is, or in quotes if it looks like SQL.
func bare(field, name string) (inspect.Filter, error) {
	f, err := inspect.ParseFilter(field + "=" + name)
	if name != strings.TrimSpace(name) { // which is not part of a value without quotes
		return inspect.ParseFilter(field + "='" + name + "'")
	}
	if errors.Is(err, inspect.ErrFilter) && strings.Contains(err.Error(), field+" = '"+strings.ReplaceAll(name, "'", "''")) {
		return inspect.ParseFilter(field + "='" + strings.ReplaceAll(name, "'", "''") + "'")
	}
	return f, err
}

// Tables with these names are shown and found.
func TestHostileNames(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	setup := s.session("setup").do("CREATE TABLE victim ()")
	a := s.session("a").do("BEGIN")
	for _, name := range hostileNames {
		table := pgx.Identifier{name, name}.Sanitize()
		setup.do("CREATE SCHEMA "+pgx.Identifier{name}.Sanitize(), "CREATE TABLE "+table+" ()")
		a.do("LOCK TABLE " + table + " IN SHARE MODE")
	}
	for _, name := range hostileNames {
		for what, filters := range map[string][]inspect.Filter{
			"on":     {inspect.On(pgx.Identifier{name, name}.Sanitize())},
			"equal":  {inspect.Where("relation", "=", name), inspect.Where("schema", "=", name)},
			"quoted": {must(t)(inspect.ParseFilter("relation='" + strings.ReplaceAll(name, "'", "''") + "'"))},
			"parsed": {must(t)(bare("relation", name))},
			"query":  {inspect.Where("query", "!=", name), inspect.On(pgx.Identifier{name, name}.Sanitize())},
		} {
			if what == "parsed" && name != strings.TrimSpace(name) {
				continue // space around a value is not part of it
			}
			locks, err := inspect.Locks(t.Context(), s.q, filters...)
			if err != nil || len(locks) != 1 || locks[0].Relation != name || locks[0].Schema != name || locks[0].PID != a.pid {
				t.Errorf("%s %q: %v, %v", what, name, locks, err)
			}
		}
	}
	all, err := inspect.ReadSnapshot(t.Context(), s.q)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range hostileNames {
		if !slices.ContainsFunc(all.Locks, func(l inspect.Lock) bool { return l.Relation == name && l.Schema == name }) {
			t.Errorf("%q is not in the snapshot", name)
		}
	}
	setup.do("SELECT FROM victim")
}

func must(t *testing.T) func(inspect.Filter, error) inspect.Filter {
	return func(f inspect.Filter, err error) inspect.Filter {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
}

// An invalid filter is an ErrFilter before the server is asked, and the error is not
// as long as the filter.
func TestHostileFilters(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.session("a").do("CREATE TABLE "+strings.Repeat("x", 63)+" ()", "BEGIN", "LOCK TABLE "+strings.Repeat("x", 63))
	long := strings.Repeat("x", 1<<20)
	for name, f := range map[string]inspect.Filter{
		"NUL":                 inspect.Where("application", "=", "a\x00b"),
		"NUL in a pattern":    inspect.Where("query", "~", "a\x00b"),
		"NUL in a context":    inspect.Where("context.a", "=", "\x00"),
		"no UTF-8":            inspect.Where("user", "=", "\xff"),
		"no UTF-8, a pattern": inspect.Where("relation", "!~", "a\xc3"),
		"table with NUL":      inspect.On("a\x00b"),
		"table, no UTF-8":     inspect.On("\xff"),
		"empty table":         inspect.On(""),
		"space for a table":   inspect.On(" "),
		"open quote":          inspect.On(`"a`),
		"three parts":         inspect.On("a.b.c"),
		"empty part":          inspect.On("a..b"),
		"statement":           inspect.On("pg_class; SELECT 1"),
		"one byte too long":   inspect.On(strings.Repeat("x", 64)),
		"too long in quotes":  inspect.On(`pg_catalog."` + strings.Repeat("é", 32) + `"`),
		"long table":          inspect.On(long),
		"long field":          inspect.Where(long, "=", "x"),
		"long operator":       inspect.Where("pid", long, "x"),
		"long number":         inspect.Where("pid", "=", long),
		"long mode":           inspect.Where("mode", "=", long),
		"long time":           inspect.Where("query_start", "<", long),
		"long duration":       inspect.Where("duration", "<", long),
		"broken pattern":      inspect.Where("query", "~", "("),
		"broken pattern here": inspect.Where("relation", "~", "[z-a]"),
	} {
		locks, err := inspect.Locks(t.Context(), s.q, f)
		if !errors.Is(err, inspect.ErrFilter) {
			t.Errorf("%s: %d locks, %v", name, len(locks), err)
		} else if len(err.Error()) > 3000 {
			t.Errorf("%s: an error of %d bytes", name, len(err.Error()))
		}
	}
	// A value that is merely odd matches nothing, or itself.
	for _, value := range []string{"", long, "\u202e", "\u200b", "'", `\`, `"`, "%", "--", "/*"} {
		locks, err := inspect.Locks(t.Context(), s.q, inspect.Where("application", "=", value))
		if err != nil {
			t.Errorf("%.20q: %v", value, err)
		}
		if slices.ContainsFunc(locks, func(l inspect.Lock) bool { return l.Application != value }) {
			t.Errorf("%.20q: %v", value, locks)
		}
	}
	for _, table := range []string{strings.Repeat("x", 63), ` public . "` + strings.Repeat("x", 63) + `" `, strings.Repeat("X", 63)} {
		locks, err := inspect.Locks(t.Context(), s.q, inspect.On(table))
		if err != nil || len(locks) != 1 {
			t.Errorf("%s: %v, %v", table, locks, err)
		}
	}
}

// The comments of one session do not prevent inspecting the others.
func TestHostileContext(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.session("json").do(`/*pga_context={"a": "\u0000\ud800x"}*/ SELECT pg_advisory_lock(1)`)
	s.session("url").do("SELECT pg_advisory_lock(2) /*a='%00%ff%1bx'*/")
	s.session("deep").do(`/*pga_context={"a": ` + strings.Repeat("[", 400) + strings.Repeat("]", 400) + `}*/ SELECT pg_advisory_lock(3)`)
	for _, f := range []inspect.Filter{
		inspect.Where("context.a", "~", "x$"), inspect.Where("context.a", "!~", "^y"), inspect.Where("context", "~", "a"), inspect.Where("context.a", "!=", "x"),
	} {
		locks, err := inspect.Locks(t.Context(), s.q, f, inspect.Where("type", "=", "advisory"))
		if err != nil || !slices.ContainsFunc(locks, func(l inspect.Lock) bool { return l.Application == "url" }) || !slices.ContainsFunc(locks, func(l inspect.Lock) bool { return l.Application == "json" }) {
			t.Errorf("%s: %v, %v", f, locks, err)
		}
	}
}

// A context is what Postgres reads in the comment, as far as Postgres can, and never
// more than others can read.
func TestContextsInPostgres(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	a := s.session("a").do("SELECT pg_advisory_lock(1)")
	in := func(sql string, args ...any) (text *string) {
		t.Helper()
		if err := s.eye.QueryRow(t.Context(), sql, args...).Scan(&text); err != nil {
			t.Errorf("%s %q: %v", sql, args, err)
		}
		return text
	}
	contextOf := func(comment string) inspect.Context {
		t.Helper()
		a.do("/*pga_context=" + comment + "*/ SELECT 1")
		locks, err := inspect.Locks(t.Context(), s.q, inspect.PIDs(a.pid))
		if err != nil || len(locks) != 1 {
			t.Fatal(locks, err)
		}
		return locks[0].Context
	}
	for _, comment := range []string{
		`{"n": 3, "deep": {"a": [1, null]}}`, `{"a": [[], {}, "", " x ", -1.50, 1E+5, true, false, {"b": ["c", {"d": "e"}]}]}`,
		`{"a": 1, "b": {"c": 1, "c": [2]}, "a": {"b": "last"}}`, `{"é": "ü\"\\\/\t\u00e9\ud83d\udd12", "1": {"-1": "x"}}`, ` { "a" : 12345678901234567890.10 } `,
	} {
		context := contextOf(comment)
		if same := in("SELECT CAST(CAST($1 AS jsonb) = CAST($2 AS jsonb) AS text)", comment, string(context)); same == nil || *same != "true" {
			t.Errorf("%s becomes %s", comment, context)
		}
		for _, path := range []string{
			"n", "deep", "deep.a", "deep.a.0", "deep.a.1", "deep.a.2", "deep.a.-1", "deep.a.-2", "deep.a.x", "a", "a.0", "a.1", "a.2", "a.3", "a.4", "a.5",
			"a.6", "a.8.b.1.d", "a.-1.b.-2", "a.b", "b.c", "b.c.0", "é", "1.-1", "no", "n.0",
		} {
			want := in("SELECT CAST(CAST($1 AS json) #>> string_to_array($2, '.') AS text)", comment, path)
			got, ok := context.Lookup(path)
			if ok != (want != nil) {
				t.Errorf("%s of %s: %q, %v", path, comment, got, ok)
				continue
			}
			if ok && got != *want && *in("SELECT CAST(CAST($1 AS jsonb) = CAST($2 AS jsonb) AS text)", got, *want) != "true" {
				t.Errorf("%s of %s is %q, in Postgres %q", path, comment, got, *want)
			}
		}
	}
	for _, comment := range []string{
		`{"a": "\u0000", "\u0000": "\ud800", "\udfff": "\udc00\ud83d"}`, `{"a": 1e99999, "b": -1e99999, "c": 1e-99999, "d": -0e-99999, "e": 0.0, "f": 5e-324}`, `{"a": 1` + strings.Repeat("0", 500) + `}`, `{"a": "<>&\u2028"}`,
	} {
		context := contextOf(comment)
		if context == "" || in("SELECT CAST(CAST($1 AS jsonb) AS text)", string(context)) == nil {
			t.Errorf("%s becomes %q", comment, context)
		}
	}
	for _, comment := range []string{`{"a": 1,}`, `{"a"}`, `{a: 1}`, `{"a": NaN}`, `{"a": 01}`, `[1]`, `null`, `"x"`, ``, `{"a": 1} {"b": 2}`, `{"a": "\x"}`, "{\"a\": \"\n\"}"} {
		if context := contextOf(comment); context != "" {
			t.Errorf("%s becomes %s", comment, context)
		}
	}
}

// Names of roles and databases are bytes in the encoding of the database in which
// they were created, which other databases do not know.
func TestOtherEncodings(t *testing.T) {
	t.Parallel()
	server := pgtest.Own(t, pgserver.Options{})
	s := newSceneIn(t, server.ConnString("postgres"))
	s.session("setup").do("CREATE DATABASE latin ENCODING LATIN1 TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'",
		"CREATE DATABASE ascii ENCODING SQL_ASCII TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'")
	s.sessionIn(server.ConnString("latin")+" client_encoding=UTF8", "setup").do(`CREATE ROLE "café" LOGIN SUPERUSER`, `CREATE DATABASE "café"`)
	latin := s.sessionIn(server.ConnString("caf\xe9")+" user='caf\xe9'", "latin")
	latin.do("CREATE TABLE t ()", "BEGIN", "LOCK TABLE t /* café */")
	ascii := s.sessionIn(server.ConnString("ascii")+" client_encoding=SQL_ASCII", "ascii")
	ascii.do("CREATE TABLE \"\xe9\" ()", "BEGIN", "LOCK TABLE \"\xe9\" /* \xff\xe9 */")
	dsns := []string{server.ConnString("postgres"), server.ConnString("latin"), server.ConnString("ascii")}
	for i, dsn := range slices.Concat(dsns, dsns) {
		eye := newSceneIn(t, dsn)
		eye.q, _ = guard(t, eye.me)
		if i >= len(dsns) { // as if a pooler lent the session
			eye.q, _ = guard(t, lent{pgxlock.Conn(eye.eye)})
		}
		for what, filters := range map[string][]inspect.Filter{
			"all": {inspect.Where("mode", "=", "AccessExclusiveLock")}, "text": {inspect.Where("application", "!=", "é"), inspect.Where("user", "!~", "^x")},
			"query": {inspect.Where("query", "~", "LOCK")}, "context": {inspect.Where("context", "!~", "é")},
		} {
			locks, err := inspect.Locks(t.Context(), eye.q, filters...)
			if err != nil {
				t.Errorf("%s: %s: %v", dsn, what, err)
			}
			for _, pid := range []int32{latin.pid, ascii.pid} {
				if !slices.ContainsFunc(locks, func(l inspect.Lock) bool { return l.PID == pid && l.Mode == "AccessExclusiveLock" }) {
					t.Errorf("%s: %s: %d is not there: %v", dsn, what, pid, locks)
				}
			}
		}
		if _, err := inspect.ReadSnapshot(t.Context(), eye.q); err != nil {
			t.Error(dsn, err)
		}
		// And their sessions are identified when they are ended.
		locks, err := inspect.Locks(t.Context(), eye.q, inspect.PIDs(latin.pid, ascii.pid))
		if err != nil {
			t.Fatal(err)
		}
		outcomes, err := inspect.Terminate(t.Context(), eye.q, inspect.SessionsOf(locks), inspect.DryRun())
		if err != nil || len(outcomes) != 2 {
			t.Fatal(dsn, outcomes, err)
		}
		for _, o := range outcomes {
			if !o.Signaled {
				t.Errorf("%s: %s", dsn, fmt.Sprint(o.Reason, " ", o.Detail))
			}
		}
	}
}
