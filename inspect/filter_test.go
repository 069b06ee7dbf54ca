package inspect_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pglock-go/pglock/inspect"
)

// crowd returns a scene with many kinds of locks.
func crowd(t *testing.T) *scene {
	s := newScene(t)
	s.session("setup").do("CREATE SCHEMA app", "CREATE TABLE app.orders (id int PRIMARY KEY, n int)", "INSERT INTO app.orders VALUES (1, 0)",
		"CREATE TABLE parted (id int) PARTITION BY RANGE (id)", "CREATE TABLE part1 PARTITION OF parted FOR VALUES FROM (0) TO (9)")
	a := s.session("a").do("BEGIN", `/*pga_context={"url": "/a b/", "job": "x", "n": 3, "deep": {"a": [1, "x"]}, "no": null}*/ UPDATE app.orders SET n = 1 WHERE id = 1`)
	_ = a
	s.session("b").await("UPDATE app.orders SET n = 2 WHERE id = 1 /*url='%2Fb',http.route='%2Fr'*/")
	s.session("c").await("UPDATE app.orders SET n = 3 WHERE id = 1")
	s.session("d").do("SELECT pg_advisory_lock(42)", "SELECT pg_advisory_lock(-1, 2)", "SELECT pg_advisory_lock_shared(hashtext('x'))")
	s.session("e").await("SELECT pg_advisory_lock(42)")
	s.session("f").do("BEGIN", "INSERT INTO parted VALUES (1)")
	s.session("g").do("BEGIN ISOLATION LEVEL SERIALIZABLE", "SELECT * FROM app.orders")
	s.until("everybody at rest", "SELECT bool_and(wait_event IS NOT NULL) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()")
	return s
}

// where returns the matching locks as text that identifies them.
func (s *scene) where(filters ...inspect.Filter) []string {
	s.t.Helper()
	locks, err := inspect.Locks(s.t.Context(), s.q, filters...)
	if err != nil {
		s.t.Fatal(err)
	}
	return identities(locks)
}

func identities(locks []inspect.Lock) []string {
	var ids []string
	for _, l := range locks {
		if l.Application == "eye" || l.BackendType != "client backend" {
			continue
		}
		ids = append(ids, fmt.Sprintf("%s %s %s %v", l.Application, l.Mode, l.Target(), l.Granted))
	}
	slices.Sort(ids)
	return ids
}

// write returns a value as a filter takes it.
func write(v any) string {
	switch v := v.(type) {
	case time.Time:
		return v.Format(time.RFC3339Nano)
	case nil:
		return ""
	}
	return fmt.Sprint(v)
}

