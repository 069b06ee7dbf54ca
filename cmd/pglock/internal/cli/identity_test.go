//go:build unix

package cli

import (
	"context"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
	"github.com/pglock-go/pglock/internal/query"
	"github.com/pglock-go/pglock/pgxlock"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// Every role can read which server and database it is on.
func TestCatalogIdentity(t *testing.T) {
	server := pgtest.Server(t)
	name := pgtest.DatabaseOn(t, server)
	connect := func(user string) *pgx.Conn {
		t.Helper()
		conn, err := pgx.Connect(t.Context(), server.ConnString(name)+user)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close(context.Background()) })
		return conn
	}
	admin := connect("")
	exec := func(sql string) {
		t.Helper()
		if _, err := admin.Exec(context.Background(), sql); err != nil {
			t.Fatal(err)
		}
	}
	var want, oid string
	if err := admin.QueryRow(t.Context(), `SELECT system_identifier::text, d.oid::text
		FROM pg_control_system(), pg_database d WHERE datname = current_database()`).Scan(&want, &oid); err != nil {
		t.Fatal(err)
	}
	role := "plain_" + name
	exec("CREATE ROLE " + role + " LOGIN")
	t.Cleanup(func() { exec("DROP ROLE " + role) })
	plain := connect(" user=" + role)
	for _, conn := range []*pgx.Conn{admin, plain} {
		text, err := query.Text(t.Context(), pgxlock.Conn(conn), identitySQL)
		if err != nil || !strings.HasPrefix(text, want+"/") || !strings.HasSuffix(text, " "+oid+" "+name) {
			t.Errorf("%q, %v", text, err)
		}
		s, err := identify(t.Context(), &session{guarded: pgxlock.Conn(conn), conn: conn}, "x")
		if err != nil || s.database != name || s.oid == 0 || !strings.HasPrefix(s.id, want+"/") {
			t.Errorf("%+v, %v", s, err)
		}
	}

	// Without the privilege, a name is a server of its own.
	exec("REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC")
	s, err := identify(t.Context(), &session{guarded: pgxlock.Conn(plain), conn: plain}, "x")
	if err != nil || s.id != "name x" || s.oid != 0 {
		t.Errorf("%+v, %v", s, err)
	}
}
