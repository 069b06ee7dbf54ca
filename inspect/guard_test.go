package inspect_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
	"github.com/pglock-go/pglock/pgxlock"
)

func TestGuard(t *testing.T) {
	t.Parallel()
	conn, err := pgx.Connect(t.Context(), pgtest.Database(t))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	guarded, err := inspect.Guard(t.Context(), pgxlock.Conn(conn))
	if err != nil {
		t.Fatal(err)
	}
	if guarded.Shared() {
		t.Error("nothing lies between, and the session is taken for a pooler's")
	}
	for setting, want := range map[string]string{"statement_timeout": "30s", "lock_timeout": "2s"} {
		var got string
		if err := conn.QueryRow(t.Context(), "SHOW "+setting).Scan(&got); err != nil || got != want {
			t.Errorf("%s is %q, %v, want %s", setting, got, err, want)
		}
	}
}
