//go:build unix

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pglock-go/pglock/internal/pgbouncer"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
)

// pglock run refuses to run behind a pooler, where a lock could vanish. ls works.
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

// stateOf returns the state of the pooled session that a plain client gets: settings,
// prepared statements, locks and temporary tables. The client sets application_name, as
// the pooler itself sets that for each client that has one.
func stateOf(t *testing.T, dsn string) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn+" application_name=plain default_query_exec_mode=simple_protocol")
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

// slowly and all are defaults of a role that interfere with tools. slowly leaves out those
// that end any statement of a few milliseconds, as through a pooler. all leaves out
// exit_on_error: with a timeout of 1 ms the first statement may be canceled and must be
// repeated in the same session.
var (
	slowly = []string{
		"default_transaction_isolation = serializable", "default_transaction_read_only = on",
		"default_transaction_deferrable = on", "lock_timeout = 1", "exit_on_error = on", "DateStyle = German",
		"transform_null_equals = on", "TimeZone = 'Asia/Kolkata'", "bytea_output = escape", "array_nulls = off",
	}
	all = append([]string{"statement_timeout = 1", "idle_in_transaction_session_timeout = 1"}, slices.DeleteFunc(slices.Clone(slowly), func(s string) bool { return strings.HasPrefix(s, "exit_on_error") })...)
)

// makeHostile sets defaults for the role of a site, opens a transaction of writer for which
// a statement with these defaults must wait, and checks that a plain client does wait. The
// returned function ends both.
func makeHostile(t *testing.T, s site, writer database, settings []string) (end func()) {
	t.Helper()
	s.exec(t, `CREATE TABLE IF NOT EXISTS public.written (id int)`)
	writer.exec(t, `BEGIN ISOLATION LEVEL SERIALIZABLE, READ WRITE; INSERT INTO public.written VALUES (1)`)
	for _, setting := range settings {
		s.exec(t, `ALTER ROLE postgres IN DATABASE `+s.name+` SET `+setting)
	}
	plain := connectTo(t, s.server.ConnString(s.name)+" statement_timeout=0")
	waits := plain.await(`SELECT 1 FROM pg_class`)
	eventually(t, "a plain client waits for the other's transaction", func() (is bool) {
		err := s.conn.QueryRow(t.Context(), `SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1 AND wait_event = 'SafeSnapshot')`,
			plain.conn.PgConn().PID()).Scan(&is)
		return is && err == nil
	})
	return func() {
		waits()
		writer.exec(t, `ROLLBACK`)
	}
}

// await runs a statement that waits in the background. The returned function ends it, if
// it has not ended yet.
func (d database) await(sql string) (end func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = d.conn.Exec(ctx, sql)
	}()
	return func() {
		cancel()
		<-done
	}
}

// The command neither fails nor waits for other transactions, whatever the defaults of the
// role, the database or PGOPTIONS are.
func TestCommandOfAHostileRole(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.exec(t, `CREATE SCHEMA app; CREATE TABLE app.scene (id int)`)
	blocker, waiter := connectTo(t, s.server.ConnString(s.name)), connectTo(t, s.server.ConnString(s.name))
	writer := connectTo(t, s.server.ConnString(s.name))
	s.exec(t, `ALTER DATABASE `+s.name+` SET search_path = app, nowhere`)
	defer makeHostile(t, s, writer, all)()
	options := `PGOPTIONS=-c default_transaction_deferrable=on -c default_transaction_isolation=serializable`
	var version int
	if err := s.conn.QueryRow(t.Context(), `SELECT current_setting('server_version_num')::int`).Scan(&version); err != nil {
		t.Fatal(err)
	}
	if version < 190000 { // later it is always on
		options += ` -c standard_conforming_strings=off`
	}
	s.needs = append(s.needs, options)
	blocker.exec(t, `BEGIN; LOCK TABLE app.scene`)
	defer waiter.await(`SELECT FROM app.scene`)()
	waiting := fmt.Sprint(waiter.conn.PgConn().PID())
	eventually(t, "somebody waits", func() (is bool) {
		err := s.conn.QueryRow(t.Context(), `SELECT count(*) = 1 FROM pg_locks WHERE NOT granted AND pid = `+waiting).Scan(&is)
		return is && err == nil
	})
	for _, step := range []struct {
		says string
		args []string
	}{
		{"app.scene", []string{"ls"}},
		{waiting, []string{"ls", "--blocking", "--on", "scene", "-f", "query ~ scene"}},
		{waiting, []string{"tree"}},
		{"ran", []string{"run", "--wait", "10s", "job", "--", "echo", "ran"}},
		{"ran", []string{"prioritize", "--terminate", "-f", "blocking_application ~ x", "--", "echo", "ran"}},
		{waiting, []string{"cancel", "-y", waiting}},
		{"", []string{"terminate", "-y", "--wait", "20s", fmt.Sprint(blocker.conn.PgConn().PID())}},
	} {
		c := s.start(t, step.args...)
		c.want(0)
		var output []string
		for line := range c.output {
			output = append(output, line)
		}
		if said := strings.Join(output, "\n"); !strings.Contains(said, step.says) {
			t.Errorf("%v printed %s, not %q", step.args, said, step.says)
		}
	}
}

