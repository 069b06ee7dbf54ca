//go:build unix

package pgserver_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pglock-go/pglock/internal/pgserver"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
)

func TestMain(m *testing.M) {
	if how := os.Getenv(childEnv); how != "" {
		child(how)
		return
	}
	pgtest.Main(m)
}

// connect opens a connection that the test closes at its end.
func connect(t *testing.T, connString string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), connString)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.WithoutCancel(t.Context())) })
	return conn
}

func query(t *testing.T, conn *pgx.Conn, sql string) string {
	t.Helper()
	var s string
	if err := conn.QueryRow(t.Context(), sql).Scan(&s); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return s
}

func TestEveryTestHasADatabaseOfItsOwn(t *testing.T) {
	first, second := pgtest.Database(t), pgtest.Database(t)
	if first == second {
		t.Fatalf("both are %s", first)
	}
	conn := connect(t, first)
	for sql, want := range map[string]string{
		"SELECT 1::text":                    "1",
		"SHOW server_encoding":              "UTF8",
		"SELECT lower('ÄÖ') || length('é')": "äö1",
	} {
		if got := query(t, conn, sql); got != want {
			t.Errorf("%s: got %s, want %s", sql, got, want)
		}
	}
}

func TestTheMajorAskedFor(t *testing.T) {
	o, err := pgserver.FromEnv()
	if err != nil {
		t.Fatal(err)
	}
	server := pgtest.Own(t, pgserver.Options{})
	got := query(t, connect(t, server.ConnString("postgres")), "SHOW server_version")
	if got != server.Binaries().Version && !strings.HasPrefix(got, server.Binaries().Version+" ") {
		t.Errorf("the server says %s, the binaries %s", got, server.Binaries().Version)
	}
	if o.Major != 0 && server.Binaries().Major != o.Major {
		t.Errorf("asked for %d, got %s", o.Major, got)
	}
}

func TestNothingListensOnTheNetwork(t *testing.T) {
	server := pgtest.Own(t, pgserver.Options{})
	if got := query(t, connect(t, server.ConnString("postgres")), "SHOW listen_addresses"); got != "" {
		t.Errorf("listen_addresses is %q", got)
	}
	if ports := listening(t, server.PID()); len(ports) > 0 {
		t.Errorf("it listens on %v", ports)
	}
}

func TestTCPOnlyWhenAskedFor(t *testing.T) {
	server := pgtest.Own(t, pgserver.Options{TCP: true})
	if server.Port() == 5432 {
		t.Error("it took port 5432")
	}
	conn := connect(t, server.TCPConnString("postgres"))
	if got := query(t, conn, "SELECT host(inet_server_addr()) || ':' || inet_server_port()"); got != net.JoinHostPort("127.0.0.1", strconv.Itoa(server.Port())) {
		t.Errorf("connected to %s, not port %d", got, server.Port())
	}
	connect(t, server.ConnString("postgres")) // and the socket still works
	if ports := listening(t, server.PID()); runtime.GOOS == "linux" && !slices.Equal(ports, []int{server.Port()}) {
		t.Errorf("it listens on %v, want only %d", ports, server.Port())
	}
}

// listening returns the TCP ports that a process listens on. It works only on Linux.
func listening(t *testing.T, pid int) []int {
	t.Helper()
	if runtime.GOOS != "linux" {
		return nil
	}
	links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil || len(links) == 0 {
		t.Fatalf("no open files of process %d: %v", pid, err)
	}
	sockets := map[string]bool{}
	for _, link := range links {
		if to, err := os.Readlink(link); err == nil {
			sockets[to] = true
		}
	}
	var ports []int
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		b, err := os.ReadFile(table)
		if errors.Is(err, os.ErrNotExist) {
			continue // no IPv6 here
		}
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			fields := strings.Fields(line)
			if len(fields) < 10 || fields[3] != "0A" || !sockets["socket:["+fields[9]+"]"] {
				continue
			}
			_, hex, _ := strings.Cut(fields[1], ":")
			port, err := strconv.ParseInt(hex, 16, 32)
			if err != nil {
				t.Fatal(err)
			}
			ports = append(ports, int(port))
		}
	}
	return ports
}

