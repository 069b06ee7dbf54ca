package pgbouncer_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pglock-go/pglock/internal/pgbouncer"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// pglock detects a pooler because the PID in the protocol is not that of the backend.
func TestPIDs(t *testing.T) {
	server := pgtest.Server(t)
	for _, mode := range []pgbouncer.Mode{pgbouncer.Session, pgbouncer.Transaction, pgbouncer.Statement} {
		database := pgtest.DatabaseOn(t, server)
		bouncer := pgbouncer.Start(t, server, mode)
		conn, err := pgx.Connect(t.Context(), bouncer.ConnString(database))
		if err != nil {
			t.Fatalf("%s: %v", mode, err)
		}
		var pid uint32
		if err := conn.QueryRow(t.Context(), "SELECT pg_backend_pid()").Scan(&pid); err != nil {
			t.Errorf("%s: %v", mode, err)
		}
		if reported := conn.PgConn().PID(); reported == pid {
			t.Errorf("%s: the protocol reports the backend's own PID, %d", mode, pid)
		}
		conn.Close(context.Background())
		bouncer.Console(t, "SHOW POOLS")
		bouncer.Stop(t)
	}
}
