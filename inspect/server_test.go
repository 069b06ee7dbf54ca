package inspect_test

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/internal/pgserver"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
)

// A standby is inspected and acted on like any server.
func TestStandby(t *testing.T) {
	server := pgtest.Own(t, pgserver.Options{})
	if err := server.Shutdown(t.Context(), pgserver.Fast); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(server.Folder(), "data", "standby.signal"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := server.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	s := newSceneIn(t, server.ConnString("postgres"))
	s.session("a").do("SELECT pg_advisory_lock(1)")
	b := s.session("b").await("SELECT pg_advisory_lock(1)")
	snapshot := s.wantPairs("b waits for ExclusiveLock of advisory 1: hard by a with ExclusiveLock")
	if !snapshot.Server.InRecovery {
		t.Error("the server is not a standby")
	}
	if n := len(s.where(inspect.On("pg_class"))); n != 0 {
		t.Errorf("%d locks of pg_class", n)
	}
	outcomes, err := inspect.Terminate(t.Context(), s.q, inspect.BlockersOf(snapshot.Pairs), inspect.WaitGone(patience))
	if o := one(t, outcomes, err); !o.Signaled || !o.Ended {
		t.Errorf("%+v", o)
	}
	b.join()
}

// Sessions that make one table grow wait for each other for moments.
func TestExtend(t *testing.T) {
	s := newScene(t)
	s.session("setup").do("CREATE TABLE t (x text)", "ALTER TABLE t ALTER x SET STORAGE PLAIN")
	for i := range 6 {
		s.session(fmt.Sprint("w", i)).Background("DO $$ BEGIN FOR i IN 1..1000000 LOOP INSERT INTO t VALUES (repeat('x', 7000)); END LOOP; END $$")
	}
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		for _, l := range s.locks() {
			if l.Type == "extend" {
				if l.Relation != "t" || l.Kind != "TABLE" || l.Mode != "ExclusiveLock" || l.Target() != "extend of public.t" {
					t.Errorf("the lock is %+v", l)
				}
				return
			}
		}
	}
	t.Error("no session was seen extending the table")
}

// What depends on the version of the server; scripts/catalog runs it on every major
// version.
func TestCatalog(t *testing.T) {
	s := newScene(t)
	s.session("a").do("CREATE TABLE t (id int)", "BEGIN", "LOCK TABLE t")
	b := s.session("b").await("SELECT * FROM t")
	if err := s.everything(); err != nil {
		t.Error(err)
	}
	snapshot := s.wantPairs("b waits for AccessShareLock of public.t: hard by a with AccessExclusiveLock")
	if exact := s.version() >= 140000; snapshot.Pairs[0].WaitApprox == exact {
		t.Errorf("WaitApprox is %v", snapshot.Pairs[0].WaitApprox)
	}
	for _, a := range inspect.Attributes() {
		s.filterAll(a)
	}
	outcomes, err := inspect.Terminate(t.Context(), s.q, inspect.BlockersOf(snapshot.Pairs), inspect.WaitGone(patience))
	if o := one(t, outcomes, err); !o.Ended {
		t.Errorf("%+v", o)
	}
	b.join()
}

// filterAll uses an attribute with each of its operators.
func (s *scene) filterAll(a inspect.Attribute) {
	s.t.Helper()
	value := map[reflect.Type]string{
		reflect.TypeFor[int64](): "1", reflect.TypeFor[bool](): "yes", reflect.TypeFor[time.Duration](): "5s", reflect.TypeFor[time.Time](): "-5m",
	}[a.Type]
	switch a.Name {
	case "mode":
		value = "SHARE"
	case "kind":
		value = "INDEX"
	case "type", "state", "wait_event_type", "block":
		value = map[string]string{"type": "relation", "state": "idle", "wait_event_type": "Lock", "block": "hard"}[a.Name]
	}
	for _, op := range []string{"=", "!=", "<", "<=", ">", ">=", "~", "!~"} {
		f := inspect.Where(a.Name, op, value)
		if f.Err() != nil {
			continue
		}
		if _, err := inspect.Locks(s.t.Context(), s.q, f); err != nil {
			s.t.Errorf("%s: %v", f, err)
		}
	}
	for _, f := range []inspect.Filter{
		inspect.Where(a.Name, "in", value, value), inspect.Where(a.Name, "not in", value), inspect.Where(a.Name, "is null"), inspect.Where(a.Name, "is not null"),
	} {
		if f.Err() != nil && a.Name != "context" {
			s.t.Error(f.Err())
		}
		if _, err := inspect.Locks(s.t.Context(), s.q, f); err != nil && a.Name != "context" {
			s.t.Errorf("%s: %v", f, err)
		}
	}
}
