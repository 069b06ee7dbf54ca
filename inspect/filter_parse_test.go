package inspect_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/pglock-go/pglock/inspect"
)

// habits are filters as people write them, and the same condition in SQL. A filter
// that is accepted must select the same of the sessions below as the condition. A
// filter that is refused must explain what to write instead; that is want, and must
// select the same.
var habits = []struct {
	filter, sql string
	want        string // "" if it is accepted
}{
	// Quotes.
	{"application = 'payments'", "application_name = 'payments'", ""},
	{"application='payments'", "application_name = 'payments'", ""},
	{"application != 'payments'", "application_name != 'payments'", ""},
	{"application <> 'payments'", "application_name <> 'payments'", ""},
	{"application <> payments", "application_name <> 'payments'", ""},
	{"application = 'o''neil'", "application_name = 'o''neil'", ""},
	{"application = o'neil", "application_name = 'o''neil'", ""},
	{"application = '''quoted'''", "application_name = '''quoted'''", ""},
	{"application = 'a and b'", "application_name = 'a and b'", ""},
	{"application = 'payments';", "application_name = 'payments';", ""},
	{"application ~ '^pay'", "application_name ~ '^pay'", ""},
	{"application !~ '^pay'", "application_name !~ '^pay'", ""},
	{"application = ''", "application_name = ''", ""},
	{"granted = 'true'", "true", ""},
	{"duration >= '0 seconds'", "true", ""},
	{"duration < '5 minutes'", "true", ""},
	{"duration < '1h'", "true", ""},
	{"backend_start > '2001-01-01 12:00'", "true", ""},
	{"state = 'idle in transaction'", "state = 'idle in transaction'", ""},
	{"mode = 'ShareLock'", "false", ""},
	{"type = 'relation'", "true", ""},
	{`application = "payments"`, "application_name = 'payments'", "application = 'payments'"},
	{`"application" = payments`, "application_name = 'payments'", "application = payments"},
	{"application = 'payments", "application_name = 'payments'", ""},
	{"application = E'payments'", "application_name = 'payments'", ""},
	{"application = $$payments$$", "application_name = 'payments'", ""},
	{"application = $1", "", ""},

	// Operators.
	{"application == payments", "application_name = 'payments'", "application = payments"},
	{"application =~ pay", "application_name ~ 'pay'", "application ~ pay"},
	{"application ~* PAY", "application_name ~* 'PAY'", "application ~ (?i)PAY"},
	{"application ~* 'PAY'", "application_name ~* 'PAY'", "application ~ (?i)PAY"},
	{"application !~* 'PAY'", "application_name !~* 'PAY'", "application !~ (?i)PAY"},
	{"application ~~ 'pay%'", "application_name LIKE 'pay%'", "application ~ ^pay"},
	{"application LIKE 'pay%'", "application_name LIKE 'pay%'", "application ~ ^pay"},
	{"application like '%ment_'", "application_name LIKE '%ment_'", "application ~ ment.$"},
	{"application NOT LIKE 'pay%'", "application_name NOT LIKE 'pay%'", "application !~ ^pay"},
	{"application ILIKE '%PAY%'", "application_name ILIKE '%PAY%'", "application ~ (?i)PAY"},
	{"application LIKE 'a=b'", "application_name LIKE 'a=b'", "application ~ ^a=b$"},
	{"application SIMILAR TO '(a|b)%'", "", ""},
	{"application = ANY (payments)", "", ""},

	// Lists.
	{"application IN ('payments', 'o''neil')", "application_name IN ('payments', 'o''neil')", ""},
	{"application in (payments)", "application_name IN ('payments')", ""},
	{"application in(payments , x );", "application_name IN ('payments', 'x')", ""},
	{"application  Not \t In ('payments', x)", "application_name NOT IN ('payments', 'x')", ""},
	{"application NOT IN ('payments')", "application_name NOT IN ('payments')", ""},
	{"application in ('', 'x')", "application_name IN ('', 'x')", ""},
	{"application in (a and b)", "", ""},
	{"application in ('a and b', 'payments;', '''quoted''')", "application_name IN ('a and b', 'payments;', '''quoted''')", ""},
	{"application in (payments, payments)", "application_name IN ('payments', 'payments')", ""},
	{"application != x in (y)", "application_name != 'x in (y)'", ""},
	{"application = payments in (x)", "application_name = 'payments in (x)'", ""},
	{"state in (active, idle in transaction)", "state IN ('active', 'idle in transaction')", ""},
	{"state in (active, idle in transaction (aborted))", "state IN ('active', 'idle in transaction (aborted)')", ""},
	{"state not in (active, idle)", "state NOT IN ('active', 'idle')", ""},
	{"granted in (true, false)", "true", ""},
	{"granted not in (true)", "false", ""},
	{"pid IN (1, 2)", "pid IN (1, 2)", ""},
	{"pid not in (1, 2)", "pid NOT IN (1, 2)", ""},
	{"leader_pid in (1, 2)", "false", ""},
	{"mode in (ACCESS SHARE, ShareLock)", "true", ""},
	{"duration in (1h, '2 hours')", "false", ""},
	{"NOT application in (payments)", "application_name NOT IN ('payments')", ""},
	{"not state in (active)", "", ""},
	{"application in payments", "application_name IN ('payments')", "application in (payments)"},
	{"application not in payments, x", "application_name NOT IN ('payments', 'x')", "application not in (payments, x)"},
	{"application in ()", "", ""},
	{"application not in ()", "", ""},
	{"application in (payments", "", ""},
	{"application in (payments,)", "", ""},
	{"application not in (payments, , x)", "", ""},
	{"application in ('payments)", "", ""},
	{"application in ('payments' x)", "", ""},
	{"application in (o'neil)", "", ""},
	{`context.a not in ({"a":[1,null]})`, "", ""},
	{"application not in ([a, b])", "", ""},
	{"NOT application in (payments, x)", "application_name NOT IN ('payments', 'x')", "application not in (payments, x)"},
	{"application in (payments) AND state = idle", "", ""},
	{"application in (payments) or application = x", "", ""},
	{"application not in (payments, NULL)", "", ""},
	{"pid not in (1, null)", "", ""},
	{"application not in (select 'x')", "", ""},
	{"application not in (SELECT application_name FROM pg_stat_activity)", "", ""},
	{"application not in ('a'::text)", "", ""},
	{"application not in (lower('X'))", "", ""},
	{"application not in ($1)", "", ""},
	{`application not in ("payments")`, "", ""},
	{"state in (active, sleeping)", "", ""},
	{"state = active,idle", "", "state in (active,idle)"},
	{"state = active, idle", "", "state in (active, idle)"},
	{"context in (x)", "", ""},

	// Missing values. Missing text is empty.
	{"application IS NULL", "coalesce(application_name, '') = ''", ""},
	{"application IS NOT NULL", "coalesce(application_name, '') != ''", ""},
	{"application is  not  null ;", "coalesce(application_name, '') != ''", ""},
	{"application = is null", "application_name = 'is null'", ""},
	{"leader_pid is null", "true", ""},
	{"leader_pid IS NOT NULL", "false", ""},
	{"xact_start is null", "xact_start IS NULL", ""},
	{"xact_start is not null", "xact_start IS NOT NULL", ""},
	{"wait_start IS NULL", "true", ""},
	{"wait_event_type is null", "wait_event_type IS NULL", ""},
	{"granted is null", "false", ""},
	{"context is null", "true", ""},
	{"context is not null", "false", ""},
	{"context.a.b is null", "true", ""},
	{"client is null", "client_addr IS NULL", ""},
	{"application is empty", "", ""},
	{"application is distinct from x", "", ""},
	{"application is null or x", "", ""},
	{"NOT application is null", "", ""},
	{"is null", "", ""},
	{"leader_pid isnull", "", ""},
	{"granted IS TRUE", "true", "granted = true"},
	{"granted IS NOT TRUE", "false", "granted = false"},
	{"granted is false", "false", "granted = false"},
	{"granted", "true", "granted = true"},
	{"NOT granted", "false", "granted = false"},
	{"NOT application = 'payments'", "application_name <> 'payments'", ""},
	{"duration BETWEEN '0s' AND '1h'", "", ""},
	{"application = ANY ('{payments}')", "", ""},
	{"application = any('{payments}')", "", ""},
	{"application = ('payments')", "", ""},
	{"application ~ ('pay')", "", ""},

	// What follows a value.
	{"application = payments;", "application_name = 'payments'", "application = payments"},
	{"application = payments AND state = idle", "", ""},
	{"application = 'payments' AND state = 'idle'", "", ""},
	{"application = 'payments' or application = 'x'", "", ""},
	{"application = payments or x", "", ""},
	{"application = 'payments'::text", "application_name = 'payments'::text", "application = 'payments'"},
	{"application = payments::text", "application_name = 'payments'::text", "application = payments"},
	{"application = 'pay' || 'ments'", "", ""},
	{"application = pay || 'ments'", "", ""},
	{"duration > '5 min'::interval", "", "duration > '5 min'"},
	{"duration > 5::int", "", "duration > 5"},
	{"duration > interval '5 min'", "", ""},
	{"backend_start < now() - interval '5 min'", "", "as -5m"},
	{"backend_start < now()", "", ""},

	// Values that are not literal.
	{"application =", "", ""},
	{"application = NULL", "", "application is null"},
	{"application != NULL", "", "application is not null"},
	{"user = current_user", "", ""},
	{"database = current_database()", "", ""},
	{"application = lower('PAYMENTS')", "", ""},
	{"application = pay%", "application_name LIKE 'pay%'", "application ~ ^pay"},
	{"application != pay%", "application_name NOT LIKE 'pay%'", "application !~ ^pay"},

	// Fields with only a few values.
	{"state = Idle", "", "state = idle"},
	{"state = idle_in_transaction", "state = 'idle in transaction'", "state = idle in transaction"},
	{"state = sleeping", "", ""},
	{"state != sleeping", "", ""},
	{"blocking_state = Idle", "", "blocking_state = idle"},
	{"type = table", "", ""},
	{"type = Relation", "", ""},
	{"wait_event_type = lock", "", ""},
	{"wait_event_type != Locks", "", ""},
	{"backend_type = Client_Backend", "", ""},
	{"mode = exclusive-ish", "", ""},
	{"kind = chair", "", ""},
	{"granted = perhaps", "", ""},
	{"granted = NULL", "", ""},

	// Names of columns.
	{"usename = 'x'", "", ""},
	{"a.application_name = 'payments'", "application_name = 'payments'", "application = 'payments'"},
	{"APPLICATION = 'payments'", "application_name = 'payments'", "application = 'payments'"},
	{"context->>'url' = '/x'", "", ""},
}

