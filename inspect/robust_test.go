package inspect_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
	"github.com/pglock-go/pglock/pgxlock"
)

// everything calls all functions that use the server.
func (s *scene) everything() error {
	ctx := s.t.Context()
	if _, err := inspect.ReadSnapshot(ctx, s.q); err != nil {
		return fmt.Errorf("ReadSnapshot: %w", err)
	}
	if _, err := inspect.Locks(ctx, s.q); err != nil {
		return fmt.Errorf("Locks: %w", err)
	}
	var filters []inspect.Filter
	for _, text := range []string{"wait_start > -1h", "granted = no", "pid > 0", "application ~ .", "query ~ .", "blocking_pid != 0", "xact_start > -1h", "page != 3"} {
		f, err := inspect.ParseFilter(text)
		if err != nil {
			return err
		}
		filters = append(filters, f)
	}
	pairs, err := inspect.Blocked(ctx, s.q, append(filters, inspect.On("pg_class", "public.t"))...)
	if err != nil {
		return fmt.Errorf("Blocked: %w", err)
	}
	if len(pairs) != 1 || pairs[0].Relation != "t" {
		return fmt.Errorf("the pairs are %s", describe(pairs))
	}
	if _, err := inspect.Leases(ctx, s.q, "pglock"); !errors.Is(err, pglock.ErrNotInstalled) {
		return fmt.Errorf("Leases: %w", err)
	}
	sessions, err := inspect.Sessions(ctx, s.q, append(filters[2:5:5], inspect.On("pg_class", "public.t"), inspect.Where("xmin_age", "!=", "-1"))...)
	if err != nil {
		return fmt.Errorf("Sessions: %w", err)
	}
	if len(sessions) != 2 {
		return fmt.Errorf("the sessions are %+v", sessions)
	}
	for _, end := range []func(context.Context, []inspect.Victim, ...inspect.EndOption) ([]inspect.Outcome, error){
		func(ctx context.Context, v []inspect.Victim, o ...inspect.EndOption) ([]inspect.Outcome, error) {
			return inspect.Cancel(ctx, s.q, v, o...)
		},
		func(ctx context.Context, v []inspect.Victim, o ...inspect.EndOption) ([]inspect.Outcome, error) {
			return inspect.Terminate(ctx, s.q, v, o...)
		},
	} {
		outcomes, err := end(ctx, inspect.BlockersOf(pairs), inspect.OnlyRoots(), inspect.DryRun())
		if err != nil {
			return err
		}
		for _, o := range outcomes {
			if o.Err != nil {
				return o.Err
			}
		}
	}
	return nil
}

// A session whose search_path has other operators, functions, types and views before
// those of Postgres gets the same answers and calls none of them.
func TestHostileSearchPath(t *testing.T) {
	s := newScene(t)
	pgtest.Shadow(t, s.dsn)
	s.session("setup").do("CREATE TABLE public.t (id int)")
	s.session("a").do("BEGIN", "LOCK TABLE t")
	s.session("b").await("SELECT * FROM t")
	if _, err := s.eye.Exec(t.Context(), "SET search_path = "+pgtest.ShadowPath); err != nil {
		t.Fatal(err)
	}
	through := *s
	through.q, _ = guard(t, lent{pgxlock.Conn(s.eye)})
	if err := through.everything(); err != nil {
		t.Fatal(err)
	}
	s.q, _ = guard(t, pgxlock.Conn(s.eye))
	if err := s.everything(); err != nil {
		t.Fatal(err)
	}
	// And for real, until the session has ended.
	pairs, err := inspect.Blocked(t.Context(), s.q)
	if err != nil {
		t.Fatal(err)
	}
	outcomes, err := inspect.Terminate(t.Context(), s.q, inspect.BlockersOf(pairs), inspect.WaitGone(patience))
	if o := one(t, outcomes, err); !o.Ended {
		t.Errorf("%+v", o)
	}
}

