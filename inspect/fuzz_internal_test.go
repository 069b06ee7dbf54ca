package inspect

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/pglock-go/pglock/driver"
)

// told is a server that answers with given rows.
type told struct{ rows [][2]string }

func (q told) Query(context.Context, string, ...any) (driver.Rows, error) {
	return &toldRows{rows: q.rows}, nil
}

type toldRows struct{ rows, rest [][2]string }

func (r *toldRows) Next() bool {
	if r.rest == nil {
		r.rest = r.rows
	} else {
		r.rest = r.rest[1:]
	}
	return len(r.rest) > 0
}

func (r *toldRows) Scan(dest ...any) error {
	*dest[0].(*string), *dest[1].(*string) = r.rest[0][0], r.rest[0][1]
	return nil
}

func (r *toldRows) Err() error   { return nil }
func (r *toldRows) Close() error { return nil }

// Any answer of the server is parsed or is an error: rows are a word, a tab and a
// text, separated by empty lines.
func FuzzReading(f *testing.F) {
	const (
		server  = "server\t{\"version\":\"150000\",\"in_recovery\":false,\"time\":\"2026-01-31T12:00:00+00:00\",\"database_oid\":\"5\",\"database\":\"d\",\"user\":\"u\",\"pid\":1,\"sees_all\":true,\"signals_all\":true}"
		waiter  = "session\t(2,,u,d,,,,active,,,,,,1769860740000000,,\"/*pga_context={\"\"a\"\": 1}*/ SELECT 1\")"
		locks   = "locks\t(2,3/4,relation,5,AccessShareLock,f,f)\n(1259,,,,,,,,1769860800.123456)"
		held    = "locks\t(3,4/5,relation,5,AccessExclusiveLock,t,f)\n(1259,,,,,,,,)"
		tuple   = "side_locks\t(2,3/4,tuple,5,ExclusiveLock,t,f)\n(16384,7,8,,,,,,)"
		xid     = "locks\t(2,3/4,transactionid,,ShareLock,f,f)\n(,,,,77,,,,)"
		edge    = "edge\t2 3 0"
		gid     = "prepared\t{\"transaction\":\"77\",\"gid\":\"g\",\"prepared\":\"2026-01-31T11:00:00+00:00\",\"owner\":\"u\",\"database\":\"d\"}"
		of      = "locks\t(,-1/77,transactionid,,ExclusiveLock,t,f)\n(,,,,77,,,,)"
		name    = "relation\t(1259,pg_catalog,r,\"a\"\"b\")"
		another = "database\t(9,\"x y\")"
	)
	for _, rows := range [][]string{
		{server},
		{server, waiter, locks, held, edge, name},
		{server, waiter, tuple, xid, edge, gid, of},
		{server, another, "locks\t(2,3/4,advisory,9,ShareLock,t,t)\n(,,,,,1,2,1,)"},
		{"edge\t"},
		{"locks\t()"},
		{"locks\t(1)\n(2)"},
		{"blocking\tx"},
		{"nothing\t"},
		{"session\t("},
		{"relation\t(1,2)"},
		{"locks\t(x,,,,,,)\n(,,,,,,,,)"},
	} {
		f.Add(strings.Join(rows, "\n\n"))
	}
	f.Fuzz(func(t *testing.T, answer string) {
		var q told
		for row := range strings.SplitSeq(answer, "\n\n") {
			kind, payload, _ := strings.Cut(row, "\t")
			q.rows = append(q.rows, [2]string{kind, payload})
		}
		snapshot, err := ReadSnapshot(t.Context(), q)
		if err != nil {
			return
		}
		for i := range snapshot.Locks {
			l := &snapshot.Locks[i]
			if l.Session == nil {
				t.Fatal("a lock without a session")
			}
			_ = l.Target()
			for _, a := range Attributes() {
				_ = a.Value(l)
			}
		}
		for i := range snapshot.Pairs {
			for _, a := range PairAttributes() {
				_ = a.PairValue(&snapshot.Pairs[i])
			}
		}
		var visit func(trees []*Tree, depth int)
		visit = func(trees []*Tree, depth int) {
			if depth > len(snapshot.Pairs)+1 {
				t.Fatal("the trees do not end")
			}
			for _, tree := range trees {
				visit(tree.Blocked, depth+1)
			}
		}
		visit(snapshot.Forest(), 0)
	})
}

// A value is parsed, or is an ErrFilter of limited size.
func FuzzValue(f *testing.F) {
	for _, s := range []string{
		"1", "-9223372036854775808", "yes", "1m30s", "2 hours 5 minutes", "1e9", ".", "-5m", "2026-01-31", "2026-01-31T12:00:00.5+01:00", "(1, 2)", "ACCESS EXCLUSIVE",
		"toast table", "\x00", "\xff", "µs", "5 Ks", "99999999999999999999 days", "1.7976931348623157e308s", "hard",
	} {
		for i := range len(attributes) {
			f.Add(s, i, i)
		}
	}
	f.Fuzz(func(t *testing.T, s string, attribute, operator int) {
		a := attributes[int(uint(attribute)%uint(len(attributes)))]
		filter := Where(a.Name, operators[int(uint(operator)%uint(len(operators)))], s)
		err := filter.Err()
		if err != nil {
			if !errors.Is(err, ErrFilter) || len(err.Error()) > 5000 {
				t.Errorf("%d bytes: %.100q", len(err.Error()), err)
			}
			return
		}
		if v := filter.values[0].text; strings.Contains(v, "\x00") || !utf8.ValidString(v) {
			t.Errorf("%q: Postgres takes no %q", s, v)
		}
	})
}

