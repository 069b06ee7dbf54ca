//go:build unix

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pglock-go/pglock/internal/pgserver"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
)

// silentPort returns a port that accepts connections and never answers.
func silentPort(t *testing.T) int {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	return listener.Addr().(*net.TCPAddr).Port
}

// configFile writes a config file with databases, and lets commands in s read it.
func (s *site) configFile(t *testing.T, databases map[string]string) {
	t.Helper()
	text := "databases:\n"
	for name, connString := range databases {
		text += fmt.Sprintf("  %s: %q\n", name, connString)
	}
	path := filepath.Join(t.TempDir(), "pglock.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s.needs = append(s.needs, "PGLOCK_CONFIG="+path)
}

// blockOrders creates the table orders in a database, and lets an application wait for a
// lock on it that it holds itself.
func blockOrders(t *testing.T, connString, application string) {
	t.Helper()
	holder := connectTo(t, connString+" application_name="+application)
	holder.exec(t, "CREATE TABLE orders ()")
	holder.exec(t, "BEGIN")
	holder.exec(t, "LOCK TABLE orders")
	waiter := connectTo(t, connString+" application_name="+application)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = waiter.conn.Exec(context.Background(), "SELECT FROM orders")
	}()
	t.Cleanup(func() { holder.close(); <-done })
	observer := connectTo(t, connString)
	eventually(t, "somebody waits", func() (waits bool) {
		row := observer.conn.QueryRow(t.Context(), "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND pid = $1)", int32(waiter.conn.PgConn().PID()))
		if err := row.Scan(&waits); err != nil {
			t.Fatal(err)
		}
		return waits
	})
}

// objectsOf parses an array of objects.
func objectsOf(t *testing.T, text string) []map[string]any {
	t.Helper()
	var objects []map[string]any
	if err := json.Unmarshal([]byte(text), &objects); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return objects
}

// tally counts objects by the values of some names.
func tally(objects []map[string]any, names ...string) map[string]int {
	count := map[string]int{}
	for _, o := range objects {
		var values []string
		for _, name := range names {
			values = append(values, fmt.Sprint(o[name]))
		}
		count[strings.Join(values, " ")]++
	}
	return count
}

