//go:build unix

package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pglock-go/pglock/internal/pgserver"
)

// migratorName is the name under which the test binary is a program that runs the
// statements in its arguments, and writes what they return.
const migratorName = "migrate"

func migrator(statements []string) int {
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, "")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer conn.Close(ctx)
	for _, sql := range statements {
		results, err := conn.PgConn().Exec(ctx, sql).ReadAll()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		for _, result := range results {
			for _, row := range result.Rows {
				fmt.Printf("%s\n", row[0])
			}
		}
	}
	return 0
}

// migratorIn returns a path under which the test binary is the migrator.
func migratorIn(t *testing.T) string {
	path := filepath.Join(t.TempDir(), migratorName)
	if err := os.Symlink(testBinary(t), path); err != nil {
		t.Fatal(err)
	}
	return path
}

// sees waits until stderr contains text.
func (c *command) sees(text string) {
	c.t.Helper()
	eventually(c.t, "on stderr: "+text, func() bool { return strings.Contains(c.errors(), text) })
}

// client opens a session of a role that is not a superuser.
func (s site) client(t *testing.T, application string) database {
	t.Helper()
	role := "client_" + s.name
	s.exec(t, `DO $$BEGIN CREATE ROLE `+role+` LOGIN; EXCEPTION WHEN duplicate_object THEN END$$`)
	s.exec(t, "GRANT ALL ON ALL TABLES IN SCHEMA public TO "+role)
	d := connectTo(t, s.server.ConnString(s.name)+" user="+role+" application_name="+application)
	t.Cleanup(func() { // last in, first out: after the session's end the role goes
		d.close()
		_, _ = s.conn.Exec(context.Background(), "DROP OWNED BY "+role)
		_, _ = s.conn.Exec(context.Background(), "DROP ROLE "+role)
	})
	return d
}

func (d database) pid() uint32 { return d.conn.PgConn().PID() }

// prioritize works with psql, which many use for migrations.
func TestPrioritizePsql(t *testing.T) {
	t.Parallel()
	finding, cancel := context.WithTimeout(context.Background(), 5*time.Minute) // it may have to be downloaded
	defer cancel()
	psql, err := pgserver.FindProgram(finding, "psql", os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	s := newSite(t)
	s.needs = psql.Env()
	s.exec(t, "CREATE TABLE orders (id int)")
	reports := s.client(t, "reports")
	reports.exec(t, "BEGIN")
	reports.exec(t, "SELECT FROM orders")
	c := s.start(t, "prioritize", "--after", "200ms", "--terminate", "--", psql.Path, "-X", "-c", "ALTER TABLE orders ADD note text")
	c.want(0)
	if line := c.line(); line != "ALTER TABLE" {
		t.Errorf("psql wrote %q", line)
	}
	for _, want := range []string{
		": psql\", user ",
		fmt.Sprintf("\npglock: terminated: pid %d (\"reports\", user client_", reports.pid()),
		fmt.Sprintf("\npglock: summary: pid %d (\"reports\", user client_", reports.pid()),
		"s, on public.orders: terminated\n",
	} {
		if !strings.Contains(c.errors(), want) {
			t.Errorf("%q is not in:\n%s", want, c.errors())
		}
	}
}

// Blockers are reported at once, and so is a command without a session to watch.
func TestPrioritizeTellsAtOnce(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.exec(t, "CREATE TABLE orders (id int)")
	reports := s.client(t, "reports")
	reports.exec(t, "BEGIN")
	reports.exec(t, "SELECT FROM orders")
	migrate := migratorIn(t)
	blocked := s.start(t, "prioritize", "--after", "100ms", "--", migrate, "ALTER TABLE orders ADD note text")
	unknown := s.start(t, "prioritize", "--", "sh", "-c", "unset PGAPPNAME; "+migrate+" 'ALTER TABLE orders ADD more text'")
	blocked.sees(fmt.Sprintf("only reported: pid %d", reports.pid()))
	unknown.sees("no session of the command was seen in 3s: none has application_name \"pglock prioritize ")
	select {
	case <-blocked.exited:
		t.Error("the command has ended")
	case <-unknown.exited:
		t.Error("the unknown command has ended")
	default:
	}
	reports.exec(t, "COMMIT") // its session still exists
	blocked.want(0)
	unknown.want(0)
	blocked.sees("runs on after")
}

// Concurrent runs spare each other's commands and report it: the later ones wait until the
// first has ended.
func TestPrioritizeSparesOtherRuns(t *testing.T) {
	t.Parallel()
	for _, n := range []int{2, 3} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			s.exec(t, "CREATE TABLE orders (id int)")
			s.exec(t, "SELECT pg_advisory_lock(1)")
			migrate := migratorIn(t)
			first := s.start(t, "prioritize", "--after", "1h", "--terminate", "--", migrate, "BEGIN; LOCK orders; SELECT pg_advisory_xact_lock(1); COMMIT", "SELECT 'went on'")
			var pid uint32
			eventually(t, "the first command's wait", func() bool {
				return s.conn.QueryRow(t.Context(), "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())").Scan(&pid) == nil
			})
			var later []*command
			for i := range n - 1 {
				later = append(later, s.start(t, "prioritize", "--after", "100ms", "--terminate", "--", migrate, fmt.Sprintf("ALTER TABLE orders ADD c%d text", i), "SELECT 'went on'"))
			}
			for _, c := range later[:1] { // the others may wait behind it in the queue
				c.sees(fmt.Sprintf("pglock: spared: pid %d (\"pglock prioritize ", pid))
				c.sees("it belongs to another run of pglock prioritize, which goes first")
			}
			s.exec(t, "SELECT pg_advisory_unlock(1)")
			first.want(0)
			for _, c := range later {
				c.want(0)
				if line := c.line(); line != "went on" {
					t.Errorf("a command wrote %q", line)
				}
			}
		})
	}
}

