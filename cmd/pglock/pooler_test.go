//go:build unix

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pglock-go/pglock/internal/pgbouncer"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
)

// Through a pooler a lock could vanish, so pglock run refuses; looking is fine.
func TestPooler(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	bouncer := pgbouncer.Start(t, pgtest.Server(t), pgbouncer.Transaction)
	t.Cleanup(func() { bouncer.Stop(t) })
	dsn := bouncer.ConnString(s.name)

	c := s.start(t, "-d", dsn, "run", "x", "--", "echo", "ran")
	c.want(1)
	if line, ok := <-c.output; ok {
		t.Errorf("the command ran: %s", line)
	}
	oneLine(t, c.errors())
	if e := c.errors(); !strings.Contains(e, "pooler") {
		t.Errorf("stderr: %s", e)
	}
	s.start(t, "-d", dsn, "ls").want(0)
}

// stateOf is what a plain client of the pooler sees on the session that it gets, by
// Postgres' word: what somebody set, prepared, locked or made there.
func stateOf(t *testing.T, dsn string) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn+" default_query_exec_mode=simple_protocol")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	var state string
	err = conn.QueryRow(t.Context(), `SELECT concat_ws(E'\n', pg_backend_pid(),
		(SELECT string_agg(name || '=' || setting, ' ' ORDER BY name) FROM pg_settings WHERE source = 'session'),
		(SELECT string_agg(statement, '; ') FROM pg_prepared_statements),
		(SELECT string_agg(locktype || ' ' || mode, ' ') FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory'),
		(SELECT string_agg(relname, ' ') FROM pg_class WHERE pg_table_is_visible(oid) AND relpersistence = 't'),
		current_setting('pglock.session', true),
		(SELECT count(*) FROM orders))`).Scan(&state)
	if err != nil {
		t.Fatalf("the next client's statement: %v", err)
	}
	return state
}

// Whatever the command does through a pooler, or refuses to do, the pooled session is as
// it was, and whoever gets it next finds what the role's own search_path finds.
func TestCommandLeavesNothingBehindAPooler(t *testing.T) {
	t.Parallel()
	for _, mode := range []pgbouncer.Mode{pgbouncer.Transaction, pgbouncer.Statement} {
		// A role whose defaults have all that could be in the way, with a name of its own
		// for a table.
		for _, hostile := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, hostile %t", mode, hostile), func(t *testing.T) {
				t.Parallel()
				s := newSite(t)
				s.exec(`CREATE SCHEMA app; CREATE TABLE app.orders (id int); CREATE TABLE app.scene (id int)`)
				blocker, waiter := connectTo(t, s.server.ConnString(s.name)), connectTo(t, s.server.ConnString(s.name))
				writer := connectTo(t, s.server.ConnString(s.name))
				s.exec(`ALTER ROLE postgres IN DATABASE ` + s.name + ` SET search_path = app`)
				if hostile {
					writer.exec(`BEGIN ISOLATION LEVEL SERIALIZABLE, READ WRITE; INSERT INTO app.orders VALUES (1)`)
					for _, setting := range []string{
						"default_transaction_isolation = serializable", "default_transaction_read_only = on",
						"default_transaction_deferrable = on", "lock_timeout = 1", "exit_on_error = on", "DateStyle = German",
						"transform_null_equals = on", "TimeZone = '<X>+01:02:03'", "bytea_output = escape", "array_nulls = off",
					} {
						s.exec(`ALTER ROLE postgres IN DATABASE ` + s.name + ` SET ` + setting)
					}
				}
				bouncer := pgbouncer.Start(t, s.server, mode, "default_pool_size = 1", "server_reset_query =")
				t.Cleanup(func() { bouncer.Stop(t) })
				dsn := bouncer.ConnString(s.name)
				look := func() string {
					if !hostile {
						return stateOf(t, dsn)
					}
					// A plain client waits for the writer as long as that is there.
					return ""
				}
				before := look()
				blocker.exec(`BEGIN; LOCK TABLE app.scene`)
				waiter.start(t, `SELECT FROM app.scene`)
				waiting := fmt.Sprint(waiter.conn.PgConn().PID())
				s.until(t, `SELECT count(*) = 1 FROM pg_locks WHERE NOT granted AND pid = `+waiting)

				file := filepath.Join(t.TempDir(), "ran")
				for _, step := range []struct {
					code int
					says string
					args []string
				}{
					{0, "app.scene", []string{"ls"}},
					{0, waiting, []string{"ls", "--on", "scene", "-f", "granted = false", "-f", "query ~ scene"}},
					{0, waiting, []string{"ls", "--blocking"}},
					{0, waiting, []string{"tree"}},
					{0, waiting, []string{"cancel", "--blocking", waiting, "--dry-run"}},
					{1, "", []string{"run", "job", "--", "touch", file}},
					{1, "", []string{"prioritize", "--", "touch", file}},
					{1, "", []string{"prioritize", "--terminate", "-f", "blocking_application ~ x", "--", "touch", file}},
					{0, waiting, []string{"cancel", "-y", waiting}},
					{0, "", []string{"terminate", "-y", "--wait", "20s", fmt.Sprint(blocker.conn.PgConn().PID())}},
				} {
					c := s.start(t, append([]string{"-d", dsn}, step.args...)...)
					c.want(step.code)
					var output []string
					for line := range c.output {
						output = append(output, line)
					}
					if all := strings.Join(output, "\n"); !strings.Contains(all, step.says) {
						t.Errorf("%v says %s, and not %q", step.args, all, step.says)
					}
					if step.code != 0 && !strings.Contains(c.errors(), "pooler") {
						t.Errorf("%v: stderr: %s", step.args, c.errors())
					}
					if after := look(); after != before {
						t.Errorf("after %v the pooled session is\n%s\nand was\n%s", step.args, after, before)
					}
				}
				if _, err := os.Stat(file); err == nil {
					t.Error("a command ran behind a pooler")
				}
				if hostile {
					// The same session, when nobody is in the way of a plain client: all that is
					// set there is the role's own.
					writer.exec(`ROLLBACK`)
					if state := stateOf(t, dsn); strings.Contains(state, "=") {
						t.Errorf("the pooled session is\n%s", state)
					}
				}
			})
		}
	}
}
