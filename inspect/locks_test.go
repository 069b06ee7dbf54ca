package inspect_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
)

func TestLocksOfRelations(t *testing.T) {
	s := newScene(t)
	s.session("setup").do(
		"CREATE SCHEMA app",
		`CREATE TABLE app."Orders" (id int PRIMARY KEY, "note" text)`,
		`CREATE VIEW app.v AS SELECT 1 AS one`,
		`CREATE MATERIALIZED VIEW app.m AS SELECT 1 AS one`,
		`CREATE SEQUENCE app.s`,
		`CREATE TABLE app.p (id int) PARTITION BY RANGE (id)`,
		`CREATE INDEX pi ON app.p (id)`,
		`CREATE TABLE app.p1 PARTITION OF app.p FOR VALUES FROM (0) TO (10)`,
		`CREATE FOREIGN DATA WRAPPER w`,
		`CREATE SERVER f FOREIGN DATA WRAPPER w`,
		`CREATE FOREIGN TABLE app.f (id int) SERVER f`,
		`CREATE TYPE app.c AS (id int)`,
	)
	holder := s.session("holder").do("BEGIN", `LOCK TABLE app."Orders" IN SHARE MODE`)
	waiter := s.session("waiter").do("BEGIN").await(`/*pga_context={"url": "/x"}*/ LOCK TABLE app."Orders" /*job='nightly'*/`)

	l := holder.find("of the table", func(l inspect.Lock) bool { return l.Relation == "Orders" })
	if l.Type != "relation" || l.Mode != "ShareLock" || !l.Granted || l.FastPath || l.Schema != "app" || l.Kind != "TABLE" {
		t.Errorf("the held lock is %+v", l)
	}
	if l.Target() != "app.Orders" {
		t.Errorf("its target is %q", l.Target())
	}
	if l.Application != "holder" || l.Database == "" || l.State != "idle in transaction" || l.BackendType != "client backend" {
		t.Errorf("its session is %+v", l.Session)
	}
	if l.BackendStart.IsZero() || l.XactStart.IsZero() || l.QueryStart.IsZero() || l.StateChange.IsZero() || l.Duration <= 0 {
		t.Errorf("the times of its session are %+v", l.Session)
	}
	if !l.WaitStart.IsZero() || l.WaitDuration != 0 || l.WaitApprox {
		t.Errorf("a held lock waits: %+v", l)
	}

	w := waiter.find("waited for", func(l inspect.Lock) bool { return !l.Granted })
	if w.Relation != "Orders" || w.Mode != "AccessExclusiveLock" {
		t.Errorf("the awaited lock is %+v", w)
	}
	if age := time.Since(w.WaitStart); age < 0 || age > patience || w.WaitDuration <= 0 || w.WaitDuration > patience {
		t.Errorf("it waits since %v, for %v", w.WaitStart, w.WaitDuration)
	}
	if exact := s.version() >= 140000; w.WaitApprox == exact {
		t.Errorf("WaitApprox is %v on version %d", w.WaitApprox, s.version())
	}
	if w.Query != `LOCK TABLE app."Orders"` || w.Context != `{"url":"/x","job":"nightly"}` {
		t.Errorf("its query is %q, its context %q", w.Query, w.Context)
	}
	if w.WaitEventType != "Lock" || w.WaitEvent != "relation" || w.State != "active" {
		t.Errorf("the session that waits is %+v", w.Session)
	}

	for _, test := range []struct{ kind, sql, relation string }{
		{"VIEW", "LOCK TABLE app.v", "v"},
		{"MATERIALIZED_VIEW", "REFRESH MATERIALIZED VIEW app.m", "m"},
		{"SEQUENCE", "DROP SEQUENCE app.s", "s"},
		{"PARTITIONED_TABLE", "LOCK TABLE app.p", "p"},
		{"TABLE", "LOCK TABLE app.p", "p1"},
		{"PARTITIONED_INDEX", "DROP INDEX app.pi", "pi"},
		{"FOREIGN_TABLE", "ALTER FOREIGN TABLE app.f ADD COLUMN x int", "f"},
		{"COMPOSITE_TYPE", "ALTER TYPE app.c ADD ATTRIBUTE x int", "c"},
		{"INDEX", `DROP TABLE app."Orders"`, "Orders_pkey"},
		{"TOAST", `DROP TABLE app."Orders"`, "pg_toast_"},
	} {
		if strings.Contains(test.sql, "Orders") {
			holder.do("ROLLBACK")
			waiter.join().do("ROLLBACK")
		}
		a := s.session(test.kind).do("BEGIN", test.sql)
		l := a.find("of "+test.relation, func(l inspect.Lock) bool {
			if l.Mode != "AccessExclusiveLock" || !strings.HasPrefix(l.Relation, test.relation) {
				return false
			}
			return l.Kind == test.kind
		})
		if l.Type != "relation" {
			t.Errorf("%s: %+v", test.kind, l)
		}
		a.do("ROLLBACK")
	}
}

