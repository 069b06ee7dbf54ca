//go:build unix

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pglock-go/pglock"
)

// The names and types that docs/command.md promises for the JSON. Names may be added, here
// and there.
var (
	contractOfLock = map[string]string{
		"type": "string", "mode": "string", "granted": "bool", "wait_start": "time", "wait_duration": "seconds",
		"kind": "string", "relation": "string", "schema": "string", "key": "string", "page": "number", "tuple": "number",
		"transactionid": "number", "virtualxid": "string", "target": "string", "fastpath": "bool",
	}
	contractOfSession = map[string]string{
		"pid": "number", "user": "string", "database": "string", "application": "string", "client": "string",
		"client_hostname": "string", "client_port": "number", "backend_xid": "number", "backend_xmin": "number", "xmin_age": "number", "xact_duration": "seconds",
		"backend_type": "string", "backend_start": "time", "xact_start": "time", "query_start": "time", "state_change": "time",
		"duration": "seconds", "state": "string", "wait_event_type": "string", "wait_event": "string", "leader_pid": "number",
		"query_id": "number", "context": "object", "query": "string",
	}
	contractOfTree = map[string]string{
		"hidden": "bool", "prepared": "object", "depth": "number", "behind": "number", "longest_wait": "seconds",
		"cycle": "bool", "again": "bool", "waits_for": "object", "blocked": "array",
	}
	contractOfOutcome = map[string]string{
		"prepared": "object", "blocks": "number", "status": "string", "ended": "bool", "reason": "string", "grant": "string", "allow": "string",
	}
	contractOfWho = map[string]string{
		"name": "string", "key": "string", "held": "bool", "holders": "array", "waiters": "array", "leases": "array",
	}
	contractOfLease = map[string]string{
		"lease": "string", "slot": "number", "state": "string", "process": "number", "program": "string", "host": "string", "note": "string",
		"token": "number", "since": "time", "duration": "seconds", "left": "seconds", "due": "seconds", "wanted": "bool",
	}
	contractOfUser = map[string]string{
		"prepared": "object", "mode": "string", "wait_start": "time", "wait_duration": "seconds",
	}
)

func union(all ...map[string]string) map[string]string {
	u := map[string]string{}
	for _, m := range all {
		maps.Copy(u, m)
	}
	return u
}

// jsonObjects runs pglock and parses the objects that it prints.
func (s site) jsonObjects(t *testing.T, args ...string) []map[string]any {
	t.Helper()
	cmd := exec.Command(s.binary(t), args...)
	cmd.Args[0] = "pglock"
	cmd.Env = s.env()
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v", args, err)
	}
	var objects []map[string]any
	if err := json.Unmarshal(out, &objects); err != nil {
		t.Fatalf("%v: %v: %s", args, err, out)
	}
	if len(objects) == 0 {
		t.Fatalf("%v: nothing", args)
	}
	return objects
}

// holds checks that an object has exactly the names of a contract. It records in seen
// which of them had a value.
func holds(t *testing.T, what string, object map[string]any, contract map[string]string, seen map[string]bool) {
	t.Helper()
	if got, want := slices.Sorted(maps.Keys(object)), slices.Sorted(maps.Keys(contract)); !slices.Equal(got, want) {
		t.Errorf("%s has the names\n%v, not\n%v", what, got, want)
	}
	for name, value := range object {
		if value == nil {
			continue
		}
		seen[name] = true
		ok := false
		switch v := value.(type) {
		case string:
			ok = contract[name] == "string"
			if contract[name] == "time" {
				at, err := time.Parse(time.RFC3339Nano, v)
				ok = err == nil && strings.HasSuffix(v, "Z") && time.Since(at).Abs() < time.Hour
			}
		case float64:
			ok = contract[name] == "number" || contract[name] == "seconds" && v >= 0 && v < 3600
		case bool:
			ok = contract[name] == "bool"
		case map[string]any:
			ok = contract[name] == "object"
		case []any:
			ok = contract[name] == "array"
		}
		if !ok {
			t.Errorf("%s: %s is %v, not a %s", what, name, value, contract[name])
		}
	}
}