// Filters of django-pglock are errors that say how to write them.
func TestHabitsFromDjango(t *testing.T) {
	for filter, want := range map[string]string{
		"activity__duration__gt=1 minute":                 "duration > 1 minute",
		"duration__lte=5":                                 "duration <= 5",
		"activity__state=active":                          "state = active",
		"activity__state__in=active,idle":                 "state in (active,idle)",
		"activity__xact_start__isnull=True":               "xact_start is null",
		"xact_start__isnull=False":                        "xact_start is not null",
		"activity__context__user__id=7":                   "context.user.id = 7",
		"context__job__regex=^night":                      "context.job ~ ^night",
		"blocking_activity__duration__gte=5 seconds":      "blocking_duration >= 5 seconds",
		"blocking_activity__application_name__exact=shop": "blocking_application = shop",
		"blocking_activity__context__url=/checkout/":      "blocking_context.url = /checkout/",
		"blocking_activity_id=4711":                       "blocking_pid = 4711",
		"activity_id=4711":                                "pid = 4711",
		"rel_name__in=orders,items":                       "relation in (orders,items)",
		"rel_kind=TABLE":                                  "kind = TABLE",
		"start__isnull=true":                              "query_start is null",
	} {
		_, err := inspect.ParseFilter(filter)
		if err == nil || !strings.Contains(err.Error(), ": write "+want+";") {
			t.Errorf("%s: %v, want the hint %s", filter, err, want)
		}
		if _, err := inspect.ParseFilter(want); err != nil {
			t.Errorf("%s: the hint is no filter: %v", filter, err)
		}
	}
	for _, filter := range []string{"__=1", "__gt=1", "activity__=1", "activity__gt=1", "activity__gt__gt=1", "blocking_activity__gt=1", "blocking_activity__=1", "color__gt=1", "pid__color=1"} {
		if _, err := inspect.ParseFilter(filter); err == nil || strings.Contains(err.Error(), "write ") {
			t.Errorf("%s: %v, want an error without a hint", filter, err)
		}
	}
}

