//go:build unix

package doctest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/internal/pgserver"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
	"github.com/pglock-go/pglock/pgxlock"
)

// A stage is a server for one scene at a time, so that no other locks are visible. Its
// database is shop, its role app.
type stage struct {
	server *pgserver.Server
	bin    string // a folder with pglock and the other programs that the guides call
}

// A scene is a set of holders and waiters. pids maps the PIDs in the guides to real ones.
type scene struct {
	stage   *stage
	pids    map[string]int32
	folder  string
	env     []string
	timeout time.Duration // how long a block may take
	raw     string        // the output of the last run, with escape sequences
}

func newStage(t *testing.T) *stage {
	t.Helper()
	s := &stage{server: pgtest.Own(t, pgserver.Options{}), bin: t.TempDir()}
	conn, err := pgx.Connect(t.Context(), s.server.ConnString("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	for _, statement := range []string{"CREATE ROLE app LOGIN", "ALTER ROLE app SET search_path = public", "CREATE DATABASE shop OWNER app"} {
		if _, err := conn.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	build := exec.Command("go", "build", "-o", s.bin+"/pglock", "./cmd/pglock")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	linkExtras(t, s.bin)
	return s
}

// linkExtras links the programs that the guides call into a folder.
func linkExtras(t *testing.T, folder string) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for name := range extras {
		if err := os.Symlink(exe, filepath.Join(folder, name)); err != nil {
			t.Fatal(err)
		}
	}
}

func (s *stage) connString() string {
	return fmt.Sprintf("host=%s port=%d user=app dbname=shop", s.server.Host(), s.server.Port())
}

// play sets up a scene, which ends with the test.
func (s *stage) play(t *testing.T, name string) *scene {
	t.Helper()
	sc := &scene{stage: s, pids: map[string]int32{}, folder: t.TempDir(), timeout: time.Minute}
	sc.env = s.environment(t, sc.folder)
	reset := s.connect(t, "")
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(sc.folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name := range extras {
		if strings.HasSuffix(name, ".sh") { // called as ./report.sh
			if err := os.Symlink(filepath.Join(s.bin, name), filepath.Join(sc.folder, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := reset.Exec(t.Context(), "DROP SCHEMA IF EXISTS app CASCADE; DROP TABLE IF EXISTS orders, items, users, accounts, objects;"+schema); err != nil {
		t.Fatal(err)
	}
	reset.Close(t.Context())
	switch name {
	case "none":
	case "", "blocked":
		// The scene of most guides: an uncommitted payment, a migration that waits for
		// it, and a query that waits behind the migration.
		sc.holds(t, "4711", "web 1", "BEGIN; UPDATE orders SET state = 'paid' WHERE id = 1")
		sc.waits(t, "4712", "migrate", "ALTER TABLE orders ADD note text")
		sc.waits(t, "4713", "web 2", "SELECT * FROM orders")
	case "shop":
		// The same with other names and one more session, for the picture.
		sc.holds(t, "4711", "checkout", "BEGIN; UPDATE orders SET state = 'paid' WHERE id = 1")
		sc.waits(t, "4712", "migrate", "ALTER TABLE orders ADD COLUMN note text")
		sc.waits(t, "4713", "web 1", "SELECT * FROM orders WHERE state = 'new'")
		sc.waits(t, "4714", "web 2", "UPDATE orders SET state = 'sent' WHERE id = 2")
	case "reports":
		sc.holds(t, "4212", "reports", "BEGIN; SELECT count(*) FROM orders")
	case "advisory":
		sc.holds(t, "4711", "pglock run nightly-report", fmt.Sprintf("SELECT pg_advisory_lock(%d)", pglock.Name("nightly-report").ID()))
	default:
		t.Fatalf("unknown scene %q", name)
	}
	return sc
}

func (s *stage) environment(t *testing.T, folder string) []string {
	t.Helper()
	var env []string
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "PG") && !strings.HasPrefix(kv, "LC_") && !strings.HasPrefix(kv, "HOME=") {
			env = append(env, kv)
		}
	}
	// Keep the cache, so that pglock demo does not fetch its server again.
	if cache, err := os.UserCacheDir(); err == nil {
		env = append(env, "XDG_CACHE_HOME="+cache)
	}
	return append(env, "PATH="+s.bin+string(filepath.ListSeparator)+os.Getenv("PATH"),
		"HOME="+folder, "PGHOST="+s.server.Host(), fmt.Sprintf("PGPORT=%d", s.server.Port()), "PGUSER=app", "PGDATABASE=shop",
		"LC_ALL=C.UTF-8", "TERM=dumb", "NO_COLOR=1", "PGLOCK_CONFIG="+configFile(t))
}

func (s *stage) connect(t *testing.T, application string) *pgx.Conn {
	t.Helper()
	config, err := pgx.ParseConfig(s.connString())
	if err != nil {
		t.Fatal(err)
	}
	config.RuntimeParams["application_name"] = application
	conn, err := pgx.ConnectConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// holds opens a session that runs statements and is then idle.
func (sc *scene) holds(t *testing.T, number, application, statements string) {
	t.Helper()
	conn := sc.stage.connect(t, application)
	sc.pids[number] = int32(conn.PgConn().PID())
	t.Cleanup(func() { conn.Close(context.Background()) })
	for statement := range strings.SplitSeq(statements, "; ") {
		if _, err := conn.Exec(t.Context(), statement, pgx.QueryExecModeSimpleProtocol); err != nil {
			t.Fatal(err)
		}
	}
}

// waits opens a session that runs a statement, and returns once it waits for a lock.
func (sc *scene) waits(t *testing.T, number, application, statement string) {
	t.Helper()
	conn := sc.stage.connect(t, application)
	pid := int32(conn.PgConn().PID())
	sc.pids[number] = pid
	ended := make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		defer close(ended)
		_, _ = conn.Exec(ctx, statement, pgx.QueryExecModeSimpleProtocol) // it may be canceled
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
		conn.Close(context.Background())
	})
	observer := sc.stage.connect(t, "")
	defer observer.Close(context.Background())
	for {
		locks, err := inspect.Locks(t.Context(), pgxlock.Conn(observer), inspect.PIDs(pid), inspect.Where("granted", "=", "false"))
		if err != nil {
			t.Fatal(err)
		}
		if len(locks) > 0 && !locks[0].WaitApprox {
			return
		}
		if len(locks) > 0 && sc.stage.lacksWaitStart(t, observer) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// lacksWaitStart reports whether the server is too old to report when a wait began.
func (s *stage) lacksWaitStart(t *testing.T, conn *pgx.Conn) bool {
	t.Helper()
	var version int
	if err := conn.QueryRow(t.Context(), "SELECT current_setting('server_version_num')::int").Scan(&version); err != nil {
		t.Fatal(err)
	}
	return version < 140000
}

// files has the files in the current folder of the commands.
var files = map[string]string{
	"migration.sql": "ALTER TABLE orders ADD COLUMN note text",
	"schema.sql":    "CREATE TABLE customers (id bigint PRIMARY KEY);\nCREATE TABLE orders (id bigint PRIMARY KEY, customer_id bigint, total int, state text);\n",
	"0042_orders.sql": `ALTER TABLE orders ADD COLUMN region text NOT NULL DEFAULT 'eu';
CREATE INDEX orders_total ON orders (total);
CREATE INDEX CONCURRENTLY orders_state ON orders (state);
ALTER TABLE orders ALTER total TYPE bigint;
ALTER TABLE orders ADD CONSTRAINT fk FOREIGN KEY (customer_id) REFERENCES customers (id);
ALTER TABLE orders ALTER state SET NOT NULL;
`,
	"0043_state.sql": `SET lock_timeout = '2s';
ALTER TABLE orders ALTER state SET NOT NULL;
CREATE INDEX orders_state ON orders (state);
`,
}

// extras has the other programs that the guides call, with their replacements here. The
// test binary runs them when it is started under their names.
var extras = map[string]func(args []string) error{
	"psql":        psql,
	"jq":          jq,
	"alembic":     func([]string) error { return statement("ALTER TABLE orders ADD COLUMN note text") },
	"goose":       func([]string) error { return statement("ALTER TABLE orders ADD COLUMN note text") },
	"report.sh":   func([]string) error { return nil },
	"export.sh":   func([]string) error { return nil },
	"backup.sh":   func([]string) error { return nil },
	"my-migrator": func([]string) error { return statement("ALTER TABLE orders ADD COLUMN note text") },
}
