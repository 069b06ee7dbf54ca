package inspect_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pglock-go/pglock/inspect"
)

// sessions returns the applications of the matching sessions of the scene, in order.
func (s *scene) sessions(filters ...inspect.Filter) string {
	s.t.Helper()
	sessions, err := inspect.Sessions(s.t.Context(), s.q, append(filters, inspect.Where("database", "=", s.database()))...)
	if err != nil {
		s.t.Fatal(err)
	}
	var names []string
	for _, session := range sessions {
		if session.Application != "eye" {
			names = append(names, session.Application)
		}
	}
	return strings.Join(names, " ")
}

func TestCatalogSessions(t *testing.T) {
	s := newScene(t)
	s.session("setup").do("CREATE TABLE orders (id int)", "CREATE TABLE other ()", "INSERT INTO orders VALUES (1)")
	old := s.session("old").do("BEGIN ISOLATION LEVEL REPEATABLE READ", "SELECT * FROM other")
	holder := s.session("holder").do("BEGIN", `/*pga_context={"job": "nightly"}*/ UPDATE orders SET id = 2`)
	waiter := s.session("waiter").await("UPDATE orders SET id = 3")
	idle := s.session("idle").do("SELECT 'nothing'")
	s.until("everybody at rest", "SELECT bool_and(wait_event IS NOT NULL) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()")

	for _, test := range []struct {
		filters []string
		want    string
	}{
		{nil, "old holder waiter setup idle"},
		{[]string{"state = idle"}, "setup idle"},
		{[]string{"state = idle in transaction"}, "old holder"},
		{[]string{"xact_duration > 0"}, "old holder waiter"},
		{[]string{"xact_duration > 1h"}, ""},
		{[]string{"backend_xid > 0"}, "holder waiter"},
		{[]string{"backend_xmin > 0"}, "old waiter"},
		{[]string{"xmin_age >= 0"}, "old holder waiter"},
		{[]string{"xmin_age >= 1"}, "old holder waiter"},
		{[]string{"xmin_age >= 2000000000"}, ""},
		{[]string{"context.job = nightly"}, "holder"},
		{[]string{"context ~ nightly", "application != waiter"}, "holder"},
		{[]string{"query ~ nothing"}, "idle"},
		{[]string{"client_port > 0"}, ""}, // a unix socket
		{[]string{"client_hostname = "}, "old holder waiter setup idle"},
		{[]string{fmt.Sprintf("pid = %d", idle.pid)}, "idle"},
		{[]string{"leader_pid != 1", "query_id != 1"}, "old holder waiter setup idle"},
		{[]string{"wait_event_type = Lock"}, "waiter"},
	} {
		var filters []inspect.Filter
		for _, text := range test.filters {
			field, operator, value := strings.Fields(text)[0], strings.Fields(text)[1], strings.Join(strings.Fields(text)[2:], " ")
			filters = append(filters, inspect.Where(field, operator, value))
		}
		if got := s.sessions(filters...); got != test.want {
			t.Errorf("%q: %s, want %s", test.filters, got, test.want)
		}
	}
	if got := s.sessions(inspect.On("orders")); got != "holder waiter" {
		t.Errorf("on orders: %s", got)
	}
	if got := s.sessions(inspect.On("other", "orders"), inspect.PIDs(old.pid, waiter.pid, idle.pid)); got != "old waiter" {
		t.Errorf("of three, on both tables: %s", got)
	}
	if got := s.sessions(inspect.PIDs(idle.pid), inspect.Filter{}); got != "idle" {
		t.Errorf("by PID: %s", got)
	}

	// Without a filter: the server's processes too, but not the session that reads.
	all, err := inspect.Sessions(t.Context(), s.q)
	if err != nil {
		t.Fatal(err)
	}
	var want int
	if err := s.eye.QueryRow(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'checkpointer' OR pid = ANY ($1)",
		[]int32{old.pid, holder.pid, waiter.pid, idle.pid}).Scan(&want); err != nil {
		t.Fatal(err)
	}
	me := s.pid()
	got := 0
	for _, session := range all {
		if session.PID == me {
			t.Error("the session that reads is listed")
		}
		if slices.Contains([]int32{old.pid, holder.pid, waiter.pid, idle.pid}, session.PID) || session.BackendType == "checkpointer" {
			got++
		}
		if session.PID == holder.pid {
			var xid, age int64
			if err := s.eye.QueryRow(t.Context(), "SELECT backend_xid::text::int8, age(backend_xid) FROM pg_stat_activity WHERE pid = $1", holder.pid).Scan(&xid, &age); err != nil {
				t.Fatal(err)
			}
			if int64(session.BackendXID) != xid || session.XminAge < 1 || session.XminAge > age || session.Context != `{"job":"nightly"}` ||
				session.XactDuration <= 0 || session.XactDuration > time.Hour || session.ClientPort != 0 {
				t.Errorf("the holder: %+v, its ID is %d", session, xid)
			}
		}
	}
	if got != want {
		t.Errorf("%d of the %d sessions", got, want)
	}

	for filter, text := range map[string]string{
		"mode = ShareLock":         "only locks have the field mode",
		"granted = true":           "only locks have the field granted",
		"block = hard":             "only pairs have the field block",
		"blocking_state = idle":    "only pairs have the field blocking_state",
		"blocking_context.job = x": "only pairs have the field blocking_context.job",
	} {
		f, err := inspect.ParseFilter(filter)
		if err != nil {
			t.Fatal(err)
		}
		_, err = inspect.Sessions(t.Context(), s.q, f)
		if !errors.Is(err, inspect.ErrFilter) || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v", filter, err)
		}
	}
	for _, f := range []inspect.Filter{inspect.On("no_such_table"), inspect.Where("nonsense", "=", "1"), inspect.Where("query", "~", "(")} {
		if _, err := inspect.Sessions(t.Context(), s.q, f); !errors.Is(err, inspect.ErrFilter) {
			t.Errorf("%s: %v", f, err)
		}
	}
}

