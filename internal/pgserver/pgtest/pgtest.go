// Package pgtest gives tests their Postgres servers and databases.
//
//	func TestMain(m *testing.M) { pgtest.Main(m) }
//
//	func TestSomething(t *testing.T) {
//		conn, err := pgx.Connect(t.Context(), pgtest.Database(t))
//
// The tests of one package share a server, which starts when the first of them
// needs it, and each has its own database. No test is skipped: if there is no
// server, the test fails and reports what to install.
//
// It is separate from pgserver so that the demo does not link testing.
package pgtest

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/pglock-go/pglock/internal/pgserver"
)

// servers are the servers that this test binary started. This is the only global of the
// package, because [testing] offers no other way from TestMain to a test.
var servers struct {
	mu     sync.Mutex
	shared *pgserver.Server
	err    error // why there is no shared server
	own    map[*pgserver.Server]string
}

// Main runs the tests, stops their shared server, and checks that no server and no
// goroutine is left. Goroutines that match leaks are ignored; they are for faults of
// other modules. Main is for TestMain and, like it, ends the process.
func Main(m *testing.M, leaks ...goleak.Option) {
	code := m.Run()
	if err := finish(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	if code == 0 {
		if err := goleak.Find(leaks...); err != nil {
			fmt.Fprintln(os.Stderr, "pgtest: the tests left goroutines:", err)
			code = 1
		}
	}
	os.Exit(code)
}

// finish stops the shared server and reports servers that a test did not stop.
func finish() error {
	servers.mu.Lock()
	defer servers.mu.Unlock()
	var left error
	for server, test := range servers.own {
		left = fmt.Errorf("pgtest: %s left its server in %s running", test, server.Folder())
		if err := server.Stop(); err != nil {
			left = fmt.Errorf("%w: %w", left, err)
		}
	}
	if servers.shared == nil {
		return left
	}
	shared := servers.shared
	servers.shared = nil
	if err := shared.Stop(); err != nil {
		return err
	}
	return left
}

// Server returns the server that the tests of this binary share. Tests must not change
// anything that others may notice, such as settings or roles; see [Own].
func Server(t testing.TB) *pgserver.Server {
	t.Helper()
	servers.mu.Lock()
	defer servers.mu.Unlock()
	if servers.shared == nil && servers.err == nil {
		servers.shared, servers.err = start(pgserver.Options{KeepSessions: true}, true)
	}
	if servers.err != nil {
		t.Fatalf("no Postgres for the tests: %v", servers.err)
	}
	return servers.shared
}

// Database creates a database for this test on the shared server and returns its
// connection string. The database is dropped after the test's own cleanup. Sessions that
// are still connected then fail the test.
func Database(t testing.TB) string {
	t.Helper()
	server := Server(t)
	return server.ConnString(DatabaseOn(t, server))
}

// DatabaseOn creates a database for this test on server and returns its name. It is
// dropped like that of [Database].
func DatabaseOn(t testing.TB, server *pgserver.Server) string {
	t.Helper()
	name, err := server.CreateDatabase(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := server.DropDatabase(ctx, name); err != nil {
			t.Error(err)
		}
	})
	return name
}

// Driver returns the database/sql name of the driver that PGLOCK_TEST_DRIVER selects:
// "pgx", also if it is empty, or "postgres" for lib/pq. It is for tests that need any one
// driver. Tests about drivers use all of them, regardless of it.
func Driver(t testing.TB) string {
	t.Helper()
	driver := os.Getenv("PGLOCK_TEST_DRIVER")
	switch driver {
	case "", "pgx":
		return "pgx"
	case "lib/pq":
		return "postgres"
	}
	t.Fatalf("PGLOCK_TEST_DRIVER=%s is neither pgx nor lib/pq", driver)
	return ""
}

// Own starts a server for this test alone, which the test may kill, restart or configure.
// It is stopped at the end of the test.
func Own(t testing.TB, o pgserver.Options) *pgserver.Server {
	t.Helper()
	server, err := start(o, false)
	if err != nil {
		t.Fatalf("no Postgres for this test: %v", err)
	}
	stopAfter(t, server)
	return server
}

// Standby starts a standby of a server of [Own]. It is stopped at the end of the test.
func Standby(t testing.TB, primary *pgserver.Server) *pgserver.Server {
	t.Helper()
	standby, err := primary.Standby(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	stopAfter(t, standby)
	return standby
}

// stopAfter stops a server at the end of the test.
func stopAfter(t testing.TB, server *pgserver.Server) {
	servers.mu.Lock()
	defer servers.mu.Unlock()
	if servers.own == nil {
		servers.own = map[*pgserver.Server]string{}
	}
	servers.own[server] = t.Name()
	t.Cleanup(func() {
		servers.mu.Lock()
		delete(servers.own, server)
		servers.mu.Unlock()
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
	})
}

// start starts a server with the options of o and of the environment.
func start(o pgserver.Options, shared bool) (*pgserver.Server, error) {
	env, err := pgserver.FromEnv()
	if err != nil {
		return nil, err
	}
	if o.Major == 0 && o.BinDir == "" {
		o.Major, o.BinDir = env.Major, env.BinDir
	}
	if shared {
		o.Database = env.Database
	}
	if o.Log == nil {
		o.Log = os.Stderr
	}
	// Not the test's ctx: the first start may have to download.
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	return pgserver.Start(ctx, o)
}