func TestJSONContract(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	holder := connectTo(t, s.server.ConnString(s.name)+" application_name=holder")
	holder.exec(t, "CREATE TABLE orders (id int PRIMARY KEY)")
	holder.exec(t, "INSERT INTO orders VALUES (1)")
	holder.exec(t, "SELECT pg_advisory_lock(42)")
	holder.exec(t, "BEGIN")
	holder.exec(t, "/*pga_context={\"job\": \"nightly\"}*/ UPDATE orders SET id = 1")
	var pids []string
	for range 2 {
		waiter := connectTo(t, s.server.ConnString(s.name)+" application_name=waiter")
		pid := fmt.Sprint(waiter.conn.PgConn().PID())
		pids = append(pids, pid)
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _ = waiter.conn.Exec(context.Background(), "UPDATE orders SET id = 1 WHERE id = 1")
		}()
		t.Cleanup(func() { holder.close(); <-done })
		eventually(t, "somebody waits", func() (waits bool) {
			row := s.conn.QueryRow(t.Context(), "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND pid = "+pid+")")
			if err := row.Scan(&waits); err != nil {
				t.Fatal(err)
			}
			return waits
		})
	}
	here := "database=" + s.name
	all := func(contract map[string]string, seen map[string]bool, but ...string) {
		t.Helper()
		for name := range contract {
			if !seen[name] && !slices.Contains(but, name) {
				t.Errorf("nothing has a %s", name)
			}
		}
	}
	// Names without a value in this scene, or in old versions of Postgres.
	const rare = "client client_hostname client_port leader_pid query_id blocking_client blocking_client_hostname blocking_client_port " +
		"blocking_leader_pid blocking_query_id schema prepared reason grant allow page tuple"
	absent := append(strings.Fields(rare), "key", "kind", "relation", "context", "virtualxid", "blocking_context", "target")

	lock := union(contractOfLock, contractOfSession)
	seen := map[string]bool{}
	for _, more := range [][]string{nil, {"-f", "type = virtualxid"}} { // these are left out if not asked for
		for _, l := range s.jsonObjects(t, append([]string{"ls", "-o", "json", "-l", "0", "-f", here}, more...)...) {
			holds(t, "a lock", l, lock, seen)
		}
	}
	all(lock, seen, strings.Fields(rare)...)

	seen = map[string]bool{}
	for _, p := range s.jsonObjects(t, "ps", "-o", "json", "-l", "0", "-f", here) {
		holds(t, "a session", p, contractOfSession, seen)
	}
	all(contractOfSession, seen, strings.Fields(rare)...)

	pair := union(lock, map[string]string{"block": "string"})
	for name, kind := range contractOfSession {
		pair["blocking_"+name] = kind
	}
	seen = map[string]bool{}
	for _, p := range s.jsonObjects(t, "ls", "--blocking", "-o", "json", "-f", here) {
		holds(t, "a pair", p, pair, seen)
	}
	all(pair, seen, absent...)

	node := union(contractOfSession, contractOfTree)
	wait := union(contractOfLock, map[string]string{"block": "string", "held_mode": "string"})
	seen = map[string]bool{}
	seenWait := map[string]bool{}
	var visit func(object map[string]any)
	visit = func(object map[string]any) {
		holds(t, "a node", object, node, seen)
		if w, ok := object["waits_for"].(map[string]any); ok {
			holds(t, "a wait", w, wait, seenWait)
		}
		for _, b := range object["blocked"].([]any) {
			visit(b.(map[string]any))
		}
	}
	for _, root := range s.jsonObjects(t, "tree", "-o", "json", "-f", here) {
		visit(root)
	}
	all(node, seen, absent...)
	all(wait, seenWait, append(absent, "transactionid")...)

	outcome := union(contractOfSession, contractOfOutcome)
	seen = map[string]bool{}
	for _, o := range s.jsonObjects(t, append([]string{"terminate", "--dry-run", "-o", "json"}, pids...)...) {
		holds(t, "an outcome", o, outcome, seen)
	}
	all(outcome, seen, absent...)

	user := union(contractOfSession, contractOfUser)
	seen = map[string]bool{}
	waiter := connectTo(t, s.server.ConnString(s.name)+" application_name=waiter")
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = waiter.conn.Exec(context.Background(), "SELECT pg_advisory_lock(42)")
	}()
	t.Cleanup(func() { holder.close(); <-done })
	if err := s.awaitLock(pglock.Int(42), "NOT granted", true); err != nil {
		t.Fatal(err)
	}
	for _, u := range s.jsonObjects(t, "who", "-o", "json", "--key", "42") {
		holds(t, "a lock of who", u, contractOfWho, map[string]bool{})
		for _, list := range []string{"holders", "waiters"} {
			sessions := u[list].([]any)
			if len(sessions) != 1 {
				t.Errorf("%d %s, not 1", len(sessions), list)
			}
			for _, session := range sessions {
				holds(t, "one of the "+list, session.(map[string]any), user, seen)
			}
		}
	}
	all(user, seen, append(absent, "xact_start")...)

	s.installLeases(t)
	s.exec(t, "INSERT INTO pglock.session (id, until, app, host, pid) VALUES ('s', now() + interval '1 h', 'worker', 'web-1', 42)")
	s.exec(t, "INSERT INTO pglock.lease (name, token, owner, since, free_at, note) VALUES ('job', 7, 's', now(), now() + interval '1 min', 'n')")
	seen = map[string]bool{}
	leases := s.jsonObjects(t, "leases", "-o", "json")
	for _, u := range s.jsonObjects(t, "who", "-o", "json", "job") {
		for _, l := range u["leases"].([]any) {
			leases = append(leases, l.(map[string]any))
		}
	}
	if len(leases) != 2 {
		t.Errorf("%d leases, not 2", len(leases))
	}
	for _, l := range leases {
		holds(t, "a lease", l, contractOfLease, seen)
	}
	all(contractOfLease, seen)

	// The guide documents each name.
	guide, err := os.ReadFile("../../docs/command.md")
	if err != nil {
		t.Fatal(err)
	}
	for name := range union(lock, contractOfTree, contractOfOutcome, wait, contractOfWho, contractOfLease, map[string]string{"database_name": "string"}) {
		if !strings.Contains(string(guide), "`"+name+"`") {
			t.Errorf("docs/command.md does not tell of %s", name)
		}
	}
}