// A role that may not see the activity of others sees the age of their snapshots.
func TestCatalogSessionsHidden(t *testing.T) {
	s, dim, app := dimScene(t)
	other := s.as(app, "other").do("BEGIN ISOLATION LEVEL REPEATABLE READ", "SELECT * FROM t")
	idle := s.as(app, "idle")
	q := s.as(dim, "dim").querier()
	sessions, err := inspect.Sessions(t.Context(), q, inspect.Where("xmin_age", ">=", "0"), inspect.PIDs(other.pid, idle.pid))
	if err != nil || len(sessions) != 1 || sessions[0].PID != other.pid || !sessions[0].Hidden || sessions[0].BackendXmin == 0 || sessions[0].Query != "" {
		t.Fatalf("%+v, %v", sessions, err)
	}
	// Nothing proves that it is the same session.
	sessions, err = inspect.Sessions(t.Context(), q, inspect.PIDs(other.pid, idle.pid))
	if err != nil || len(sessions) != 2 {
		t.Fatal(sessions, err)
	}
	outcomes, err := inspect.Terminate(t.Context(), q, inspect.VictimsOf(sessions))
	if err != nil || len(outcomes) != 2 || outcomes[0].Reason != inspect.Hidden || outcomes[1].Reason != inspect.Hidden || !other.alive() || !idle.alive() {
		t.Errorf("%+v, %v", outcomes, err)
	}
}