// Filters agree with the values that Go shows.
func TestFiltersAgreeWithAttributes(t *testing.T) {
	s := crowd(t)
	all := s.locks()
	for _, a := range inspect.Attributes() {
		if a.Type == reflect.TypeFor[time.Duration]() || a.Type == reflect.TypeFor[inspect.Context]() || a.Name == "state_change" {
			continue // durations grow; the context has its own test
		}
		seen := map[string]bool{}
		agree := func(filter inspect.Filter, matches func(v any) bool) {
			t.Helper()
			var want []inspect.Lock
			for _, l := range all {
				if matches(a.Value(&l)) {
					want = append(want, l)
				}
			}
			if got, want := s.where(filter), identities(want); !slices.Equal(got, want) {
				t.Errorf("%s are\n%s\nwant\n%s", filter, strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		}
		agree(inspect.Where(a.Name, "is null"), func(v any) bool { return v == nil })
		agree(inspect.Where(a.Name, "is not null"), func(v any) bool { return v != nil })
		for _, l := range all {
			v := write(a.Value(&l))
			if seen[v] || v == "" && a.Type != reflect.TypeFor[string]() || v == "" && (a.Name == "kind" || a.Name == "key") {
				continue
			}
			seen[v] = true
			agree(inspect.Where(a.Name, "=", v), func(other any) bool { return write(other) == v })
			agree(inspect.Where(a.Name, "!=", v), func(other any) bool { return write(other) != v })
		}
		if values := slices.Sorted(maps.Keys(seen)); len(values) > 1 {
			values = values[:2]
			agree(inspect.Where(a.Name, "in", values...), func(v any) bool { return slices.Contains(values, write(v)) })
			agree(inspect.Where(a.Name, "not in", values...), func(v any) bool { return !slices.Contains(values, write(v)) })
		}
		if len(seen) == 0 && a.Name != "leader_pid" && a.Name != "query_id" && !strings.HasPrefix(a.Name, "client") {
			t.Errorf("no lock has a %s", a.Name)
		}
	}
}

func TestFilters(t *testing.T) {
	s := crowd(t)
	here := inspect.Where("database", "=", s.database())
	if got, want := s.where(), s.where(inspect.Filter{}); !slices.Equal(got, want) || len(got) < 15 {
		t.Errorf("the empty filter gives\n%s\nno filter gives\n%s", want, got)
	}
	apps := func(filters ...inspect.Filter) string {
		var apps []string
		locks, err := inspect.Locks(t.Context(), s.q, append(filters, here)...)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range locks {
			if l.Application != "eye" && !slices.Contains(apps, l.Application) {
				apps = append(apps, l.Application)
			}
		}
		slices.Sort(apps)
		return strings.Join(apps, "")
	}
	for _, test := range []struct{ filter, want string }{
		{"granted=no", "bce"},
		{"granted != yes", "bce"},
		{"wait_duration > 0", "bce"},
		{"wait_duration>=1 hour", ""},
		{"wait_start < 2001-01-01", ""},
		{"wait_start > -1h", "bce"},
		{"backend_start>-10min", "abcdefg"},
		{"backend_start < -10min", ""},
		{"duration < 1d", "abcdefg"},
		{"application ~ ^[ab]$", "ab"},
		{"application !~ ^[ab]$", "cdefg"},
		{"application = d'; DROP TABLE app.orders; --", ""},
		{"mode = SHARE", "bd"},
		{"mode = row_exclusive", "abcf"},
		{"mode = SIReadLock", "g"},
		{"mode ~ Exclusive", "abcdefg"},
		{"kind = partitioned table", "f"},
		{"key = 42", "de"},
		{"key=(-1, 2)", "d"},
		{"key = -1,2", "d"},
		{"key = nightly", ""},
		{"relation = orders", "abcg"},
		{"schema = app", "abcg"},
		{"tuple = 1", "bc"},
		{"page < 1", "bcg"},
		{"type = advisory", "de"},
		{"query ~ ^UPDATE", "abc"},
		{"query ~ [0-9]$", "abc"},
		{"query !~ UPDATE", "defg"},
		{"context ~ url", "ab"},
		{"context.url = /a b/", "a"},
		{"context.url ~ ^/", "ab"},
		{"context.url != /b", "acdefg"},
		{"context.no = x", ""},
		{"target ~ ^advisory", "de"},
		{"state = idle in transaction", "afg"},
		{"leader_pid = 1", ""},
		{"leader_pid != 1", "abcdefg"},
		{"application in (a, b, 'x')", "ab"},
		{"application not in (a, b)", "cdefg"},
		{"key in (42, (-1, 2))", "de"},
		{"key in ((-1, 2))", "d"},
		{"mode in (SHARE, row_exclusive)", "abcdf"},
		{"xact_start is null", "d"},
		{"wait_start is not null", "bce"},
		{"context is null", "cdefg"},
		{"context is not null", "ab"},
		{"context.deep.a.0 = 1", "a"},
		{"context.deep.a.-1 is null", "bcdefg"},
		{"context.deep.a.-1 = x", "a"},
		{"context.deep.a in (x, '[1,\"x\"]')", "a"},
		{"context.deep ~ ^{", "a"},
		{"context.n in (3, 4)", "a"},
		{"context.n = 3.0", ""},
		{"context.n is not null", "a"},
		{"context.no is null", "abcdefg"},
		{"context.http.route = /r", "b"},
		{"context.url not in (/b)", "acdefg"},
		{"target is null", ""},
	} {
		f, err := inspect.ParseFilter(test.filter)
		if err != nil {
			t.Error(err)
			continue
		}
		if got := apps(f); strings.Trim(got, "") != test.want {
			if test.filter == "page < 1" && strings.Trim(got, "g") == "bc" {
				continue // a predicate lock may be on a page or on the table
			}
			t.Errorf("%s: %s, want %s", test.filter, got, test.want)
		}
	}
	s.session("p").do("BEGIN", "LOCK TABLE part1 IN SHARE UPDATE EXCLUSIVE MODE")
	for _, test := range []struct {
		tables []string
		want   string
	}{
		{[]string{"app.orders"}, "abcg"},
		{[]string{"parted"}, "fp"},
		{[]string{"part1"}, "fp"},
		{[]string{`"app"."orders"`, "PART1", "part1"}, "abcfgp"},
		{[]string{"app.orders_pkey"}, "abcg"},
	} {
		if got := apps(inspect.On(test.tables...)); got != test.want {
			t.Errorf("on %v: %s, want %s", test.tables, got, test.want)
		}
	}
	pid := s.locks()[0].PID
	for _, l := range s.locks() {
		if l.Application == "a" {
			pid = l.PID
		}
	}
	if got := apps(inspect.PIDs(pid, 1)); got != "a" {
		t.Errorf("the locks of %d are those of %s", pid, got)
	}
	if got := apps(inspect.On("app.orders"), inspect.Where("granted", "=", "false")); got != "bc" {
		t.Errorf("two filters: %s", got)
	}
}

// All filters must match, also those on one field. If none can match all of them, it
// is an error that names both.
func TestFiltersThatExcludeEachOther(t *testing.T) {
	s := crowd(t)
	apps := func(filters ...string) (string, error) {
		var parsed []inspect.Filter
		for _, text := range filters {
			f, err := inspect.ParseFilter(text)
			if err != nil {
				t.Fatal(err)
			}
			parsed = append(parsed, f)
		}
		locks, err := inspect.Locks(t.Context(), s.q, append(parsed, inspect.Where("database", "=", s.database()))...)
		var apps []string
		for _, l := range locks {
			if l.Application != "eye" && !slices.Contains(apps, l.Application) {
				apps = append(apps, l.Application)
			}
		}
		slices.Sort(apps)
		return strings.Join(apps, ""), err
	}
	for want, filters := range map[string][]string{
		"a":  {"application in (a, b)", "application in (a, c)"},
		"b":  {"application in (a, b)", "application != a"},
		"ab": {"application ~ ^[abc]$", "application not in (c, d)"},
		"c":  {"application = c", "application = 'c'"},
		"d":  {"mode in (SHARE)", "mode = ShareLock", "application = d"},
		"ef": {"application not in (a, b)", "application not in (c, d)", "application != g"},
		"":   {"application is null", "application is not null"},
	} {
		if got, err := apps(filters...); got != want || err != nil {
			t.Errorf("%q: %s, %v, want %s", filters, got, err, want)
		}
	}
	for _, filters := range [][]string{
		{"application = a", "application = b"},
		{"application in (a, b)", "application = c"},
		{"state = active", "duration > 0s", "state in (idle, idle in transaction)"},
		{"context.url = /a", "context.url = /b"},
		{"pid = 1", "pid = 2"},
	} {
		if got, err := apps(filters...); !errors.Is(err, inspect.ErrFilter) || !strings.Contains(err.Error(), "exclude each other") || !strings.Contains(err.Error(), " in (") {
			t.Errorf("%q: %s, %v", filters, got, err)
		}
	}
	if sessions, err := inspect.Sessions(t.Context(), s.q, inspect.Where("state", "=", "active"), inspect.Where("state", "=", "idle")); !errors.Is(err, inspect.ErrFilter) {
		t.Errorf("sessions: %v, %v", sessions, err)
	}
	if _, err := inspect.Blocked(t.Context(), s.q, inspect.Where("state", "=", "active"), inspect.Where("blocking_state", "=", "idle")); err != nil {
		t.Error(err) // they are about two sessions
	}
}

func TestFiltersOfPairs(t *testing.T) {
	s := crowd(t)
	s.session("h").do("BEGIN").await("LOCK TABLE app.orders")
	s.session("i").await("SELECT * FROM app.orders")
	for _, test := range []struct{ filter, want string }{
		{"blocking_application = a", "ba ha"},
		{"blocking_application != a", "cb ed hb hc hg ih"},
		{"blocking_application ~ [dh]", "ed ih"},
		{"blocking_query ~ ^UPDATE", "ba cb ha hb hc"},
		{"blocking_context.url = /a b/", "ba ha"},
		{"blocking_context.job ~ x", "ba ha"},
		{"blocking_state = active", "cb hb hc ih"},
		{"blocking_backend_start > -1h", "ba cb ed ha hb hc hg ih"},
		{"block = soft", "ih"},
		{"block != soft", "ba cb ed ha hb hc hg"},
		{"application = h", "ha hb hc hg"},
		{"key = 42", "ed"},
		{"granted = true", ""},
		{"blocking_application in (a, d)", "ba ed ha"},
		{"blocking_application not in (a, b, c)", "ed hg ih"},
		{"blocking_context.n = 3", "ba ha"},
		{"blocking_context is null", "ed hc hg ih"},
		{"blocking_xact_start is null", "ed"},
		{"block in (hard, soft)", "ba cb ed ha hb hc hg ih"},
		{"block not in (hard)", "ih"},
	} {
		f, err := inspect.ParseFilter(test.filter)
		if err != nil {
			t.Error(err)
			continue
		}
		pairs, err := inspect.Blocked(t.Context(), s.q, f, inspect.Where("database", "=", s.database()))
		if err != nil {
			t.Error(err)
			continue
		}
		var got []string
		for _, p := range pairs {
			got = append(got, p.Application+p.Blocking.Application)
		}
		slices.Sort(got)
		if strings.Join(got, " ") != test.want {
			t.Errorf("%s: %s, want %s", test.filter, strings.Join(got, " "), test.want)
		}
	}
}

func TestWrongFilters(t *testing.T) {
	s := newScene(t)
	for text, want := range map[string]string{
		"":                        "no operator",
		"pid":                     "= ~ < >",
		"pids = 1":                "there are pid, type, mode",
		"pid = x":                 "whole number",
		"pid ~ 1":                 "= != < <= > >=",
		"mode < ShareLock":        "= != ~ !~",
		"mode = exclusivish":      "AccessShareLock",
		"kind = chair":            "PARTITIONED_INDEX",
		"granted = perhaps":       "neither true nor false",
		"granted > true":          "= !=",
		"wait_duration > long":    "1m30s",
		"wait_duration > 5 parse": "1m30s",
		"xact_start < yesterday":  "2026-01-31T12:00:00Z",
		"block = firm":            "neither hard nor soft",
		"context = x":             "~ !~",
		"query = \x00":            "NUL",
	} {
		_, err := inspect.ParseFilter(text)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
	for want, f := range map[string]inspect.Filter{
		"there is no field":        inspect.Where("no", "=", "x"),
		"is not an operator":       inspect.Where("pid", "==", "1"),
		"there is no table \"no\"": inspect.On("no"),
		"the table \"a.b.c.d\"":    inspect.On("a.b.c.d"),
		"without a table":          inspect.On(),
		"without a pid":            inspect.PIDs(),
		"only pairs have":          inspect.Where("blocking_pid", "=", "1"),
		"the filter \"query ~ (\"": inspect.Where("query", "~", "("),
		"application":              inspect.Where("application", "~", "("),
	} {
		s.session("x").do("SELECT pg_advisory_lock(" + fmt.Sprint(time.Now().UnixNano()) + ")")
		_, err := inspect.Locks(t.Context(), s.q, f)
		if err == nil || want != "application" && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", f, err, want)
		}
		if !errors.Is(err, inspect.ErrFilter) {
			t.Errorf("%s: %v is not an ErrFilter", f, err)
		}
	}
	if _, err := inspect.Blocked(context.Background(), s.q, inspect.On("no")); err == nil {
		t.Error("Blocked accepts a table that does not exist")
	}
}

func FuzzParseFilter(f *testing.F) {
	for _, seed := range []string{
		"pid = 1", "wait_duration > 1m30s", "query~^a=b", "key=(1,2)", "x", "= =", "mode!=ACCESS SHARE",
		"xact_start<-5m", "blocking_context.url !~ x", "duration >= 1e9", "duration>.5s", "granted=yes", "kind = toast", "context. = x",
		"state in (active, 'idle')", "application not in ('a''b', c (d), )", "key in ((1,2), 3)", "pid is null", "context.a.b is not null;", "a in(", "pid not  in\n(1)", "context.x y in (a)",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		filter, err := inspect.ParseFilter(text)
		if err != nil {
			return
		}
		// A filter that parses also parses in its own written form.
		again, err := inspect.ParseFilter(filter.String())
		if err != nil || again.String() != filter.String() {
			t.Fatalf("%q became %q, then %q, %v", text, filter, again, err)
		}
	})
}