func TestSettings(t *testing.T) {
	server := pgtest.Own(t, pgserver.Options{Settings: map[string]string{
		"max_connections":  "17",
		"application_name": `it's a \ in 'quotes'`,
	}})
	conn := connect(t, server.ConnString("postgres"))
	for sql, want := range map[string]string{
		"SHOW max_connections":  "17",
		"SHOW application_name": `it's a \ in 'quotes'`,
		"SHOW fsync":            "off",
		"SHOW autovacuum":       "on",
	} {
		if got := query(t, conn, sql); got != want {
			t.Errorf("%s: got %s, want %s", sql, got, want)
		}
	}
}

func TestHBA(t *testing.T) {
	server := pgtest.Own(t, pgserver.Options{HBA: []string{"local all app scram-sha-256"}})
	conn := connect(t, server.ConnString("postgres"))
	if _, err := conn.Exec(t.Context(), "SET password_encryption = 'scram-sha-256'; CREATE ROLE app LOGIN PASSWORD 'right'"); err != nil {
		t.Fatal(err)
	}
	connect(t, server.ConnString("postgres")+" user=app password=right")
	_, err := pgx.Connect(t.Context(), server.ConnString("postgres")+" user=app password=wrong")
	if e := new(pgconn.PgError); !errors.As(err, &e) || e.Code != "28P01" {
		t.Errorf("with a wrong password: %v", err)
	}
}

func TestAServerThatDoesNotStartSaysWhy(t *testing.T) {
	for setting, want := range map[string]string{
		"no_such_setting": "unrecognized configuration parameter",
		"port":            "cannot be set",
		"no such setting": "not the name of a setting",
	} {
		o, err := pgserver.FromEnv()
		if err != nil {
			t.Fatal(err)
		}
		o.Database = ""
		o.Settings = map[string]string{setting: "1"}
		server, err := pgserver.Start(t.Context(), o)
		if err == nil {
			server.Stop()
			t.Errorf("%s: it started", setting)
		} else if !strings.Contains(err.Error(), want) {
			t.Errorf("%s: the error does not say %q: %v", setting, want, err)
		}
	}
}

func TestStopRemovesEverything(t *testing.T) {
	server := pgtest.Own(t, pgserver.Options{})
	connect(t, server.ConnString("postgres")) // a session does not delay Stop
	pid, folder := server.PID(), server.Folder()
	if pid == 0 || len(processes(folder)) == 0 && runtime.GOOS == "linux" {
		t.Fatalf("process %d, processes %v", pid, processes(folder))
	}
	for range 2 {
		if err := server.Stop(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Lstat(folder); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder: %v", err)
	}
	if left := processes(folder); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	if server.PID() != 0 {
		t.Errorf("PID() = %d", server.PID())
	}
	if err := server.Restart(t.Context()); err == nil {
		t.Error("a stopped server started again")
	}
}

// processes returns the processes that run in a folder or name it in their arguments.
// It works only on Linux.
func processes(folder string) []string {
	var found []string
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		args, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
		cwd, _ := os.Readlink(filepath.Join(dir, "cwd"))
		if strings.Contains(string(args), folder) || strings.HasPrefix(cwd, folder) {
			found = append(found, dir+" "+strings.ReplaceAll(string(args), "\x00", " "))
		}
	}
	return found
}

