package inspect_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
	"github.com/pglock-go/pglock/pgxlock"
)

// guard guards a connection.
func guard(t *testing.T, conn driver.Conn) (guarded driver.Querier, shared bool) {
	t.Helper()
	guarded, shared, err := inspect.Guard(t.Context(), conn)
	if err != nil {
		t.Fatal(err)
	}
	return guarded, shared
}

// lent returns a connection that looks as if a pooler shared its session.
type lent struct{ driver.Conn }

func (l lent) QueryTextSimple(ctx context.Context, sql string) (string, error) {
	return l.Conn.(interface {
		QueryTextSimple(ctx context.Context, sql string) (string, error)
	}).QueryTextSimple(ctx, sql)
}

func (lent) PID() uint32 { return 1 }

// In the caller's transaction nothing is set, and the transaction goes on.
func TestGuardInATransaction(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	for _, begin := range []string{"BEGIN", "BEGIN ISOLATION LEVEL REPEATABLE READ"} {
		if err := s.me.Exec(t.Context(), begin+"; SELECT 1"); err != nil {
			t.Fatal(err)
		}
		if guarded, _, err := inspect.Guard(t.Context(), s.me); err == nil {
			t.Errorf("a connection in a transaction is guarded: %v", guarded)
		}
		if err := s.me.Exec(t.Context(), "SELECT 1; COMMIT"); err != nil {
			t.Error(err)
		}
	}
	rows, err := s.me.Query(t.Context(), "SHOW lock_timeout")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var timeout string
	if rows.Next(); rows.Scan(&timeout) != nil || timeout != "0" {
		t.Errorf("lock_timeout is %s, %v", timeout, rows.Err())
	}
}

func TestGuard(t *testing.T) {
	t.Parallel()
	conn, err := pgx.Connect(t.Context(), pgtest.Database(t))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, shared := guard(t, pgxlock.Conn(conn)); shared {
		t.Error("the session is direct, but is reported as shared")
	}
	for setting, want := range map[string]string{"statement_timeout": "30s", "lock_timeout": "2s"} {
		var got string
		if err := conn.QueryRow(t.Context(), "SHOW "+setting).Scan(&got); err != nil || got != want {
			t.Errorf("%s is %q, %v, want %s", setting, got, err, want)
		}
	}
}

// On a session of its own, a statement is prepared when it reads for the second time, and
// may be gone at any time. A session that a pooler lends gets none.
func TestGuardPrepares(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.session("it's $1").do("SELECT pg_advisory_lock(1)")
	s.session("b").await("SELECT pg_advisory_lock(1)")
	filter := inspect.Where("blocking_application", "=", "it's $1")
	prepared := func() (n int) {
		t.Helper()
		rows, err := s.me.Query(t.Context(), "SELECT count(*)::int FROM pg_prepared_statements WHERE name LIKE 'pglock%'")
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		if !rows.Next() || rows.Scan(&n) != nil {
			t.Fatal(rows.Err())
		}
		return n
	}
	shared, isShared := guard(t, lent{s.me})
	direct, _ := guard(t, s.me)
	if !isShared {
		t.Fatal("the session is not reported as shared")
	}
	for name, test := range map[string]struct {
		q    driver.Querier
		want []int
	}{
		"shared": {shared, []int{0, 0, 0, 0}},
		"direct": {direct, []int{0, 2, 2, 0}},
	} {
		for i, want := range test.want {
			if i == 3 {
				if err := s.me.Exec(t.Context(), "DEALLOCATE ALL"); err != nil {
					t.Fatal(err)
				}
			}
			snapshot, err := inspect.ReadSnapshot(t.Context(), test.q)
			if err != nil {
				t.Fatal(name, err)
			}
			pairs, err := inspect.Blocked(t.Context(), test.q, filter)
			if err != nil || len(pairs) != 1 || describe(pairs) != describe(snapshot.Pairs) {
				t.Errorf("%s: the pairs are %v, %v", name, describe(pairs), err)
			}
			if n := prepared(); n != want {
				t.Errorf("%s: %d statements are prepared after %d runs, want %d", name, n, i+1, want)
			}
		}
	}
}