// A session that holds nothing is ended under the same guards.
func TestEndSessionThatHoldsNothing(t *testing.T) {
	s := newScene(t)
	idle := s.session("idle")
	read := func() []inspect.Victim {
		sessions, err := inspect.Sessions(t.Context(), s.q, inspect.PIDs(idle.pid))
		if err != nil || len(sessions) != 1 {
			t.Fatal(sessions, err)
		}
		return inspect.VictimsOf(sessions)
	}
	outcomes, err := inspect.Cancel(t.Context(), s.q, read())
	if o := one(t, outcomes, err); o.Reason != inspect.Idle {
		t.Errorf("canceling an idle session: %+v", o)
	}
	outcomes, err = inspect.Terminate(t.Context(), s.q, read(), inspect.DryRun())
	if o := one(t, outcomes, err); !o.Signaled || !idle.alive() {
		t.Errorf("a dry run: %+v", o)
	}
	victims := read()
	victims[0].BackendStart = victims[0].BackendStart.Add(-time.Microsecond)
	outcomes, err = inspect.Terminate(t.Context(), s.q, victims)
	if o := one(t, outcomes, err); o.Reason != inspect.Gone || !idle.alive() {
		t.Errorf("another session with the same PID: %+v", o)
	}
	idle.Background("SELECT pg_sleep(100)")
	s.until("the sleep", "SELECT coalesce(wait_event = 'PgSleep', false) FROM pg_stat_activity WHERE pid = $1", idle.pid)
	outcomes, err = inspect.Cancel(t.Context(), s.q, read())
	if o := one(t, outcomes, err); !o.Signaled {
		t.Errorf("%+v", o)
	}
	idle.join()
	outcomes, err = inspect.Terminate(t.Context(), s.q, read(), inspect.WaitGone(patience))
	if o := one(t, outcomes, err); !o.Signaled || !o.Ended || idle.alive() {
		t.Errorf("%+v", o)
	}
}

// Of all blockers, only the one that waits for nobody is ended, and that
// lets the others go on.
func TestCatalogOnlyRoots(t *testing.T) {
	s := newScene(t)
	s.session("setup").do("CREATE TABLE orders (id int, n int)", "INSERT INTO orders VALUES (1, 0), (2, 0)")
	checkout := s.session("checkout").do("BEGIN", "UPDATE orders SET n = 1 WHERE id = 1")
	worker := s.session("worker").do("BEGIN", "UPDATE orders SET n = 2 WHERE id = 2").await("UPDATE orders SET n = 2 WHERE id = 1")
	migrate := s.session("migrate").await("ALTER TABLE orders ADD COLUMN total int")
	web := s.session("web").await("SELECT * FROM orders")

	pairs, err := inspect.Blocked(t.Context(), s.q, inspect.On("orders"))
	if err != nil {
		t.Fatal(err)
	}
	victims := inspect.BlockersOf(pairs)
	if len(victims) != 3 {
		t.Fatalf("the blockers are\n%s", describe(pairs))
	}
	for _, option := range []inspect.EndOption{inspect.DryRun(), inspect.WaitGone(patience)} {
		outcomes, err := inspect.Terminate(t.Context(), s.q, victims, inspect.OnlyRoots(), option)
		if err != nil || len(outcomes) != 3 {
			t.Fatal(outcomes, err)
		}
		for i, o := range outcomes {
			root := o.Victim.PID == checkout.pid
			if o.Victim.PID != victims[i].PID || o.Signaled != root || (o.Reason == inspect.Waiting) == root {
				t.Errorf("%s: %+v", o.Victim.Application, o)
			}
			if o.Victim.PID == worker.pid && !strings.Contains(o.Detail, fmt.Sprintf("it waits for pid %d itself", checkout.pid)) {
				t.Errorf("the worker: %+v", o)
			}
		}
	}
	if checkout.alive() {
		t.Error("the root is alive")
	}
	worker.join().do("COMMIT")
	migrate.join()
	web.join()
	var n, columns int
	if err := s.eye.QueryRow(t.Context(), `SELECT (SELECT sum(n) FROM orders),
		(SELECT count(*) FROM information_schema.columns WHERE table_name = 'orders' AND column_name = 'total')`).Scan(&n, &columns); err != nil {
		t.Fatal(err)
	}
	if n != 4 || columns != 1 {
		t.Errorf("the worker wrote %d, the migration added %d columns", n, columns)
	}
	outcomes, err := inspect.Terminate(t.Context(), s.q, []inspect.Victim{{Session: &inspect.Session{Prepared: &inspect.Prepared{GID: "x"}}}}, inspect.OnlyRoots())
	if o := one(t, outcomes, err); o.Reason != inspect.NoProcess {
		t.Errorf("a prepared transaction: %+v", o)
	}
}