func (s *scene) version() (version int) {
	s.t.Helper()
	if err := s.eye.QueryRow(s.t.Context(), "SELECT current_setting('server_version_num')::int").Scan(&version); err != nil {
		s.t.Fatal(err)
	}
	return version
}

func TestLocksOfKeys(t *testing.T) {
	s := newScene(t)
	a := s.session("a")
	for _, key := range []pglock.Key{
		pglock.Int(0), pglock.Int(1), pglock.Int(-5), pglock.Int(1<<63 - 1), pglock.Int(-1 << 63), pglock.Int(1 << 32),
		pglock.Pair(0, 0), pglock.Pair(-7, 9), pglock.Pair(1<<31-1, -1<<31),
	} {
		arguments := fmt.Sprint(key.ID())
		if class, object, ok := key.Pair(); ok {
			arguments = fmt.Sprintf("%d, %d", class, object)
		}
		a.do("SELECT pg_advisory_lock_shared(" + arguments + ")")
		l := a.find("advisory", func(l inspect.Lock) bool { return l.Type == "advisory" })
		if !l.HasKey || l.Key != key || l.Mode != "ShareLock" || l.Target() != "advisory "+key.String() {
			t.Errorf("the lock of %v is %+v", key, l)
		}
		a.do("SELECT pg_advisory_unlock_shared(" + arguments + ")")
	}
}

func TestLocksOfOtherDatabases(t *testing.T) {
	s := newScene(t)
	other := pgtest.Database(t)
	b := s.sessionIn(other, "b").do("CREATE TABLE t ()", "BEGIN", "LOCK TABLE t", "SELECT pg_advisory_lock(1)")
	var name string
	var oid uint32
	if err := b.conn.QueryRow(t.Context(), "SELECT current_database(), 't'::regclass::oid").Scan(&name, &oid); err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("%s:%d", name, oid)
	l := b.find("of its table", func(l inspect.Lock) bool { return l.Relation == want })
	if l.Kind != "" || l.Schema != "" || l.Database != name || l.Mode != "AccessExclusiveLock" {
		t.Errorf("the lock is %+v", l)
	}
	b.find("advisory", func(l inspect.Lock) bool { return l.HasKey && l.Database == name })
	for _, l := range s.locks() {
		if l.PID == b.pid && l.DatabaseOID == 0 && l.RelationOID != 0 && l.Schema != "pg_catalog" {
			t.Errorf("a catalog that all databases share is %+v", l)
		}
	}
}

// A table that is not committed yet, or is gone, has no name for other sessions.
func TestLocksOfNamelessRelations(t *testing.T) {
	s := newScene(t)
	a := s.session("a").do("BEGIN", "CREATE TABLE t ()")
	var oid uint32
	if err := a.conn.QueryRow(t.Context(), "SELECT 't'::regclass::oid").Scan(&oid); err != nil {
		t.Fatal(err)
	}
	l := a.find("of the new table", func(l inspect.Lock) bool {
		return l.RelationOID == oid && l.Mode == "AccessExclusiveLock"
	})
	if l.Relation != fmt.Sprint(oid) || l.Schema != "" || l.Kind != "" {
		t.Errorf("the lock is %+v", l)
	}

	// Dropped by the session that created it: it has no name for anybody, and its
	// lock lasts until the end of the transaction.
	a.do("DROP TABLE t")
	l = a.find("of the dropped table", func(l inspect.Lock) bool {
		return l.RelationOID == oid && l.Mode == "AccessExclusiveLock"
	})
	if l.Relation != fmt.Sprint(oid) || l.Schema != "" || l.Kind != "" {
		t.Errorf("the lock is %+v", l)
	}

	// Dropped, but not committed: it still exists for all others, with its name.
	s.session("maker").do("CREATE TABLE old ()")
	b := s.session("b").do("BEGIN", "DROP TABLE old")
	l = b.find("of the table that is to go", func(l inspect.Lock) bool {
		return l.Relation == "old" && l.Mode == "AccessExclusiveLock"
	})
	if l.Schema != "public" || l.Kind != "TABLE" {
		t.Errorf("the lock is %+v", l)
	}
}

// The read does not show its own locks, but shows the session's other locks.
func TestLocksOfTheReader(t *testing.T) {
	s := newScene(t)
	if n := len(s.locks()); n > 0 {
		// Other tests run on this server, one after the other, and a background
		// process may hold a lock for a moment.
		for _, l := range s.locks() {
			if l.Application == "eye" {
				t.Errorf("the reader sees its own %s of %s", l.Mode, l.Target())
			}
		}
	}
	for _, sql := range []string{"CREATE TABLE t ()", "BEGIN", "LOCK TABLE t IN ACCESS SHARE MODE", "SELECT pg_advisory_lock(3)"} {
		if err := s.me.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	got := map[string]bool{}
	for _, l := range s.locks() {
		if l.Application == "eye" {
			got[l.Target()] = true
		}
	}
	if len(got) != 2 || !got["public.t"] || !got["advisory 3"] {
		t.Errorf("the reader sees its own %v", got)
	}
}
