package inspect

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
)

// Waiting workers count as their leader, however many of them wait.
func TestWorkersThatWait(t *testing.T) {
	session := func(pid, leader int32) *Session { return &Session{PID: pid, LeaderPID: leader} }
	leader, worker1, worker2, holder, ahead := session(1, 0), session(2, 1), session(3, 1), session(4, 0), session(5, 4)
	lock := func(s *Session, mode string, granted bool) Lock {
		return Lock{Session: s, Type: typeRelation, RelationOID: 9, Mode: mode, Granted: granted}
	}
	r := &reading{
		sessions: map[int32]*Session{1: leader, 2: worker1, 3: worker2, 4: holder, 5: ahead},
		waits:    map[int32][]int32{2: {4, 4, 1}, 3: {4}},
		locks: []Lock{
			lock(worker1, "AccessShareLock", false),
			lock(worker2, "AccessShareLock", false),
			lock(ahead, "AccessExclusiveLock", true), // a worker of holder
			lock(leader, "AccessShareLock", true),
		},
	}
	pairs := r.pairs()
	if len(pairs) != 1 {
		t.Fatalf("%d pairs, want 1: %+v", len(pairs), pairs)
	}
	if p := pairs[0]; p.Session != leader || p.Blocking != holder || !p.Hard || p.Held.Session != ahead || p.waiter != 2 {
		t.Errorf("%+v", p)
	}
	if r.locks[0].Session != worker1 {
		t.Error("the lock itself was changed")
	}
}

func TestNumbersIn(t *testing.T) {
	for text, want := range map[string][]int32{
		"4711":                       {4711},
		"4711 ":                      {4711}, // blocked by nobody any more
		"1 2147483647 0":             {1, 2147483647, 0},
		"":                           nil,
		" 1":                         nil,
		"1  2":                       nil,
		"1,2":                        nil,
		"-1":                         nil,
		"2147483648":                 nil,
		"99999999999999999999999999": nil,
	} {
		if got, ok := parsePIDs(text); !slices.Equal(got, want) || ok != (want != nil) {
			t.Errorf("%q: %v, %t", text, got, ok)
		}
	}
}

// A template without one of its markers, or with one of them twice, is not run.
func TestTemplates(t *testing.T) {
	c := conditions{lock: []string{"LOCK CONDITION"}, blocking: []string{"BLOCKER CONDITION"}, session: []string{"SESSION CONDITION"}}
	none := conditions{}
	for name, template := range map[string]struct {
		sql     string
		fill    []func(string) (string, error)
		markers []string
	}{
		"matching.sql": {
			matchingSQL,
			[]func(string) (string, error){c.statement, none.statement},
			[]string{sessionColumnsMarker, lockColumnsMarker, lockConditionsMarker, blockingConditionsMarker, beginLocksMarker, endLocksMarker, beginBlockersMarker, endBlockersMarker},
		},
		"activity.sql": {
			activitySQL,
			[]func(string) (string, error){c.sessionStatement, none.sessionStatement},
			[]string{sessionColumnsMarker, sessionConditionsMarker},
		},
		"snapshot.sql": {snapshotSQL, []func(string) (string, error){withoutEdges}, []string{"true -- edges"}},
	} {
		for _, fill := range template.fill {
			sql, err := fill(template.sql)
			if err != nil || sql == template.sql {
				t.Errorf("%s: %v", name, err)
			}
			for _, marker := range template.markers {
				for what, changed := range map[string]string{
					"removed": strings.Replace(template.sql, marker, "", 1),
					"changed": strings.Replace(template.sql, marker, strings.Replace(marker, "o", "0", 1), 1),
					"twice":   template.sql + "\n" + marker,
				} {
					if changed == template.sql {
						changed = strings.Replace(template.sql, marker, strings.ToUpper(marker), 1)
					}
					if sql, err := fill(changed); err == nil || sql != "" || !strings.Contains(err.Error(), "marker") {
						t.Errorf("%s with the marker %q %s: %v", name, marker, what, err)
					}
				}
			}
		}
	}
	sql, err := c.statement(matchingSQL)
	if err != nil || strings.Count(sql, "AND LOCK CONDITION") != 1 || strings.Count(sql, "WHERE BLOCKER CONDITION") != 1 {
		t.Errorf("the conditions are not in it once each: %v", err)
	}
	sql, err = c.sessionStatement(activitySQL)
	if err != nil || strings.Count(sql, "WHERE SESSION CONDITION") != 1 {
		t.Errorf("the condition is not in it once: %v", err)
	}
}