func TestDataOutlivesShutdownsAndKills(t *testing.T) {
	server := pgtest.Own(t, pgserver.Options{})
	exec := func(sql string) {
		t.Helper()
		conn, err := pgx.Connect(t.Context(), server.ConnString("postgres"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(t.Context())
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	exec("CREATE TABLE kept (way text)")
	for way, end := range map[string]func() error{
		"smart":     func() error { return server.Shutdown(t.Context(), pgserver.Smart) },
		"fast":      func() error { return server.Shutdown(t.Context(), pgserver.Fast) },
		"immediate": func() error { return server.Shutdown(t.Context(), pgserver.Immediate) },
		"kill":      server.Kill,
		"restart":   func() error { return nil },
	} {
		exec("SET synchronous_commit = on; INSERT INTO kept VALUES ('" + way + "')")
		pid, address := server.PID(), server.ConnString("postgres")
		if err := end(); err != nil {
			t.Fatalf("%s: %v", way, err)
		}
		if way != "restart" {
			if _, err := pgx.Connect(t.Context(), address); err == nil || server.PID() != 0 {
				t.Errorf("%s: it still accepts connections, or has a PID: %d", way, server.PID())
			}
		}
		if err := server.Restart(t.Context()); err != nil {
			t.Fatalf("after %s: %v", way, err)
		}
		if server.PID() == pid || server.ConnString("postgres") != address {
			t.Errorf("after %s: process %d before, %d after; address %s before, %s after", way, pid, server.PID(), address, server.ConnString("postgres"))
		}
	}
	if got := query(t, connect(t, server.ConnString("postgres")), "SELECT count(*)::text FROM kept"); got != "5" {
		t.Errorf("%s rows of 5 are left", got)
	}
}

func TestASmartShutdownIsBoundedByItsContext(t *testing.T) {
	server := pgtest.Own(t, pgserver.Options{})
	conn := connect(t, server.ConnString("postgres"))
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := server.Shutdown(ctx, pgserver.Smart); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("with a session: %v", err)
	}
	if got := query(t, conn, "SELECT 1::text"); got != "1" {
		t.Errorf("the session: %s", got)
	}
}

func TestKillEndsSessionsAndLeavesNoMemory(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the server's processes are known only on Linux")
	}
	server := pgtest.Own(t, pgserver.Options{})
	conn := connect(t, server.ConnString("postgres"))
	// A session that computes, and does not check whether its server is alive.
	busy := connect(t, server.ConnString("postgres")+" application_name=busy")
	done := make(chan error, 1)
	go func() {
		_, err := busy.Exec(t.Context(), "DO $$ BEGIN LOOP END LOOP; END $$")
		done <- err
	}()
	await(t, "the busy session", func() bool {
		return query(t, conn, "SELECT count(*)::text FROM pg_stat_activity WHERE application_name = 'busy' AND state = 'active'") == "1"
	})
	pidFile, err := os.ReadFile(filepath.Join(server.Folder(), "data/postmaster.pid"))
	if err != nil {
		t.Fatal(err)
	}
	segment := strings.Fields(strings.Split(string(pidFile), "\n")[6])[1]
	if !slices.Contains(segments(t), segment) {
		t.Fatalf("segment %s is not among %v", segment, segments(t))
	}

	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Error("the busy session continued")
	}
	left := slices.DeleteFunc(processes(server.Folder()), func(p string) bool { return strings.Contains(p, "pglock-guard") })
	if len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	if err := server.Stop(); err != nil {
		t.Fatal(err)
	}
	if slices.Contains(segments(t), segment) {
		t.Errorf("shared memory %s is left", segment)
	}
}

// segments returns the ids of the machine's System V shared memory.
func segments(t *testing.T) []string {
	t.Helper()
	b, err := os.ReadFile("/proc/sysvipc/shm")
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for line := range strings.Lines(string(b)) {
		ids = append(ids, strings.Fields(line)[1])
	}
	return ids
}

// await polls until a state is reached.
func await(t *testing.T, what string, reached func() bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for !reached() {
		select {
		case <-deadline:
			t.Fatalf("waited half a minute for %s", what)
		case <-ticker.C:
		}
	}
}