func wantTally(t *testing.T, what string, got map[string]int, want ...string) {
	t.Helper()
	for _, w := range want {
		if got[w] != 1 {
			t.Errorf("%s: %d of %s, not 1", what, got[w], w)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%s: %v, not %q", what, got, want)
	}
}

// Two servers and a standby, one of them under three names, and two that do not answer.
func TestSeveralDatabases(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	second := pgtest.DatabaseOn(t, s.server)
	primary := pgtest.Own(t, pgserver.Options{})
	standby := pgtest.Standby(t, primary)
	application := "several_" + s.name
	for _, connString := range []string{s.server.ConnString(second), s.server.ConnString(s.name), primary.ConnString("postgres")} {
		blockOrders(t, connString, application)
	}
	onStandby := connectTo(t, standby.ConnString("postgres")+" application_name="+application)
	onStandby.exec(t, "SELECT pg_advisory_lock(42)")
	s.exec(t, "CREATE TABLE only_in_two ()")
	dead, silent := deadPort(t), silentPort(t)
	s.configFile(t, map[string]string{
		"one":     s.server.ConnString(second),
		"two":     s.server.ConnString(s.name),
		"two-too": s.server.ConnString(s.name),
		"primary": primary.ConnString("postgres"),
		"standby": standby.ConnString("postgres"),
		"down":    fmt.Sprintf("host=127.0.0.1 port=%d", dead),
		"silent":  fmt.Sprintf("host=127.0.0.1 port=%d connect_timeout=2", silent),
	})
	down := fmt.Sprintf("pglock: down: cannot connect to 127.0.0.1:%d: connection refused\n", dead)
	failures := down + fmt.Sprintf("pglock: silent: cannot connect to 127.0.0.1:%d: no answer within 2s\n", silent)
	ours := "application = " + application

	// Each lock once, with the names of its own database.
	out, errs, code := s.once(t, nil, "ls", "--all", "-o", "json", "-f", ours, "-f", "type in (relation, advisory)")
	if code != 69 || errs != failures {
		t.Errorf("ls: exit code %d, %s", code, errs)
	}
	locks := objectsOf(t, out)
	wantTally(t, "ls", tally(locks, "database_name", "target", "granted"),
		"one public.orders true", "one public.orders false", "two public.orders true", "two public.orders false",
		"primary public.orders true", "primary public.orders false", "standby advisory 42 true")
	contract := union(contractOfLock, contractOfSession, map[string]string{"database_name": "string"})
	for _, l := range locks {
		holds(t, "a lock of several databases", l, contract, map[string]bool{})
	}
	if !slices.IsSortedFunc(locks, func(a, b map[string]any) int {
		if a["granted"] == b["granted"] {
			return 0
		} else if a["granted"] == true {
			return 1
		}
		return -1
	}) {
		t.Error("waiting locks are not first")
	}
	out, _, _ = s.once(t, nil, "ls", "--all", "-l", "2", "-o", "csv", "-a", "pid", "-f", ours)
	if !strings.HasPrefix(out, "database_name,pid\n") || strings.Count(out, "\n") != 3 {
		t.Errorf("ls -o csv -l 2: %s", out)
	}
	out, _, _ = s.once(t, nil, "ls", "--blocking", "-d", "two,one,two-too,primary", "-o", "json", "-f", ours)
	wantTally(t, "ls --blocking", tally(objectsOf(t, out), "database_name", "schema", "relation"),
		"one public orders", "two public orders", "primary public orders")

	// The sessions of this very command are not listed.
	out, errs, code = s.once(t, nil, "ps", "-d", "one, two,two-too", "-o", "json", "-a", "database,application",
		"-f", "database in ("+s.name+", "+second+")", "-f", "backend_type = client backend")
	if code != 0 || errs != "" {
		t.Errorf("ps: exit code %d, %s", code, errs)
	}
	for _, p := range objectsOf(t, out) {
		if name := map[any]string{s.name: "two", second: "one"}[p["database"]]; p["database_name"] != name || p["application"] == "pglock ps" {
			t.Errorf("ps: %v", p)
		}
	}

	// A tree is in the picture of its server, and each session has the name.
	out, errs, code = s.once(t, nil, "tree", "--all", "-o", "json", "-f", ours)
	if code != 69 || errs != failures {
		t.Errorf("tree: exit code %d, %s", code, errs)
	}
	roots := objectsOf(t, out)
	wantTally(t, "tree", tally(roots, "database_name"), "one", "two", "primary")
	for _, r := range roots {
		holds(t, "a root of several databases", r, union(contractOfSession, contractOfTree, map[string]string{"database_name": "string"}), map[string]bool{})
		waiter := r["blocked"].([]any)[0].(map[string]any)
		if waiter["database_name"] != r["database_name"] || waiter["waits_for"].(map[string]any)["target"] != "public.orders" {
			t.Errorf("tree: %v", waiter)
		}
	}
	out, _, code = s.once(t, nil, "tree", "-d", "primary,two,standby,one", "-f", ours)
	if code != 0 || !strings.HasPrefix(out, "primary:\npid ") || !strings.Contains(out, "\n\ntwo, one:\npid ") || !strings.Contains(out, "\n\nstandby:\nnobody waits\n") {
		t.Errorf("tree: exit code %d\n%s", code, out)
	}

	// A table is looked up in each database.
	out, errs, code = s.once(t, nil, "ls", "-d", "one,two,primary", "--on", "orders", "-o", "json", "-f", ours)
	if code != 0 || errs != "" || len(objectsOf(t, out)) != 6 {
		t.Errorf("ls --on: exit code %d, %s\n%s", code, errs, out)
	}
	_, errs, code = s.once(t, nil, "ls", "-d", "one,two", "--on", "only_in_two")
	if code != 0 || !strings.HasPrefix(errs, "pglock: one: reading the locks: there is no table \"only_in_two\" in this database") {
		t.Errorf("a table of one database: exit code %d, %s", code, errs)
	}
	_, errs, code = s.once(t, nil, "ps", "-d", "one,two", "--on", "nowhere")
	if code != 2 || strings.Count(errs, "\n") != 1 {
		t.Errorf("a table of no database: exit code %d, %s", code, errs)
	}
	_, errs, code = s.once(t, nil, "ls", "-d", "one,primary", "-f", "application = "+application+"x")
	if code != 0 || errs != "pglock: no lock on the server matches \"application = "+application+"x\"\n" {
		t.Errorf("a filter that matches nothing: exit code %d, %s", code, errs)
	}

	// Findings about a server that two names share are there once.
	out, _, code = s.once(t, nil, "doctor", "-d", "one,two,standby,down", "-o", "json")
	if code != 1 {
		t.Errorf("doctor: exit code %d", code)
	}
	count := tally(objectsOf(t, out), "database_name", "id")
	for id, want := range map[string]int{
		"one prepared": 1, "two prepared": 0, "standby prepared": 1, "one lock_table": 1, "two lock_table": 0,
		"one version": 1, "two version": 1, "down reachable": 1, "<nil> config": 1, "<nil> terminal": 1,
	} {
		if count[id] != want {
			t.Errorf("doctor: %d of %s, not %d", count[id], id, want)
		}
	}
	out, _, _ = s.once(t, nil, "doctor", "-d", "one,two,down", "--only", "connection,now")
	if !strings.HasPrefix(out, "one:\n[") || !strings.Contains(out, "\n\ntwo, on the server of one:\n[") || !strings.Contains(out, "\n\ndown:\n[✗] connection  cannot connect") {
		t.Errorf("doctor: %s", out)
	}
}

// A plain role reads which server this is, so that two names of it are one picture.
func TestSeveralAsAPlainRole(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	second := pgtest.DatabaseOn(t, s.server)
	role := "plain_" + s.name
	s.exec(t, "CREATE ROLE "+role+" LOGIN")
	t.Cleanup(func() { // before the session of s is closed
		if _, err := s.conn.Exec(context.Background(), "DROP ROLE "+role); err != nil {
			t.Error(err)
		}
	})
	s.exec(t, "SELECT pg_advisory_lock(4711)")
	out, errs, code := s.once(t, nil, "ls", "-U", role, "-d", second+","+s.name, "-o", "json", "-a", "key", "-f", "key = 4711")
	if code != 0 || !strings.Contains(errs, "pglock: "+s.name+": the activity of 1 session is hidden from this role") {
		t.Errorf("exit code %d, %s", code, errs)
	}
	wantTally(t, "ls", tally(objectsOf(t, out), "database_name"), s.name)
}

// With --watch, servers that do not answer do not delay the others, however many they are.
func TestWatchBesideSilence(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	dead, silent := deadPort(t), silentPort(t)
	databases := map[string]string{"z": s.server.ConnString(s.name), "dead": fmt.Sprintf("host=127.0.0.1 port=%d", dead)}
	for i := range 6 {
		databases[fmt.Sprint("silent", i)] = fmt.Sprintf("host=127.0.0.1 port=%d connect_timeout=600", silent)
	}
	s.configFile(t, databases)
	c := s.start(t, "tree", "--watch=200ms", "--all", "-f", "application = nobody")
	for range 3 { // frames
		if first, second, empty := c.line(), c.line(), c.line(); first != "z:" || second != "nobody waits" || empty != "" {
			t.Errorf("a frame is %q, %q, %q", first, second, empty)
		}
	}
	for _, want := range []string{"pglock: silent5: no answer yet\n", "pglock: dead: cannot connect to "} {
		if errs := c.errors(); strings.Count(errs, want) != 1 {
			t.Errorf("stderr is %s", errs)
		}
	}
	if err := c.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if code := c.wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// A database that comes back is shown again.
func TestWatchReconnectsToOneOfSeveral(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	second := pgtest.DatabaseOn(t, s.server)
	c := s.start(t, "ls", "--watch=100ms", "-d", s.name+","+second, "-o", "csv", "-f", "application = nobody", "-a", "pid")
	if line := c.line(); line != "database_name,pid" {
		t.Fatal(line)
	}
	mine := "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pglock ls' AND datname = '" + second + "'"
	s.exec(t, mine)
	eventually(t, "the loss is reported", func() bool { return strings.Contains(c.errors(), "pglock: "+second+": ") })
	eventually(t, "it connects again", func() (there bool) {
		row := s.conn.QueryRow(t.Context(), "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'pglock ls' AND datname = $1)", second)
		if err := row.Scan(&there); err != nil {
			t.Fatal(err)
		}
		return there
	})
	if err := c.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if code := c.wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// A limit applies even without a connect_timeout.
func TestOneSilentDatabaseIsBounded(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	silent := fmt.Sprintf("host=127.0.0.1 port=%d", silentPort(t))
	s.configFile(t, map[string]string{"silent": silent, "here": s.server.ConnString(s.name)})
	began := time.Now()
	out, errs, code := s.once(t, nil, "tree", "--all", "-f", "application = nobody")
	if code != 69 || out != "here:\nnobody waits\n" || !strings.Contains(errs, "no answer within 5s\n") {
		t.Errorf("exit code %d after %v: %s%s", code, time.Since(began), out, errs)
	}
}