func TestFill(t *testing.T) {
	for _, test := range []struct {
		template string
		markers  []marker
		want     string // "" is an error
	}{
		{"a X b", []marker{{begin: "X", text: "y"}}, "a y b"},
		{"a X b X", []marker{{begin: "X", text: "y"}}, ""},
		{"a b", []marker{{begin: "X", text: "y"}}, ""},
		{"a X b Y c", []marker{{begin: "X", end: "Y"}}, "a  c"},
		{"a X b Y c", []marker{{begin: "X", end: "Y", keep: true}}, "a X b Y c"},
		{"a X b Y c", []marker{{begin: "X", end: "Z", keep: true}}, ""},
		{"a Y b X c", []marker{{begin: "X", end: "Y"}}, ""},
		{"a X b Z c Y", []marker{{begin: "X", end: "Y"}, {begin: "Z", text: "z"}}, ""},
		{"X Z", []marker{{begin: "X", text: "Z"}, {begin: "Z", text: "X"}}, "Z X"},
	} {
		got, err := fill(test.template, test.markers...)
		if got != test.want || (err == nil) != (test.want != "") {
			t.Errorf("%q: %q, %v, want %q", test.template, got, err, test.want)
		}
	}
}

// A value is never lost on its way into a statement.
func TestBind(t *testing.T) {
	if sql, args, err := bind("SELECT :'a', :'b', :'a'", map[string]string{"a": "1", "b": "2"}); err != nil || sql != "SELECT $1, $2, $1" || len(args) != 2 {
		t.Errorf("%q, %v, %v", sql, args, err)
	}
	const plain = "SELECT ':', ':' || 'a', a::text, :'', :'A', :'a b', 'x:'"
	if sql, args, err := bind(plain+", :'a_1'", map[string]string{"a_1": "1"}); err != nil || sql != plain+", $1" || len(args) != 1 {
		t.Errorf("%q, %v, %v", sql, args, err)
	}
	if _, _, err := bind("SELECT :'a'", map[string]string{}); err == nil {
		t.Error("a missing value is not an error")
	}
	if _, _, err := bind("SELECT :'a'", map[string]string{"a": "1", "b": "2"}); err == nil {
		t.Error("an extra value is not an error")
	}
}

// A template runs as it is, as it does in psql.
func TestTemplateRunsUnfilled(t *testing.T) {
	conn, err := pgx.Connect(t.Context(), pgtest.Database(t))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	for _, template := range []struct {
		sql    string
		values map[string]string
	}{
		{snapshotSQL, map[string]string{"crowd": "2"}},
		{matchingSQL, map[string]string{"pairs": "true", "crowd": "2"}},
		{matchingSQL, map[string]string{"pairs": "false", "crowd": "2"}},
		{activitySQL, nil},
	} {
		sql, args, err := bind(template.sql, template.values)
		if err != nil {
			t.Fatal(err)
		}
		rows, err := conn.Query(t.Context(), sql, args...)
		if err != nil {
			t.Fatal(err)
		}
		kinds, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (kind string, err error) {
			return kind, row.Scan(&kind, nil)
		})
		if err != nil || !slices.Contains(kinds, "server") {
			t.Errorf("%v: %v, %v", template.values, kinds, err)
		}
	}
}
