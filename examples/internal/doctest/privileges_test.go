//go:build unix

package doctest

import (
	"context"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/internal/pgserver"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
	"github.com/pglock-go/pglock/pgxlock"
)

// TestPrivileges checks the privileges in docs/kubernetes-and-clouds.md: each role has
// exactly the privileges that the guide lists, and can do what the guide promises.
func TestPrivileges(t *testing.T) {
	t.Parallel()
	server := pgtest.Own(t, pgserver.Options{})
	admin := session(t, server.ConnString("postgres"))
	run(t, admin, schema)
	for _, statement := range []string{
		"CREATE ROLE nobody LOGIN", "CREATE ROLE other LOGIN", "CREATE ROLE looks LOGIN", "CREATE ROLE ends LOGIN",
		"CREATE ROLE reader LOGIN", "CREATE ROLE writer LOGIN",
		"GRANT pg_read_all_stats TO looks", "GRANT pg_signal_backend TO ends",
		"GRANT SELECT ON orders TO reader", "GRANT UPDATE ON orders TO writer",
	} {
		run(t, admin, statement)
	}
	as := func(role string) *pgx.Conn {
		return session(t, fmt.Sprintf("host=%s port=%d dbname=postgres user=%s", server.Host(), server.Port(), role))
	}

	t.Run("an advisory lock needs no privilege", func(t *testing.T) {
		locker, err := pglock.New(pgxlock.Config(as("nobody").Config()))
		if err != nil {
			t.Fatal(err)
		}
		defer locker.Close()
		lock, err := locker.TryLock(t.Context(), pglock.Name("x"))
		if err != nil {
			t.Fatal(err)
		}
		if err := lock.Unlock(); err != nil {
			t.Fatal(err)
		}
	})

	t.Run("a table lock needs what its mode asks for", func(t *testing.T) {
		for _, c := range []struct {
			role string
			mode pglock.Mode
			want bool
		}{
			{"nobody", pglock.AccessShare, false},
			{"reader", pglock.AccessShare, true},
			{"reader", pglock.AccessExclusive, false},
			{"writer", pglock.AccessExclusive, true},
		} {
			tx, err := as(c.role).Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			err = pglock.LockTables(t.Context(), pgxlock.Tx(tx), pglock.Tables("orders"), pglock.In(c.mode))
			if (err == nil) != c.want {
				t.Errorf("%s, %v: %v", c.role, c.mode, err)
			}
			if err := tx.Rollback(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	})

	for i, c := range []struct {
		role       string
		sees, ends bool
	}{{"nobody", false, false}, {"looks", true, false}, {"ends", false, true}} {
		t.Run(c.role, func(t *testing.T) {
			holder := as("other")
			key := fmt.Sprint(100 + i) // the previous holder may still hold its lock
			run(t, holder, "BEGIN")
			run(t, holder, "SELECT pg_advisory_xact_lock("+key+")")
			q := pgxlock.Conn(as(c.role))
			locks, err := inspect.Locks(t.Context(), q, inspect.Where("key", "=", key))
			if err != nil || len(locks) != 1 {
				t.Fatalf("found %d locks, want 1: %v", len(locks), err)
			}
			if locks[0].Hidden == c.sees {
				t.Errorf("Hidden = %v", locks[0].Hidden)
			}
			outcomes, err := inspect.Terminate(t.Context(), q, inspect.SessionsOf(locks))
			if err != nil {
				t.Fatal(err)
			}
			if got := outcomes[0].Signaled; got != c.ends {
				t.Errorf("%v: %s", outcomes[0].Reason, outcomes[0].Detail)
			}
			if !c.ends && (outcomes[0].Reason != inspect.NotPermitted || outcomes[0].Grant == "") {
				t.Errorf("reason %v, grant %q", outcomes[0].Reason, outcomes[0].Grant)
			}
		})
	}

	// Outside a transaction, and without waiters, a role that does not see start times
	// cannot distinguish a session from another one with its PID.
	t.Run("a session that cannot be told from another", func(t *testing.T) {
		run(t, as("other"), "SELECT pg_advisory_lock(9)")
		q := pgxlock.Conn(as("ends"))
		locks, err := inspect.Locks(t.Context(), q, inspect.Where("key", "=", "9"))
		if err != nil || len(locks) != 1 {
			t.Fatalf("found %d locks, want 1: %v", len(locks), err)
		}
		outcomes, err := inspect.Terminate(t.Context(), q, inspect.SessionsOf(locks))
		if err != nil || outcomes[0].Reason != inspect.Hidden || outcomes[0].Grant != `GRANT pg_read_all_stats TO "ends"` {
			t.Fatalf("%+v, %v", outcomes, err)
		}
		run(t, admin, outcomes[0].Grant)
		locks, err = inspect.Locks(t.Context(), q, inspect.Where("key", "=", "9"))
		if err != nil {
			t.Fatal(err)
		}
		outcomes, err = inspect.Terminate(t.Context(), q, inspect.SessionsOf(locks))
		if err != nil || !outcomes[0].Signaled {
			t.Errorf("%+v, %v", outcomes, err)
		}
	})

	t.Run("sessions of superusers", func(t *testing.T) {
		run(t, admin, "SELECT pg_advisory_lock(8)")
		q := pgxlock.Conn(as("ends"))
		locks, err := inspect.Locks(t.Context(), q, inspect.Where("key", "=", "8"))
		if err != nil {
			t.Fatal(err)
		}
		outcomes, err := inspect.Terminate(t.Context(), q, inspect.SessionsOf(locks))
		if err != nil || outcomes[0].Reason != inspect.NotPermitted {
			t.Errorf("%v, %v", outcomes, err)
		}
	})
}

func session(t *testing.T, dsn string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func run(t *testing.T, conn *pgx.Conn, statement string) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), statement); err != nil {
		t.Fatal(err)
	}
}