// Under any settings of the session the answers are the same, and the settings stay.
func TestSettings(t *testing.T) {
	s := newScene(t)
	s.session("a").do("CREATE TABLE t (id int)", "BEGIN", "LOCK TABLE t")
	s.session("b").await("SELECT * FROM t")
	settings := "SELECT string_agg(name || '=' || setting, ' ' ORDER BY name) FROM pg_settings WHERE name <> 'transaction_read_only'"
	for _, change := range []string{
		"SET DateStyle = 'SQL, DMY'", "SET IntervalStyle = 'sql_standard'", "SET TimeZone = 'Asia/Kathmandu'",
		"SET extra_float_digits = -15", "SET default_transaction_read_only = on", "SET standard_conforming_strings = off",
		"SET lock_timeout = '123ms'", "SET statement_timeout = '34s'", "SET client_min_messages = 'debug5'",
	} {
		var version int
		if err := s.eye.QueryRow(t.Context(), "SELECT current_setting('server_version_num')::int").Scan(&version); err != nil {
			t.Fatal(err)
		}
		if version >= 190000 && strings.Contains(change, "standard_conforming_strings") {
			continue // it is always on
		}
		if _, err := s.eye.Exec(t.Context(), change); err != nil {
			t.Fatal(err)
		}
		var before, after string
		if err := s.eye.QueryRow(t.Context(), settings).Scan(&before); err != nil {
			t.Fatal(err)
		}
		if err := s.everything(); err != nil {
			t.Errorf("%s: %v", change, err)
		}
		if err := s.eye.QueryRow(t.Context(), settings).Scan(&after); err != nil {
			t.Fatal(err)
		}
		if before != after {
			t.Errorf("%s: the settings were\n%s\nand are\n%s", change, before, after)
		}
	}
	a := s.take().Pairs[0]
	if age := time.Since(a.Blocking.BackendStart); age < 0 || age > time.Minute {
		t.Errorf("the blocker is %v old", age)
	}
	// And in a transaction, which then goes on.
	if _, err := s.eye.Exec(t.Context(), "BEGIN ISOLATION LEVEL SERIALIZABLE"); err != nil {
		t.Fatal(err)
	}
	if err := s.everything(); err != nil {
		t.Error(err)
	}
	if _, err := s.eye.Exec(t.Context(), "COMMIT"); err != nil {
		t.Error(err)
	}
}

// pg_stat_activity does not change within a transaction; the result does.
func TestFreshInTransaction(t *testing.T) {
	s := newScene(t)
	if _, err := s.eye.Exec(t.Context(), "BEGIN"); err != nil {
		t.Fatal(err)
	}
	s.take()
	a := s.session("a").do("SELECT pg_advisory_lock(1)")
	l := a.find("advisory", func(l inspect.Lock) bool { return l.HasKey })
	if l.Application != "a" || l.Hidden {
		t.Errorf("a session that came in the meantime is %+v", l.Session)
	}
	locks, err := inspect.Locks(t.Context(), s.q, inspect.Where("application", "=", "a"))
	if err != nil || len(locks) != 1 {
		t.Errorf("its locks are %v, %v", locks, err)
	}
	outcomes, err := inspect.Terminate(t.Context(), s.q, inspect.SessionsOf(locks), inspect.WaitGone(patience))
	if o := one(t, outcomes, err); !o.Ended {
		t.Errorf("%+v", o)
	}
}

// A read that is blocked itself, by a lock on a catalog, ends with ctx, and so does
// its statement on the server.
func TestDeadline(t *testing.T) {
	s := newScene(t)
	victim := s.session("victim")
	q := victim.querier()
	a := s.session("a").do("BEGIN", "LOCK TABLE pg_catalog.pg_namespace")
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	f := inspect.Where("granted", "=", "no")
	if _, err := inspect.Locks(ctx, q, f); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the error is %v", err)
	}
	a.do("ROLLBACK")
	s.until("the end of the statement", "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1 AND state = 'active')", victim.pid)
}

// Reading locks no user table, not even one that our role may not read.
func TestNoLocksOnTables(t *testing.T) {
	s := newScene(t)
	s.session("setup").do("CREATE TABLE t (id int PRIMARY KEY)")
	s.session("a").do("BEGIN", "LOCK TABLE t")
	s.session("b").await("SELECT * FROM t")
	if _, err := s.eye.Exec(t.Context(), "BEGIN"); err != nil {
		t.Fatal(err)
	}
	if err := s.everything(); err != nil {
		t.Fatal(err)
	}
	var n int
	err := s.eye.QueryRow(t.Context(), "SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND relation >= 16384").Scan(&n)
	if err != nil || n != 0 {
		t.Errorf("%d locks of tables are held, %v", n, err)
	}
}