// chosen returns the applications of the sessions that a filter selects.
func (s *scene) chosen(filter string) ([]string, error) {
	s.t.Helper()
	f, err := inspect.ParseFilter(filter)
	if err != nil {
		return nil, err
	}
	locks, err := inspect.Locks(s.t.Context(), s.q, f, inspect.Where("database", "=", s.database()), inspect.Where("relation", "=", "t"))
	if err != nil {
		return nil, err
	}
	var names []string
	for _, l := range locks {
		if !slices.Contains(names, l.Application) {
			names = append(names, l.Application)
		}
	}
	slices.Sort(names)
	return names, nil
}

// Input that is written as in SQL means what it means in SQL, or is refused with an
// explanation of what to write.
func TestHabitsFromSQL(t *testing.T) {
	s := newScene(t)
	s.session("setup").do("CREATE TABLE t (i int)")
	for _, name := range []string{"payments", "o'neil", "'quoted'", `"payments"`, "'payments'", "a and b", "", "x", "payments;"} {
		s.session(name).do("BEGIN", "SELECT FROM t")
	}
	s.until("everybody at rest", "SELECT bool_and(state = 'idle in transaction') FROM pg_stat_activity WHERE pid IN (SELECT pid FROM pg_locks WHERE relation = 't'::regclass)")
	inSQL := func(condition string) []string {
		t.Helper()
		rows, err := s.eye.Query(t.Context(), `SELECT DISTINCT application_name FROM pg_stat_activity
			WHERE pid IN (SELECT pid FROM pg_locks WHERE relation = 't'::regclass) AND (`+strings.TrimSuffix(condition, ";")+")")
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		var names []string
		for rows.Next() {
			var name string
			if err := rows.Scan(&name); err != nil {
				t.Fatal(err)
			}
			names = append(names, name)
		}
		if rows.Err() != nil {
			t.Fatal(condition, rows.Err())
		}
		slices.Sort(names)
		return names
	}
	for _, h := range habits {
		got, err := s.chosen(h.filter)
		var want []string
		if h.sql != "" {
			want = inSQL(h.sql)
		}
		switch {
		case err == nil && h.sql == "":
			t.Errorf("%s is accepted, and chooses %q", h.filter, got)
		case err == nil && h.want != "":
			t.Errorf("%s is accepted, and chooses %q; it was to be refused", h.filter, got)
		case err == nil && !slices.Equal(got, want):
			t.Errorf("%s chooses %q, in SQL %q", h.filter, got, want)
		case err != nil && !errors.Is(err, inspect.ErrFilter):
			t.Errorf("%s: %v is no ErrFilter", h.filter, err)
		case err != nil && !strings.Contains(err.Error(), h.want):
			t.Errorf("%s: %v; want %q in it", h.filter, err, h.want)
		case err != nil && !strings.Contains(err.Error(), "write") && !strings.Contains(err.Error(), "there are"):
			t.Errorf("%s: %v does not say what to write", h.filter, err)
		}
		if err == nil || h.want == "" || h.sql == "" {
			continue
		}
		// The suggestion is right.
		if got, err := s.chosen(h.want); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s chooses %q, %v, in SQL %q", h.want, got, err, want)
		}
	}
}

