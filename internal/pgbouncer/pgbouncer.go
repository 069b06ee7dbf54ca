// Package pgbouncer runs a throwaway PgBouncer in front of a Postgres server, for tests.
// It listens on a Unix socket, runs as the server's user, and is stopped and removed at
// the end of the test. If the machine has no PgBouncer, Debian's package is unpacked into
// the cache of package pgserver, without installing it.
package pgbouncer

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pglock-go/pglock/internal/pgserver"
)

// A Mode is PgBouncer's pool_mode: how long a client keeps a session.
type Mode string

// The modes of PgBouncer: a client keeps its session until it disconnects, until the end
// of a transaction, or until the end of a statement.
const (
	Session     Mode = "session"
	Transaction Mode = "transaction"
	Statement   Mode = "statement"
)

// A Bouncer is a running PgBouncer.
type Bouncer struct {
	server  *pgserver.Server
	process *pgserver.Process
}

const port = 6432 // only names the socket

// Start starts a PgBouncer in front of server, until the end of the test. Each setting is
// a line of its configuration and overrides the defaults of this package.
func Start(t testing.TB, server *pgserver.Server, mode Mode, settings ...string) *Bouncer {
	t.Helper()
	// Not the test's ctx: the first start may have to download.
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	program, err := pgserver.FindProgram(ctx, "pgbouncer", os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	process, err := program.Start(ctx, func(folder string) (map[string]string, []string) {
		return map[string]string{
			"users": `"postgres" ""` + "\n",
			"config": fmt.Sprintf(`[databases]
* = host=%s port=%d
[pgbouncer]
pool_mode = %s
auth_type = trust
auth_file = %s/users
unix_socket_dir = %[4]s
listen_port = %d
admin_users = postgres
max_client_conn = 500
default_pool_size = 10
query_wait_timeout = 20
%s
`, server.Host(), server.Port(), mode, folder, port, strings.Join(settings, "\n")),
		}, []string{folder + "/config"}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := process.Stop(); err != nil {
			t.Error(err)
		}
	})
	b := &Bouncer{server, process}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		conn, err := pgconn.Connect(ctx, b.ConnString("pgbouncer"))
		if err == nil {
			conn.Close(ctx)
			return b
		}
		if !process.Running() || time.Now().After(deadline) {
			t.Fatalf("PgBouncer does not accept connections: %v; its log:\n%s", err, process.Logs())
		}
	}
}

// ConnString returns the connection string of a database of the server, through the
// pooler. The database pgbouncer is the pooler's own console.
func (b *Bouncer) ConnString(database string) string {
	return fmt.Sprintf("host=%s port=%d user=postgres dbname=%s sslmode=disable", b.process.Folder(), port, database)
}

// Console runs a command, such as RECONNECT or KILL, on the pooler's console.
func (b *Bouncer) Console(t testing.TB, command string) {
	t.Helper()
	conn, err := pgconn.Connect(t.Context(), b.ConnString("pgbouncer"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if err := conn.Exec(t.Context(), command).Close(); err != nil {
		t.Fatalf("%s: %v", command, err)
	}
}

// Stop stops the pooler before the end of the test.
func (b *Bouncer) Stop(t testing.TB) {
	t.Helper()
	if err := b.process.Stop(); err != nil {
		t.Error(err)
	}
}
