package doctor_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	_ "github.com/jackc/pgx/v5/stdlib"
	_ "github.com/lib/pq"

	"github.com/pglock-go/pglock/doctor"
	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/internal/pgbouncer"
	"github.com/pglock-go/pglock/internal/pgserver"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
	"github.com/pglock-go/pglock/internal/sessiontest"
	"github.com/pglock-go/pglock/pgxlock"
	"github.com/pglock-go/pglock/sqllock"
)

// connect opens a session that is closed at the end of the test.
func connect(t *testing.T, dsn string) *pgx.Conn {
	t.Helper()
	return sessiontest.Connect(t, dsn, "")
}

// do runs statements, each alone.
func do(t *testing.T, conn *pgx.Conn, statements ...string) {
	t.Helper()
	for _, sql := range statements {
		if _, err := conn.PgConn().Exec(t.Context(), sql).ReadAll(); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
}

// run examines a database.
func run(t *testing.T, source driver.Source, opts ...doctor.Option) doctor.Report {
	t.Helper()
	report, err := doctor.Run(t.Context(), source, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

// find returns the findings with an ID.
func find(report doctor.Report, id string) (found []doctor.Finding) {
	for _, f := range report.Findings {
		if f.ID == id {
			found = append(found, f)
		}
	}
	return found
}

// faults returns the findings that are not OK.
func faults(report doctor.Report) []doctor.Finding {
	return slices.DeleteFunc(slices.Clone(report.Findings), func(f doctor.Finding) bool { return f.Level == doctor.OK })
}

// describe returns findings as text.
func describe(findings []doctor.Finding) string {
	var b strings.Builder
	for _, f := range findings {
		fmt.Fprintf(&b, "%s %s %s: %s\n\t%q %s\n", f.Level, f.Check, f.ID, f.Text, f.Advice, f.Note)
	}
	return b.String()
}

// psql returns a command that runs psql, which is fetched if the machine has none.
func psql(t *testing.T, dsn string, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	t.Cleanup(cancel)
	program, err := pgserver.FindProgram(ctx, "psql", os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	return program.Command(ctx, append([]string{"-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", dsn}, args...)...)
}

// follow runs the advice of a finding as it is, with psql.
func follow(t *testing.T, dsn string, f doctor.Finding) {
	t.Helper()
	cmd := psql(t, dsn)
	cmd.Stdin = strings.NewReader(strings.Join(f.Advice, "\n"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("psql, with the advice %q: %v\n%s", f.Advice, err, out)
	}
}

// Each fault is found, and gone after its advice was run. Then nothing is left: a right
// set-up shows no warning.
func TestCatalogFaultsAreMended(t *testing.T) {
	t.Parallel()
	server := pgtest.Own(t, pgserver.Options{Settings: map[string]string{
		"max_locks_per_transaction": "10", "max_connections": "20", "max_prepared_transactions": "4",
		"log_lock_waits": "off", "deadlock_timeout": "20s", "track_activity_query_size": "1024",
	}})
	name := pgtest.DatabaseOn(t, server)
	dsn, elsewhere := server.ConnString(name), server.ConnString("postgres")
	admin := connect(t, elsewhere)
	const role = `on "call"`
	quoted := `"on ""call"""`
	do(t, admin, "CREATE ROLE "+quoted+" LOGIN",
		"ALTER ROLE "+quoted+" CONNECTION LIMIT 3",
		"ALTER DATABASE "+name+" CONNECTION LIMIT 3",
		"ALTER DATABASE "+name+" SET track_activities = off",
		"ALTER ROLE "+quoted+" SET lock_timeout = '10ms'",
		"ALTER ROLE "+quoted+" IN DATABASE "+name+" SET statement_timeout = '40ms'")
	// More than three quarters of 10 * (20 + 4).
	locks := connect(t, elsewhere+" application_name=locks")
	do(t, locks, "SELECT pg_advisory_lock(n) FROM generate_series(1, 200) AS n")
	do(t, connect(t, elsewhere), "SELECT '"+strings.Repeat("long ", 300)+"'")
	do(t, connect(t, elsewhere+" application_name=forgetful"), "CREATE TABLE forgotten ()", "BEGIN", "LOCK TABLE forgotten")
	do(t, connect(t, dsn), `BEGIN`, `CREATE TABLE prepared ()`, `PREPARE TRANSACTION E'it''s \\ \n prepared'`)
	var open int
	if err := admin.QueryRow(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'").Scan(&open); err != nil {
		t.Fatal(err)
	}
	for range 14 - open {
		connect(t, elsewhere)
	}

	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	config.User = role
	source := pgxlock.Config(config)
	seen := map[string]doctor.Level{}
	for round := 0; ; round++ {
		report := run(t, source, doctor.OlderThan(0))
		bad := faults(report)
		t.Logf("round %d:\n%s", round, describe(bad))
		if len(bad) == 0 {
			break
		}
		if round == 3 {
			t.Fatalf("still not mended:\n%s", describe(bad))
		}
		for _, f := range bad {
			if len(f.Advice) == 0 || f.Note == "" {
				t.Errorf("%s has no advice", f.ID)
			}
			if seen[f.ID] != doctor.Problem {
				seen[f.ID] = f.Level
			}
			follow(t, dsn, f)
		}
		// The settings of the server's start, and the sessions that fill it.
		if err := server.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		admin = connect(t, elsewhere)
		// There is more room for the same locks, and for the same query.
		do(t, connect(t, elsewhere), "SELECT pg_advisory_lock(n) FROM generate_series(1, 200) AS n")
		do(t, connect(t, elsewhere), "SELECT '"+strings.Repeat("long ", 300)+"'")
		// No size has room for this query, but it is not the application's.
		do(t, connect(t, elsewhere+" application_name='pglock ls'"), "SELECT '"+strings.Repeat("long ", 30_000)+"'")
		if round == 0 { // it was hidden in the first round
			do(t, connect(t, elsewhere+" application_name=forgetful"), "BEGIN", "LOCK TABLE forgotten")
		}
	}
	want := map[string]doctor.Level{
		"sees": doctor.Warning, "ends": doctor.Problem, "log_lock_waits": doctor.Warning, "deadlock_timeout": doctor.Warning,
		"track_activities": doctor.Problem, "track_activity_query_size": doctor.Warning,
		"idle_in_transaction_session_timeout": doctor.Warning, "lock_timeout": doctor.Warning, "statement_timeout": doctor.Warning,
		"lock_table": doctor.Warning, "connections": doctor.Warning, "prepared": doctor.Warning, "idle": doctor.Warning,
	}
	for id, level := range want {
		if seen[id] != level {
			t.Errorf("the level of %s was %q, want %q", id, seen[id], level)
		}
		delete(seen, id)
	}
	if len(seen) > 0 {
		t.Errorf("more was found: %v", seen)
	}
	// What the advice has done, by the server's own word.
	var is bool
	if err := admin.QueryRow(t.Context(), `SELECT pg_has_role($1, 'pg_read_all_stats', 'USAGE') AND pg_has_role($1, 'pg_signal_backend', 'USAGE')
		AND current_setting('log_lock_waits') = 'on' AND NOT EXISTS (SELECT FROM pg_prepared_xacts)
		AND NOT EXISTS (SELECT FROM pg_db_role_setting)`, role).Scan(&is); err != nil || !is {
		t.Errorf("the server is not as advised: %v", err)
	}
}

// A role that does not inherit its privileges does not have them, and a plain grant would
// not help.
func TestCatalogPrivilegesThatAreNotInherited(t *testing.T) {
	t.Parallel()
	dsn := pgtest.Database(t)
	admin := connect(t, dsn)
	for _, member := range []bool{true, false} {
		role := fmt.Sprintf("aloof_%t_%s", member, admin.Config().Database)
		do(t, admin, "CREATE ROLE "+role+" LOGIN NOINHERIT")
		t.Cleanup(func() { admin.Exec(context.Background(), "DROP ROLE "+role) })
		if member {
			do(t, admin, "GRANT pg_read_all_stats, pg_signal_backend TO "+role)
		}
		source := pgxlock.ConnString(dsn + " user=" + role)
		found := faults(run(t, source, doctor.Only("sees", "ends")))
		if len(found) != 2 {
			t.Fatalf("member %t: %s", member, describe(found))
		}
		for _, f := range found {
			if strings.Contains(f.Text, "does not inherit") != member {
				t.Errorf("member %t: %s", member, f.Text)
			}
			follow(t, dsn, f)
		}
		if left := faults(run(t, source, doctor.Only("sees", "ends"))); len(left) > 0 {
			t.Errorf("member %t, after the advice: %s", member, describe(left))
		}
	}
}

// The command's own words for a missing privilege are those of package inspect.
func TestGrantsAreThoseOfInspect(t *testing.T) {
	t.Parallel()
	dsn := pgtest.Database(t)
	admin := connect(t, dsn)
	role := "plain_" + admin.Config().Database
	do(t, admin, "CREATE ROLE "+role+" LOGIN")
	t.Cleanup(func() { admin.Exec(context.Background(), "DROP ROLE "+role) })
	conn := connect(t, dsn+" user="+role)
	snapshot, err := inspect.ReadSnapshot(t.Context(), pgxlock.Conn(conn))
	if err != nil {
		t.Fatal(err)
	}
	report := run(t, pgxlock.ConnString(dsn+" user="+role), doctor.Only("sees", "ends"))
	var advice []string
	for _, f := range faults(report) {
		advice = append(advice, f.Advice...)
	}
	want := snapshot.Server.Grants()
	if len(advice) != 2 || advice[0] != want[0]+";" || advice[1] != want[1]+";" {
		t.Errorf("the advice is %q, not %q", advice, want)
	}
	if s := report.Server; s.User != role || s.Version != snapshot.Server.Version || s.SeesAll || s.SignalsAll || s.Database != admin.Config().Database {
		t.Errorf("the server is %+v, want %+v", s, snapshot.Server)
	}
	// Another's superuser session is counted, and only a superuser may end it.
	found := find(report, "superusers")
	if len(found) != 1 || found[0].Level != doctor.OK || !strings.Contains(found[0].Text, "only a superuser") {
		t.Errorf("superusers: %s", describe(found))
	}
}

// Each statement runs in psql as it is, whatever search_path is.
func TestCatalogStatementsRunInPsql(t *testing.T) {
	t.Parallel()
	dsn := pgtest.Database(t)
	pgtest.Shadow(t, dsn)
	files, err := filepath.Glob("*.sql")
	if err != nil || len(files) < 8 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		cmd := psql(t, dsn+" options='-c search_path="+pgtest.ShadowPath+"'", "-A", "-t", "-v", "age=60")
		cmd.Stdin = bytes.NewReader(text)
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.HasPrefix(string(out), "{") && !strings.HasPrefix(string(out), "[") || strings.Count(string(out), "\n") > 30 {
			t.Errorf("%s: %v\n%s", file, err, out)
		}
	}
}

// All drivers get the same answers.
func TestDrivers(t *testing.T) {
	t.Parallel()
	dsn := pgtest.Database(t)
	for name, source := range map[string]driver.Source{
		"pgx":                  pgxlock.ConnString(dsn),
		"database/sql, pgx":    sqllock.ConnString("pgx", dsn),
		"database/sql, lib/pq": sqllock.ConnString("postgres", dsn),
	} {
		report := run(t, source)
		for _, name := range doctor.Names() {
			optional := []string{"statement_timeout", "lock_timeout", "idle_session_timeout", "transaction_timeout", "superusers", "autovacuum"}
			isCheck := slices.ContainsFunc(report.Findings, func(f doctor.Finding) bool { return f.Check == name })
			if !isCheck && len(find(report, name)) == 0 && !slices.Contains(optional, name) {
				t.Errorf("%s: no finding of %s", name, name)
			}
		}
		if f := find(report, "pooler"); len(f) != 1 || f[0].Level != doctor.OK {
			t.Errorf("%s: the pooler is %s", name, describe(f))
		}
	}
}

// The defaults of a role make no question wait or fail.
func TestHostileRole(t *testing.T) {
	t.Parallel()
	dsn := pgtest.Database(t)
	admin := connect(t, dsn)
	role := "hostile_" + admin.Config().Database
	do(t, admin, "CREATE ROLE "+role+" LOGIN", "CREATE TABLE written ()")
	t.Cleanup(func() { admin.Exec(context.Background(), "DROP ROLE "+role) })
	for _, setting := range []string{
		"statement_timeout = 1", "lock_timeout = 1", "idle_in_transaction_session_timeout = 1",
		"default_transaction_isolation = serializable", "default_transaction_read_only = on", "default_transaction_deferrable = on",
		"transform_null_equals = on", "DateStyle = German", "TimeZone = 'Asia/Kolkata'",
	} {
		do(t, admin, "ALTER ROLE "+role+" SET "+setting)
	}
	// A deferrable transaction waits for this one.
	do(t, admin, "BEGIN ISOLATION LEVEL SERIALIZABLE", "INSERT INTO written DEFAULT VALUES")
	report := run(t, pgxlock.ConnString(dsn+" user="+role))
	for _, id := range []string{"statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"} {
		f := find(report, id)
		if want := []string{`ALTER ROLE "` + role + `" RESET ` + id + ";"}; len(f) != 1 || !slices.Equal(f[0].Advice, want) {
			t.Errorf("the finding is %s, want the advice %q", describe(f), want)
		}
	}
	if f := find(report, "clock"); len(f) != 1 || f[0].Level != doctor.OK {
		t.Errorf("the clock is %s", describe(f))
	}
}

// A setting of the client's own cannot be mended on the server.
func TestClientsOwnSetting(t *testing.T) {
	t.Parallel()
	dsn := pgtest.Database(t)
	f := find(run(t, pgxlock.ConnString(dsn+" deadlock_timeout=20s")), "deadlock_timeout")
	if len(f) != 1 || f[0].Level != doctor.Warning || f[0].Advice != nil || !strings.Contains(f[0].Note, "PGOPTIONS") {
		t.Errorf("%s", describe(f))
	}
}

// An idle transaction is ended by the advice only while it is the same transaction.
func TestIdleAdviceEndsThatTransactionOnly(t *testing.T) {
	t.Parallel()
	dsn := pgtest.Database(t)
	idler := connect(t, dsn+" application_name=idler")
	do(t, idler, "BEGIN", "SELECT 1")
	var found []doctor.Finding
	for _, f := range find(run(t, pgxlock.ConnString(dsn), doctor.Only("now"), doctor.OlderThan(0)), "idle") {
		if strings.Contains(f.Text, fmt.Sprintf("pid %d (\"idler\", user ", idler.PgConn().PID())) {
			found = append(found, f)
		}
	}
	if len(found) != 1 {
		t.Fatalf("found %s", describe(found))
	}
	if f := find(run(t, pgxlock.ConnString(dsn), doctor.Only("idle")), "idle"); len(f) != 1 || f[0].Level != doctor.OK {
		t.Errorf("within a minute: %s", describe(f))
	}
	do(t, idler, "COMMIT", "BEGIN", "SELECT 1")
	follow(t, dsn, found[0])
	do(t, idler, "SELECT 2") // it was not ended
}

// The mode of a pooler is found out, and the pooled sessions stay as they were. The
// advice leads to the server itself.
func TestPooler(t *testing.T) {
	t.Parallel()
	for _, mode := range []pgbouncer.Mode{pgbouncer.Session, pgbouncer.Transaction, pgbouncer.Statement} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			server := pgtest.Server(t)
			name := pgtest.DatabaseOn(t, server)
			bouncer := pgbouncer.Start(t, server, mode, "server_reset_query =", "server_round_robin = 1")
			t.Cleanup(func() { bouncer.Stop(t) })
			dsn := bouncer.ConnString(name)
			warmUp(t, dsn)

			report := run(t, pgxlock.ConnString(dsn))
			f := find(report, "pooler")
			if len(f) != 1 || f[0].Level != doctor.Warning || !strings.Contains(f[0].Text, "a pooler in "+string(mode)+" mode") {
				t.Fatalf("the pooler is %s", describe(f))
			}
			direct := find(run(t, pgxlock.ConnString(dsn+" "+f[0].Advice[0]), doctor.Only("pooler")), "pooler")
			if len(direct) != 1 || direct[0].Level != doctor.OK {
				t.Errorf("with %q: %s", f[0].Advice, describe(direct))
			}

			// The sessions that are in the pool now.
			var state string
			if mode == pgbouncer.Session {
				return // they end, or are reset, when a client ends: that is the pooler's to do
			}
			for range 4 {
				conn, err := pgx.Connect(t.Context(), dsn+" application_name=plain default_query_exec_mode=simple_protocol")
				if err != nil {
					t.Fatal(err)
				}
				err = conn.QueryRow(t.Context(), `SELECT concat_ws(' ',
					(SELECT string_agg(name || '=' || setting, ' ') FROM pg_settings WHERE source = 'session' AND name <> 'application_name'),
					(SELECT string_agg(statement, '; ') FROM pg_prepared_statements),
					(SELECT string_agg(locktype, ' ') FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory'))`).Scan(&state)
				if err != nil || state != "" {
					t.Errorf("the pooled session has %q, %v", state, err)
				}
				conn.Close(context.Background())
			}
		})
	}
}

// warmUp makes a pooler open two sessions, which it then lends in turn.
func warmUp(t *testing.T, dsn string) {
	t.Helper()
	done := make(chan error)
	for range 2 {
		go func() {
			conn, err := pgx.Connect(t.Context(), dsn+" default_query_exec_mode=simple_protocol")
			if err == nil {
				_, err = conn.Exec(t.Context(), "SELECT pg_sleep(0.3)")
				conn.Close(context.Background())
			}
			done <- err
		}()
	}
	for range 2 {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
}

// A standby is found, and the advice leads to the primary.
func TestCatalogStandby(t *testing.T) {
	t.Parallel()
	primary := pgtest.Own(t, pgserver.Options{})
	do(t, connect(t, primary.ConnString("postgres")), "CREATE ROLE plain LOGIN")
	standby := pgtest.Standby(t, primary)
	for _, f := range faults(run(t, pgxlock.ConnString(standby.ConnString("postgres")+" user=plain"), doctor.Only("sees", "ends"))) {
		if !strings.Contains(f.Note, "on the primary") {
			t.Errorf("on a standby: %s", describe([]doctor.Finding{f}))
		}
	}
	report := run(t, pgxlock.ConnString(standby.ConnString("postgres")))
	f := find(report, "standby")
	if !report.Server.InRecovery || len(f) != 1 || f[0].Level != doctor.Warning {
		t.Fatalf("the standby is %s", describe(f))
	}
	for _, f := range report.Findings {
		if strings.Contains(f.Text, "could not be checked") {
			t.Errorf("on a standby: %s", f.Text)
		}
	}
	both := fmt.Sprintf("host=%s,%s port=%d,%d user=postgres dbname=postgres %s",
		standby.Host(), primary.Host(), standby.Port(), primary.Port(), f[0].Advice[0])
	if f := find(run(t, pgxlock.ConnString(both), doctor.Only("connection")), "standby"); len(f) != 1 || f[0].Level != doctor.OK {
		t.Errorf("with the advice: %s", describe(f))
	}
}

// Only selects checks and findings, and refuses what does not exist.
func TestOnly(t *testing.T) {
	t.Parallel()
	source := pgxlock.ConnString(pgtest.Database(t))
	ids := func(names ...string) string {
		var ids []string
		for _, f := range run(t, source, doctor.Only(names...)).Findings {
			ids = append(ids, f.ID)
		}
		return strings.Join(ids, " ")
	}
	if got := ids("log_lock_waits"); got != "log_lock_waits" {
		t.Errorf("of one finding: %s", got)
	}
	if got := ids("room", "sees"); got != "sees lock_table connections" {
		t.Errorf("of two checks: %s", got)
	}
	if _, err := doctor.Run(t.Context(), source, doctor.Only("rooms")); err == nil || !strings.Contains(err.Error(), `no check "rooms"`) {
		t.Errorf("an unknown check: %v", err)
	}
}

// A server that cannot be reached is an error, and so is a session that ends.
func TestUnavailable(t *testing.T) {
	t.Parallel()
	if _, err := doctor.Run(t.Context(), pgxlock.ConnString("host=/nonexistent user=x dbname=x")); err == nil || !strings.HasPrefix(err.Error(), "doctor: ") {
		t.Errorf("without a server: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := doctor.Run(ctx, pgxlock.ConnString(pgtest.Database(t))); err == nil {
		t.Error("a canceled ctx is no error")
	}
}
