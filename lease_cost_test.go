package pglock_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// A planNode is a node of a plan, as EXPLAIN (ANALYZE, FORMAT JSON) shows it.
type planNode struct {
	Rows    float64    `json:"Actual Rows"`
	Loops   float64    `json:"Actual Loops"`
	Join    float64    `json:"Rows Removed by Join Filter"`
	Filter  float64    `json:"Rows Removed by Filter"`
	Recheck float64    `json:"Rows Removed by Index Recheck"`
	Plans   []planNode `json:"Plans"`
}

// handled returns how many rows the node and those below it have handled. Postgres reports
// averages of all loops.
func (n planNode) handled() float64 {
	all := (n.Rows + n.Join + n.Filter + n.Recheck) * n.Loops
	for _, below := range n.Plans {
		all += below.handled()
	}
	return all
}

// What it takes to take and to release many leases grows with their number, not with its
// square, whatever the statistics say: also if the statement is prepared, so that Postgres
// does not know the number.
func TestCatalogLeasePlans(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	d.installLeases()
	const n = 1000
	d.exec("ALTER TABLE pglock.lease SET (autovacuum_enabled = off)")
	d.exec("INSERT INTO pglock.session (id, until) VALUES ('me', 'infinity')")
	for statement, file := range map[string]string{"take": "take.sql", "release": "release.sql"} {
		text, err := os.ReadFile("internal/engine/sql/lease/" + file)
		if err != nil {
			t.Fatal(err)
		}
		d.exec("PREPARE " + statement + " AS " + string(text))
	}
	list := func(element func(i int) string) string {
		var all []string
		for i := range n {
			all = append(all, element(i))
		}
		return "'{" + strings.Join(all, ",") + "}'"
	}
	names, slots := list(func(i int) string { return fmt.Sprintf("%04d", i) }), list(func(int) string { return "0" })
	run := func(what, sql string) {
		t.Helper()
		var text string
		d.scan(&text, "EXPLAIN (ANALYZE, FORMAT JSON) "+sql)
		var plans []struct{ Plan planNode }
		if err := json.Unmarshal([]byte(text), &plans); err != nil {
			t.Fatal(err)
		}
		if handled := plans[0].Plan.handled(); handled < n || handled > 50*n {
			t.Errorf("%s: %.0f rows were handled for %d leases:\n%s", what, handled, n, text)
		}
	}
	held := func(want int) {
		t.Helper()
		var held int
		if d.scan(&held, "SELECT count(*) FROM pglock.lease WHERE owner = 'me'"); held != want {
			t.Fatalf("%d leases are held, want %d", held, want)
		}
	}
	take := func(what string) {
		t.Helper()
		run("take, "+what, fmt.Sprintf("EXECUTE take(%s, %s, %s, %s, 'me')", names, slots, slots, list(func(int) string { return `""` })))
		held(n)
	}
	release := func(what string) {
		t.Helper()
		var tokens string
		d.scan(&tokens, "SELECT array_agg(token ORDER BY name)::text FROM pglock.lease WHERE owner = 'me'")
		run("release, "+what, fmt.Sprintf("EXECUTE release(%s, %s, '%s', %s, 'me')", names, slots, tokens, list(func(int) string { return "false" })))
		held(0)
	}
	for _, mode := range []string{"force_generic_plan", "force_custom_plan"} {
		d.exec("SET plan_cache_mode = " + mode)
		d.exec("TRUNCATE pglock.lease")
		d.exec("INSERT INTO pglock.lease (name, token) VALUES ('other', 1)")
		d.exec("VACUUM ANALYZE pglock.lease")
		d.exec("INSERT INTO pglock.lease (name, token) SELECT to_char(i, 'fm0000'), 1 FROM generate_series(0, $1::int - 1) AS i", n)
		take(mode + ", one lease when it was analyzed")
		release(mode + ", one lease when it was analyzed")
		d.exec("ANALYZE pglock.lease")
		take(mode + ", all free when it was analyzed")
		release(mode + ", all free when it was analyzed")
		take(mode + ", all free when it was analyzed")
		d.exec("ANALYZE pglock.lease")
		release(mode + ", all held when it was analyzed")
		take(mode + ", all held when it was analyzed")
		release(mode + ", all held when it was analyzed")
	}
}

// A snapshot that is held for an hour keeps every version of a session's row. Renewing it
// stays cheap all the same: the versions take a few pages, and few of them are read.
func TestCatalogRenewalsUnderASnapshot(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	d.installLeases()
	text, err := os.ReadFile("internal/engine/sql/lease/renew.sql")
	if err != nil {
		t.Fatal(err)
	}
	d.exec("PREPARE renew AS " + string(text))
	d.exec("INSERT INTO pglock.session (id, until) SELECT 'other ' || i, 'infinity' FROM generate_series(1, 20) AS i")
	d.exec("INSERT INTO pglock.session (id, until) VALUES ('me', 'infinity')")
	holder, err := pgx.Connect(t.Context(), d.dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer holder.Close(context.Background())
	for _, sql := range []string{"BEGIN ISOLATION LEVEL REPEATABLE READ", "SELECT FROM pglock.session"} {
		if _, err := holder.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	cost := func() (pages, read int) {
		t.Helper()
		var text string
		d.scan(&text, "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE renew('me', '3600000')")
		var plans []struct {
			Plan struct {
				Hit  int `json:"Shared Hit Blocks"`
				Read int `json:"Shared Read Blocks"`
			}
		}
		if err := json.Unmarshal([]byte(text), &plans); err != nil {
			t.Fatal(err)
		}
		d.scan(&pages, "SELECT pg_relation_size('pglock.session') / current_setting('block_size')::int")
		return pages, plans[0].Plan.Hit + plans[0].Plan.Read
	}
	pages, read := cost()
	const heartbeats = 360 // an hour's, with a time to live of 30 seconds
	var broken string
	for range heartbeats {
		d.scan(&broken, "EXECUTE renew('me', '3600000')")
	}
	after, readAfter := cost()
	t.Logf("%d pages, %d read at first; after %d renewals %d pages, %d read", pages, read, heartbeats, after, readAfter)
	if after > pages+10 || readAfter > read+20 {
		t.Errorf("the table grew from %d to %d pages, and a renewal reads %d instead of %d", pages, after, readAfter, read)
	}
	if broken != "0" || after == pages {
		t.Errorf("the last renewal says %q, and there are %d pages: the row was not renewed", broken, after)
	}
	if _, err := holder.Exec(t.Context(), "SELECT 1 / (count(*) = 21)::int FROM pglock.session WHERE until = 'infinity'"); err != nil {
		t.Errorf("the snapshot was not held: %v", err)
	}
}