func TestManyServersFromAnEmptyCache(t *testing.T) {
	cacheDir := t.TempDir()
	for dir := cacheDir; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	o, err := pgserver.FromEnv()
	if err != nil {
		t.Fatal(err)
	}
	// Use the binaries of the default cache, so that nothing is fetched again.
	bin, err := pgserver.Find(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	servers := make(chan *pgserver.Server, 3)
	for range cap(servers) {
		go func() {
			server, err := pgserver.Start(t.Context(), pgserver.Options{BinDir: bin.Dir, CacheDir: cacheDir})
			if err != nil {
				t.Error(err)
			}
			servers <- server
		}()
	}
	for range cap(servers) {
		if server := <-servers; server != nil {
			if err := server.Stop(); err != nil {
				t.Error(err)
			}
		}
	}
	if kept, _ := filepath.Glob(filepath.Join(cacheDir, "data/*")); len(kept) != 1 {
		t.Errorf("the cache has %v, want one data folder", kept)
	}
}

func TestDropDatabaseTellsWhoIsLeft(t *testing.T) {
	server := pgtest.Server(t)
	name, err := server.CreateDatabase(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	leak := connect(t, server.ConnString(name)+" application_name=leaker")
	query(t, leak, "SELECT 'where it was'")
	err = server.DropDatabase(t.Context(), name)
	if e := new(pgserver.LeftoverError); !errors.As(err, &e) || len(e.Sessions) != 1 ||
		!strings.Contains(e.Sessions[0], "leaker") || !strings.Contains(e.Sessions[0], "where it was") {
		t.Errorf("got %v", err)
	}
	if err := leak.Ping(t.Context()); err == nil {
		t.Error("the session is still there")
	}
	if _, err := pgx.Connect(t.Context(), server.ConnString(name)); err == nil {
		t.Error("the database is still there")
	}
}

func TestSessionsAreKept(t *testing.T) {
	server := pgtest.Own(t, pgserver.Options{KeepSessions: true})
	conn := connect(t, server.ConnString("postgres"))
	others := func() string {
		return query(t, conn, `SELECT count(*)::text || ', since ' || min(backend_start) FROM pg_catalog.pg_stat_activity
			WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()`)
	}
	var want string
	for i := range 3 {
		name, err := server.CreateDatabase(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			if want = others(); !strings.HasPrefix(want, "1,") {
				t.Fatalf("after the first database there are other sessions: %s", want)
			}
		}
		if err := server.DropDatabase(t.Context(), name); err != nil {
			t.Fatal(err)
		}
		if got := others(); got != want {
			t.Errorf("got other sessions %s, want %s", got, want)
		}
	}
	if err := conn.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	// A kept session would hold up the shutdown forever.
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := server.Shutdown(ctx, pgserver.Smart); err != nil {
		t.Error(err)
	}
}

func TestDropDatabaseWaitsForSessionsThatLeave(t *testing.T) {
	server := pgtest.Server(t)
	for range 5 {
		name, err := server.CreateDatabase(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		conn, err := pgx.Connect(t.Context(), server.ConnString(name))
		if err != nil {
			t.Fatal(err)
		}
		conn.Close(t.Context())
		if err := server.DropDatabase(t.Context(), name); err != nil {
			t.Error(err)
		}
	}
}

func TestAServerThatIsAlreadyThere(t *testing.T) {
	own := pgtest.Own(t, pgserver.Options{TCP: true})
	uri := fmt.Sprintf("postgres://postgres@127.0.0.1:%d/postgres?sslmode=disable&application_name=x", own.Port())
	for _, connString := range []string{own.ConnString("postgres"), uri} {
		server, err := pgserver.Start(t.Context(), pgserver.Options{Database: connString})
		if err != nil {
			t.Fatal(err)
		}
		name := pgtest.DatabaseOn(t, server)
		for _, s := range []string{server.ConnString(name), strings.Join(server.Env(name), " ")} {
			if got := query(t, connect(t, envToConnString(s)), "SELECT current_database()"); got != name {
				t.Errorf("%s leads to %s", s, got)
			}
		}
		for what, err := range map[string]error{
			"Kill":     server.Kill(),
			"Restart":  server.Restart(t.Context()),
			"Shutdown": server.Shutdown(t.Context(), pgserver.Fast),
		} {
			if err == nil {
				t.Errorf("%s changed an existing server", what)
			}
		}
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
		connect(t, own.ConnString("postgres"))
	}
	if _, err := pgserver.Start(t.Context(), pgserver.Options{Database: "host=/nonexistent user=x"}); err == nil {
		t.Error("a server that does not answer was accepted")
	}
}

// envToConnString turns PG variables into a connection string, and leaves one
// as it is.
func envToConnString(s string) string {
	return strings.NewReplacer("PGHOST=", "host=", "PGPORT=", "port=", "PGUSER=", "user=", "PGDATABASE=", "dbname=").Replace(s)
}

func TestFromEnv(t *testing.T) {
	t.Setenv("PGLOCK_TEST_POSTGRES", "17")
	t.Setenv("PGLOCK_TEST_POSTGRES_BIN", "/opt/pg/bin")
	t.Setenv("PGLOCK_TEST_DATABASE", "host=x")
	o, err := pgserver.FromEnv()
	if err != nil || o.Major != 17 || o.BinDir != "/opt/pg/bin" || o.Database != "host=x" {
		t.Errorf("got %+v, %v", o, err)
	}
	for _, bad := range []string{"seventeen", "11", "17.2", "-1"} {
		t.Setenv("PGLOCK_TEST_POSTGRES", bad)
		if _, err := pgserver.FromEnv(); err == nil || !strings.Contains(err.Error(), bad) {
			t.Errorf("%s: got %v", bad, err)
		}
	}
}