// The command leaves a pooled session unchanged, whatever it does or refuses to do through
// the pooler. The next client finds what the role's search_path finds.
func TestCommandLeavesNothingBehindAPooler(t *testing.T) {
	t.Parallel()
	for _, mode := range []pgbouncer.Mode{pgbouncer.Transaction, pgbouncer.Statement} {
		// A role with hostile defaults and a table name that shadows another.
		for _, hostile := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, hostile %t", mode, hostile), func(t *testing.T) {
				t.Parallel()
				s := newSite(t)
				s.exec(t, `CREATE SCHEMA app; CREATE TABLE app.orders (id int); CREATE TABLE app.scene (id int)`)
				blocker, waiter := connectTo(t, s.server.ConnString(s.name)), connectTo(t, s.server.ConnString(s.name))
				writer := connectTo(t, s.server.ConnString(s.name))
				s.exec(t, `ALTER ROLE postgres IN DATABASE `+s.name+` SET search_path = app`)
				if hostile {
					defer makeHostile(t, s, writer, slowly)()
				}
				bouncer := pgbouncer.Start(t, s.server, mode, "default_pool_size = 1", "server_reset_query =")
				t.Cleanup(func() { bouncer.Stop(t) })
				dsn := bouncer.ConnString(s.name)
				look := func() string {
					if !hostile {
						return stateOf(t, dsn)
					}
					// A plain client waits for the writer until that ends.
					return ""
				}
				names := fileOf(t, fmt.Sprintf("databases: {first: %q, second: %q}\n", dsn, dsn+" application_name=second"))
				before := look()
				blocker.exec(t, `BEGIN; LOCK TABLE app.scene; SELECT pg_advisory_xact_lock(7)`)
				defer waiter.await(`SELECT FROM app.scene`)()
				waiting := fmt.Sprint(waiter.conn.PgConn().PID())
				eventually(t, "somebody waits", func() (is bool) {
					err := s.conn.QueryRow(t.Context(), `SELECT count(*) = 1 FROM pg_locks WHERE NOT granted AND pid = `+waiting).Scan(&is)
					return is && err == nil
				})

				// In statement mode the pooler closes a session when it refuses the transaction
				// that finds out the mode, so that the next client gets another one.
				checked := "connection,settings,room,now"
				if mode == pgbouncer.Statement {
					checked = "tls,settings,room,now"
				}
				file := filepath.Join(t.TempDir(), "ran")
				for _, step := range []struct {
					code int
					says string
					args []string
				}{
					{0, "app.scene", []string{"ls"}},
					// The statements of the command itself, which are not those of package inspect.
					{0, "  scene  ", []string{"ls", "-o", "table"}},
					{0, `lock "--key 7" is held`, []string{"who", "--key", "7"}},
					{0, "first\t" + waiting, []string{"ls", "-d", "first,second", "--config-file", names, "-a", "pid", waiting}},
					{0, waiting, []string{"ls", "--on", "scene", "-f", "granted = false", "-f", "query ~ scene"}},
					{0, waiting, []string{"ls", "--blocking"}},
					{0, waiting, []string{"tree"}},
					{0, "", []string{"terminate", "--blocking", waiting, "--dry-run"}},
					{0, "pooler", []string{"doctor", "--only", checked}},
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
					if said := strings.Join(output, "\n"); !strings.Contains(said, step.says) {
						t.Errorf("%v printed %s, not %q", step.args, said, step.says)
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
					// The same session, seen by a plain client that need not wait: all
					// settings are the role's.
					writer.exec(t, `ROLLBACK`)
					if state := stateOf(t, dsn); strings.Contains(strings.Replace(state, "application_name=plain", "", 1), "=") {
						t.Errorf("the pooled session is\n%s", state)
					}
				}
			})
		}
	}
}
