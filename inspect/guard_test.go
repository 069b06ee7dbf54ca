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
