//go:build unix

package pgserver_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pglock-go/pglock/internal/pgserver"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
)

func TestStandby(t *testing.T) {
	t.Parallel()
	primary := pgtest.Own(t, pgserver.Options{TCP: true})
	run(t, primary.ConnString("postgres"), "CREATE TABLE before ()")
	standby := pgtest.Standby(t, primary)
	run(t, primary.ConnString("postgres"), "CREATE TABLE after ()")
	await(t, "the standby to follow", func() bool {
		return ask(t, standby.ConnString("postgres"), "SELECT pg_is_in_recovery() AND to_regclass('before') IS NOT NULL AND to_regclass('after') IS NOT NULL")
	})
	if !ask(t, standby.TCPConnString("postgres"), "SELECT pg_is_in_recovery()") {
		t.Error("the standby's port leads to another server")
	}

	// With its primary running, and with it dead.
	other := pgtest.Standby(t, primary)
	if err := standby.Promote(t.Context()); err != nil {
		t.Fatal(err)
	}
	run(t, standby.ConnString("postgres"), "CREATE TABLE promoted ()")
	run(t, primary.ConnString("postgres"), "CREATE TABLE apart ()")
	if ask(t, standby.ConnString("postgres"), "SELECT to_regclass('apart') IS NOT NULL") {
		t.Error("the promoted server is still a standby")
	}
	if err := primary.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := other.Promote(t.Context()); err != nil {
		t.Fatal(err)
	}
	run(t, other.ConnString("postgres"), "CREATE TABLE promoted ()")
	if err := other.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if ask(t, other.ConnString("postgres"), "SELECT pg_is_in_recovery()") {
		t.Error("it is a standby again after a restart")
	}
}

func ask(t *testing.T, dsn, sql string) (answer bool) {
	t.Helper()
	on(t, dsn, func(ctx context.Context, conn *pgx.Conn) error { return conn.QueryRow(ctx, sql).Scan(&answer) })
	return answer
}

func run(t *testing.T, dsn, sql string) {
	t.Helper()
	on(t, dsn, func(ctx context.Context, conn *pgx.Conn) error { _, err := conn.Exec(ctx, sql); return err })
}

func on(t *testing.T, dsn string, do func(context.Context, *pgx.Conn) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if err := do(ctx, conn); err != nil {
		t.Fatal(err)
	}
}