// Signals go to the command's group. Before the command starts, they end pglock.
func TestPrioritizeSignals(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	c := s.start(t, "prioritize", "--", "sh", "-c", "trap 'exit 42' TERM; echo $$; while :; do sleep 0.01; done")
	pid := c.pid()
	c.signal(syscall.SIGTERM)
	c.want(42)
	awaitGone(t, pid)

	c = s.start(t, "prioritize", "--grace", "200ms", "--", "sh", "-c", family(true, "exit 5"))
	pids := c.family()
	c.want(5)
	for _, pid := range pids {
		if alive(pid) {
			t.Errorf("process %d is still alive", pid)
		}
	}

	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	_, port, _ := net.SplitHostPort(silent.Addr().String())
	c = s.start(t, "-h", "127.0.0.1", "-p", port, "prioritize", "--", "echo", "ran")
	conn, err := silent.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c.signal(syscall.SIGINT)
	c.want(128 + int(syscall.SIGINT))
	if line, ok := <-c.output; ok {
		t.Errorf("the command ran: %s", line)
	}
}

// If the watcher's session is terminated while the command waits, a new one takes over.
func TestPrioritizeWatcherLost(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.exec(t, "CREATE TABLE orders (id int)")
	reports := s.client(t, "reports")
	reports.exec(t, "BEGIN")
	reports.exec(t, "SELECT FROM orders")
	c := s.start(t, "prioritize", "--after", "1s", "--terminate", "--", migratorIn(t), "ALTER TABLE orders ADD note text")
	c.sees("has waited for")
	s.exec(t, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pglock prioritize' AND datname = current_database()")
	c.sees("the watcher has a session again")
	c.sees("terminated: pid")
	c.want(0)
}

// Control characters are escaped, and queries are not shown.
func TestPrioritizeEscapes(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.exec(t, "CREATE TABLE \"a\x1b[31mb\" (id int)")
	reports := s.client(t, "reports")
	reports.exec(t, "BEGIN")
	reports.exec(t, "SELECT 'secret \x1b[2J' FROM \"a\x1b[31mb\"")
	c := s.start(t, "prioritize", "--after", "100ms", "--lock-timeout", "4s", "--", migratorIn(t), "ALTER TABLE \"a\x1b[31mb\" ADD note text")
	c.want(1)
	if e := c.errors(); strings.Contains(e, "\x1b") || strings.Contains(e, "secret") || !strings.Contains(e, `a\x1b[31mb`) {
		t.Errorf("stderr: %q", e)
	}
}

// --max limits how many sessions are ended.
func TestPrioritizeMax(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.exec(t, "CREATE TABLE orders (id int)")
	for i := range 3 {
		d := s.client(t, fmt.Sprint("reports", i))
		d.exec(t, "BEGIN")
		d.exec(t, "SELECT FROM orders")
	}
	c := s.start(t, "prioritize", "--after", "100ms", "--lock-timeout", "5s", "--terminate", "--max", "2", "--", migratorIn(t), "ALTER TABLE orders ADD note text")
	c.want(1)
	summary := c.errors()
	if got := strings.Count(summary, ": terminated\n"); got != 2 {
		t.Errorf("%d sessions were terminated", got)
	}
	if got := strings.Count(summary, ": spared (max)\n"); got != 1 {
		t.Errorf("%d sessions were spared", got)
	}
}

// prioritize --retry works with psql, which reads a migration from a file, and the
// migration is done once.
func TestPrioritizeRetryPsql(t *testing.T) {
	t.Parallel()
	finding, cancel := context.WithTimeout(context.Background(), 5*time.Minute) // it may have to be downloaded
	defer cancel()
	psql, err := pgserver.FindProgram(finding, "psql", os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	s := newSite(t)
	s.needs = psql.Env()
	s.exec(t, "CREATE TABLE orders (id int)")
	reports := s.client(t, "reports")
	reports.exec(t, "BEGIN")
	reports.exec(t, "SELECT FROM orders")
	migration := filepath.Join(t.TempDir(), "migration.sql")
	if err := os.WriteFile(migration, []byte("INSERT INTO orders VALUES (1);\nALTER TABLE orders ADD note text;\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := s.start(t, "prioritize", "--retry", "--lock-timeout", "1s", "--", psql.Path, "-X", "-v", "ON_ERROR_STOP=1", "-1qf", migration)
	c.sees("try 1: exit code 3: blocked by pid " + fmt.Sprint(reports.pid()))
	reports.exec(t, "COMMIT")
	c.want(0)
	var rows int
	if err := s.conn.QueryRow(t.Context(), "SELECT count(*) FROM orders WHERE note IS NULL").Scan(&rows); err != nil || rows != 1 {
		t.Errorf("%d rows, %v", rows, err)
	}
}

// A signal ends the command and is the end of the retries; in a pause it ends pglock.
func TestPrioritizeRetrySignals(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.exec(t, "CREATE TABLE orders (id int)")
	reports := s.client(t, "reports")
	reports.exec(t, "BEGIN")
	reports.exec(t, "SELECT FROM orders")
	migrate := migratorIn(t)
	// It ends only after the lock timeout, which would be a reason to run it again.
	c := s.start(t, "prioritize", "--retry", "--lock-timeout", "1s", "--", "sh", "-c",
		"trap 'kill=yes' TERM; "+migrate+" 'ALTER TABLE orders ADD note text'; test $kill && exit 42; exit 43")
	c.sees("has waited for")
	c.signal(syscall.SIGTERM)
	c.want(42)
	if strings.Contains(c.errors(), "runs again") {
		t.Errorf("it ran again:\n%s", c.errors())
	}

	c = s.start(t, "prioritize", "--retry", "--retry-on", "9", "--", "sh", "-c", "echo ran; exit 9")
	for try := 1; ; try++ { // each pause is twice as long
		c.sees(fmt.Sprintf("try %d: exit code 9", try))
		if try == 3 {
			break
		}
	}
	c.signal(syscall.SIGTERM)
	c.want(128 + int(syscall.SIGTERM))
}