// A value with quotes or the like can be written, and is taken literally.
func TestAnyValueCanBeWritten(t *testing.T) {
	s := newScene(t)
	s.session("setup").do("CREATE TABLE t (i int)")
	for _, name := range []string{
		"'payments'", `"payments"`, "it's", "a AND b", "x;", "NULL", "pay%", "'", "''", "= x", "now()", "(a)", "$$a$$", "a::text",
		"payments' OR 'a", "a.b", "-- x", "E'x'", "d'; DROP TABLE t; --",
	} {
		a := s.session(name).do("BEGIN", "SELECT FROM t")
		quoted := "application = '" + strings.ReplaceAll(name, "'", "''") + "'"
		list := "application in ('no', '" + strings.ReplaceAll(name, "'", "''") + "')"
		for _, filter := range []string{quoted, list} {
			if got, err := s.chosen(filter); err != nil || !slices.Equal(got, []string{name}) {
				t.Errorf("%s chooses %q, %v", filter, got, err)
			}
		}
		// Where takes a value literally, but refuses one in quotes.
		where := inspect.Where("application", "=", name)
		if err := where.Err(); err != nil {
			if !strings.HasPrefix(name, "'") && !strings.HasPrefix(name, `"`) || !errors.Is(err, inspect.ErrFilter) || !strings.Contains(err.Error(), "write Where(") {
				t.Errorf("Where of %q: %v", name, err)
			}
		} else if got, err := s.chosen(where.String()); err != nil || !slices.Equal(got, []string{name}) {
			t.Errorf("%s chooses %q, %v", where, got, err)
		}
		a.do("COMMIT")
	}
	for _, f := range []inspect.Filter{
		inspect.Where("application", "=", "'payments'"), inspect.Where("application", "=", `"payments"`), inspect.Where("application", "=", "'payments'::text"),
		inspect.Where("application", "~", "'^pay'"), inspect.Where("mode", "=", "'ShareLock'"), inspect.Where("duration", ">", "'5s'"),
		inspect.Where("application", "in"), inspect.Where("application", "not in"), inspect.Where("application", "="), inspect.Where("application", "=", "a", "b"),
		inspect.Where("application", "is null", "x"), inspect.Where("application", "not in", make([]string, 1001)...), inspect.Where("application", "not in", "'x'"),
		inspect.Where("application", "==", "x"), inspect.Where("application", "LIKE", "x%"), inspect.Where("application", "IN", "(x)"),
		inspect.Where("state", "=", "Idle"), inspect.Where("blocking_state", "=", "Idle"), inspect.Where("wait_event_type", "!=", "lock"),
	} {
		if err := f.Err(); !errors.Is(err, inspect.ErrFilter) {
			t.Errorf("%s: %v", f, err)
		}
	}
	if f := inspect.Where("application", "<>", "x"); f.Err() != nil {
		t.Error(f.Err())
	}
}
