package pgtest

import (
	"context"
	_ "embed"
	"testing"

	"github.com/jackc/pgx/v5"
)

//go:embed shadow.sql
var shadowSQL string

// ShadowPath is a search_path that finds the traps of [Shadow] before pg_catalog.
const ShadowPath = "shadow,pg_catalog,public"

// Shadow creates a schema with a trap in place of each function, operator, type and
// relation of pg_catalog. In a session with [ShadowPath] as its search_path, a statement
// that reaches a trap fails. If any did, the test fails at its end, even if the error was
// handled.
func Shadow(t testing.TB, dsn string) {
	t.Helper()
	run := func(ctx context.Context, f func(*pgx.Conn) error) {
		t.Helper()
		conn, err := pgx.Connect(ctx, dsn)
		if err == nil {
			defer conn.Close(ctx)
			err = f(conn)
		}
		if err != nil {
			t.Fatal("setting traps for pg_catalog: ", err)
		}
	}
	run(t.Context(), func(conn *pgx.Conn) error {
		ctx := t.Context()
		if _, err := conn.Exec(ctx, shadowSQL); err != nil {
			return err
		}
		// Check that each kind of trap works.
		for _, sql := range []string{"SELECT now()", "SELECT 'a'::text", "SELECT 1 = 1", "SELECT * FROM pg_locks"} {
			if _, err := conn.Exec(ctx, "BEGIN; SET LOCAL search_path = "+ShadowPath+"; "+sql+"; COMMIT"); err == nil {
				t.Fatalf("%s calls no trap", sql)
			}
			if _, err := conn.Exec(ctx, "ROLLBACK"); err != nil {
				return err
			}
		}
		_, err := conn.Exec(ctx, "ALTER SEQUENCE shadow.calls RESTART")
		return err
	})
	t.Cleanup(func() {
		run(context.Background(), func(conn *pgx.Conn) error {
			var called bool
			if err := conn.QueryRow(context.Background(), "SELECT is_called FROM shadow.calls").Scan(&called); err != nil {
				return err
			}
			if called {
				t.Error("a name of pg_catalog was looked up in search_path, and reached a trap")
			}
			return nil
		})
	})
}
