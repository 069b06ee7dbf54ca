// Package pgbouncer runs a throwaway PgBouncer in front of a Postgres server, for tests.
// It listens on a Unix socket, runs as the server's user, and is stopped and removed at
// the end of the test. If the machine has no PgBouncer, Debian's package is unpacked into
// the cache of package pgserver, without installing it.
package pgbouncer

import (
	"context"
	"errors"
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

// A Config configures a Bouncer.
type Config struct {
	Server    *pgserver.Server
	Mode      Mode
	Port      int      // of 127.0.0.1, to listen on in addition to the socket; 0 for none
	Databases []string // lines for its [databases], in addition to all databases of the server
	Settings  []string // lines that override the defaults of this package
}

// A Bouncer is a running PgBouncer.
type Bouncer struct {
	process *pgserver.Process
	port    int
}

const defaultPort = 6432 // only names the socket

// Start starts a PgBouncer in front of server, until the end of the test. Each setting is
// a line of its configuration and overrides the defaults of this package.
func Start(t testing.TB, server *pgserver.Server, mode Mode, settings ...string) *Bouncer {
	t.Helper()
	// Not the test's ctx: the first start may have to download.
	b, err := Run(context.Background(), Config{Server: server, Mode: mode, Settings: settings})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Stop(t) })
	return b
}

// Run starts a PgBouncer, and returns when it accepts connections. It runs until Close, or
// until this process ends. ctx covers only the start.
func Run(ctx context.Context, c Config) (_ *Bouncer, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	program, err := pgserver.FindProgram(ctx, "pgbouncer", os.Stderr)
	if err != nil {
		return nil, err
	}
	b := &Bouncer{port: defaultPort}
	listen := ""
	if c.Port != 0 {
		b.port, listen = c.Port, "listen_addr = 127.0.0.1"
	}
	b.process, err = program.Start(ctx, func(folder string) (map[string]string, []string) {
		return map[string]string{
			"users": `"postgres" ""` + "\n",
			"config": fmt.Sprintf(`[databases]
%s
* = host=%s port=%d
[pgbouncer]
pool_mode = %s
auth_type = trust
auth_file = %s/users
unix_socket_dir = %[5]s
%s
listen_port = %d
admin_users = postgres
max_client_conn = 500
default_pool_size = 10
query_wait_timeout = 20
%s
`, strings.Join(c.Databases, "\n"), c.Server.Host(), c.Server.Port(), c.Mode, folder, listen, b.port, strings.Join(c.Settings, "\n")),
		}, []string{folder + "/config"}
	})
	if err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		conn, err := pgconn.Connect(ctx, b.ConnString("pgbouncer"))
		if err == nil {
			conn.Close(ctx)
			return b, nil
		}
		if !b.process.Running() || time.Now().After(deadline) {
			err = fmt.Errorf("PgBouncer does not accept connections: %w; its log:\n%s", err, b.process.Logs())
			return nil, errors.Join(err, b.Close())
		}
	}
}

// ConnString returns the connection string of a database of the server, through the
// pooler. The database pgbouncer is the pooler's own console.
func (b *Bouncer) ConnString(database string) string {
	return fmt.Sprintf("host=%s port=%d user=postgres dbname=%s sslmode=disable", b.process.Folder(), b.port, database)
}

// Close stops the pooler. A second Close does nothing.
func (b *Bouncer) Close() error { return b.process.Stop() }

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
	if err := b.Close(); err != nil {
		t.Error(err)
	}
}
