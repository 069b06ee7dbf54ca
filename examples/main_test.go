package examples_test

import (
	"context"
	"errors"
	"testing"

	"github.com/jackc/pgx/v5"
	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
	"github.com/pglock-go/pglock/pgxlock"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// other opens another session of the database.
func other(t *testing.T, dsn string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	must(t, err)
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

// canLock checks whether another session can lock a table.
func canLock(t *testing.T, conn *pgx.Conn, table string, want bool) {
	t.Helper()
	tx, err := conn.Begin(t.Context())
	must(t, err)
	defer tx.Rollback(context.Background())
	err = pglock.LockTables(t.Context(), pgxlock.Tx(tx), pglock.Tables(table), pglock.NoWait())
	if (err == nil) != want || err != nil && !errors.Is(err, pglock.ErrNotAcquired) {
		t.Fatalf("another session can lock %s: %v, want %v", table, err, want)
	}
}

// canAcquire checks whether another session can acquire an advisory lock.
func canAcquire(t *testing.T, conn *pgx.Conn, key pglock.Key, want bool) {
	t.Helper()
	tx, err := conn.Begin(t.Context())
	must(t, err)
	defer tx.Rollback(context.Background())
	err = pglock.TryLockTx(t.Context(), pgxlock.Tx(tx), key)
	if (err == nil) != want || err != nil && !errors.Is(err, pglock.ErrNotAcquired) {
		t.Fatalf("another session can acquire %v: %v, want %v", key, err, want)
	}
}
