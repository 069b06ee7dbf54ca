package pgtest

import (
	"context"
	_ "embed"
	"testing"

	"github.com/jackc/pgx/v5"
)

//go:embed shadow.sql
var shadowSQL string

// ShadowPath is a search_path that finds the traps of [Shadow] before what
// Postgres has.
const ShadowPath = "shadow,pg_catalog,public"

// Shadow puts a schema into the database that has a trap in place of each
// function, operator, type and relation of pg_catalog. Sessions with [ShadowPath]
// for a search_path fall into it, and what they run fails. The test fails at its
// end if any did, whatever became of the error.
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
			t.Fatal("the traps in pg_catalog's shadow: ", err)
		}
	}
	run(t.Context(), func(conn *pgx.Conn) error {
		ctx := t.Context()
		if _, err := conn.Exec(ctx, shadowSQL); err != nil {
			return err
		}
		// Each kind of them works: nothing else fails like this.
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
				t.Error("something of pg_catalog was looked for in search_path, and a trap was called")
			}
			return nil
		})
	})
}