// A list is read as it is written, or refused: no value gets lost, because not in would
// then select more.
func FuzzList(f *testing.F) {
	for _, s := range []string{"a", "it's", "", "a, b", "(a", "a)", "NULL", "select 1", "'", "a' or 'b", "x;", "$1", "\n", "é"} {
		f.Add(s, "b", s)
	}
	f.Fuzz(func(t *testing.T, first, second, third string) {
		values := []string{first, second, third}
		for _, operator := range []string{opIn, opNotIn} {
			written := "application " + operator + " " + quoteList(values)
			filter, err := ParseFilter(written)
			if strings.Contains(written, "\x00") || !utf8.ValidString(written) {
				if err == nil {
					t.Fatalf("%q is accepted", written)
				}
				continue
			}
			if err != nil || filter.operator != operator {
				t.Fatalf("%q: %q, %v", written, filter.operator, err)
			}
			for _, v := range values {
				if !filter.has(v) {
					t.Fatalf("%q lacks %q", written, v)
				}
			}
		}
		// Without quotes a value is literal, or an error.
		list := "(" + strings.Join(values, ",") + ")"
		filter, err := ParseFilter("application not in " + list)
		if err != nil {
			return
		}
		for _, v := range filter.values {
			if v.text != "" && !strings.Contains(list, strings.ReplaceAll(v.text, "'", "''")) {
				t.Fatalf("%q has the value %q", list, v.text)
			}
		}
		if len(filter.values) == 0 {
			t.Fatalf("%q has no values", list)
		}
	})
}

// splitComments reads what Comment writes, in both forms, and none of it gets out of
// the comment.
func FuzzComment(f *testing.F) {
	for _, s := range []string{"a", "*/ DROP TABLE t; /*", "'", `\'`, "%27", "é", "\x00", "\xff", "=','", " ", "\n--", "*", `"}*/`, "🔒", "\u2028", "$1 @a ?"} {
		f.Add(s, s)
	}
	f.Fuzz(func(t *testing.T, key, value string) {
		if key == "" || key == "traceparent" {
			return // sqlcommenter has no empty keys
		}
		ctx := Annotate(t.Context(), key, value)
		const statement = "SELECT 1"
		for _, form := range [][]CommentOption{nil, {DjangoComment()}} {
			commented := Comment(ctx, statement, form...)
			comment := strings.TrimSpace(strings.Replace(commented, statement, "", 1))
			if strings.Count(comment, "*") != 2 || strings.ContainsAny(comment, "\x00\n$@?;") || strings.ContainsFunc(comment, func(r rune) bool { return r > '~' }) {
				t.Fatalf("%q", commented)
			}
			context, rest := splitComments(commented)
			var notes map[string]string
			if err := json.Unmarshal([]byte(context), &notes); err != nil {
				t.Fatalf("%q is %q: %v", commented, context, err)
			}
			if rest != statement || len(notes) != 1 || notes[safeText(key)] != safeText(value) {
				t.Errorf("%q, %q: %q, %q", key, value, notes, rest)
			}
			if text, ok := context.Lookup(safeText(key)); !ok || text != safeText(value) {
				t.Errorf("%q: %q, %v", context, text, ok)
			}
		}
	})
}

// A Context of any comment is JSON that others can read: see TestContextsInPostgres.
func FuzzContext(f *testing.F) {
	for _, s := range []string{
		`{"n": 3, "deep": {"a": [1, null]}}`, `{"a":1,"a":2}`, `{"a": "\u0000\ud800"}`, `{"\u0000": 1e400}`, `{"a":[[[]]]}`, `{"a":1,}`, `{} {}`, `[]`, `null`, `{"a":{"b":1,"b":[]}}`,
		`{"a": 1.50, "b": -0, "c": 1E5, "d": 12345678901234567890}`, `{"a.b": {"c": 1}, "a": {"b.c": 2}}`,
	} {
		f.Add(s, "a.b.c")
	}
	f.Fuzz(func(t *testing.T, text, path string) {
		context, rest := splitComments(djangoStart + text + commentEnd + "SELECT 1")
		if context == "" {
			return
		}
		var v map[string]any
		if err := json.Unmarshal([]byte(context), &v); err != nil {
			t.Fatalf("%q: %v", context, err)
		}
		if rest != "SELECT 1" && !strings.Contains(text, commentEnd) {
			t.Errorf("%q leaves %q", text, rest)
		}
		again, err := parseContext(string(context))
		if err != nil || again.String() != string(context) {
			t.Errorf("%q becomes %q, %v", context, again, err)
		}
		if strings.Contains(string(context), `\u0000`) && !strings.Contains(string(context), `\\u0000`) {
			t.Errorf("%q has a NUL", context)
		}
		context.Lookup(path)
	})
}
