// Package pgbouncer puts a throwaway PgBouncer before a Postgres server, for
// tests: on a Unix socket, as the same user, stopped and removed at the end of
// the test. Where the machine has none, Debian's package is unpacked into the
// cache of package pgserver, and not installed.
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

// Mode is what a client has a session for: PgBouncer's pool_mode.
type Mode string

// The modes of PgBouncer: a client's own session for as long as it is connected,
// or any session for the length of a transaction or of a statement.
const (
	Session     Mode = "session"
	Transaction Mode = "transaction"
	Statement   Mode = "statement"
)

// Bouncer is a PgBouncer that runs.
type Bouncer struct {
	server  *pgserver.Server
	process *pgserver.Process
}

const port = 6432 // only the name of the socket

// Start starts a PgBouncer before server, for the length of a test. Settings go
// into its configuration over the defaults of this package.
func Start(t testing.TB, server *pgserver.Server, mode Mode, settings ...string) *Bouncer {
	t.Helper()
	// Not the test's own time: the first time may have to download.
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
			t.Fatalf("PgBouncer does not answer: %v; its log:\n%s", err, process.Logs())
		}
	}
}

// ConnString is the connection string for a database of the server, by way of
// the pooler. The database pgbouncer is the pooler's own console.
func (b *Bouncer) ConnString(database string) string {
	return fmt.Sprintf("host=%s port=%d user=postgres dbname=%s sslmode=disable", b.process.Folder(), port, database)
}

// Console runs a command on the pooler's console, such as RECONNECT or KILL.
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
