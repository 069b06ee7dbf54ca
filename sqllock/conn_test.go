package sqllock_test

import (
	"context"
	"database/sql"
	"strings"
	"testing"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
	"github.com/pglock-go/pglock/sqllock"
)

// The structures of wrappers: bun.Tx and *sqlx.Tx embed the transaction, GORM's
// PreparedStmtTX embeds it as an interface, and their pools embed the pool.
type (
	bunTx    struct{ *sql.Tx }
	bunDB    struct{ *bunState }
	bunState struct{ *sql.DB }
	gormTx   interface{ sqllock.ExecQueryer }
	Tx       = gormTx
	gormPST  struct{ Tx }
)

// Wrappers with their own placeholders, such as Bun's, never see pglock's statements.
func (bunTx) QueryContext(context.Context, string, ...any) (*sql.Rows, error) {
	panic("the wrapper's own method was called")
}

// Several statements in one string cannot be prepared.
func (gormPST) ExecContext(context.Context, string, ...any) (sql.Result, error) {
	panic("the wrapper's own method was called")
}

func TestTxOfWrappers(t *testing.T) {
	db := openDB(t, "pgx", pgtest.Database(t))
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	for _, wrapped := range []sqllock.ExecQueryer{tx, bunTx{tx}, &bunTx{tx}, &gormPST{bunTx{tx}}} {
		conn := sqllock.Tx(wrapped)
		if err := conn.Exec(t.Context(), `SAVEPOINT a; SELECT 1; RELEASE SAVEPOINT a`); err != nil {
			t.Errorf("%T: %v", wrapped, err)
		}
		rows, err := conn.Query(t.Context(), `SELECT $1::text`, "a")
		if err != nil {
			t.Errorf("%T: %v", wrapped, err)
			continue
		}
		rows.Close()
	}
}

func TestTxOfNoTransaction(t *testing.T) {
	db := openDB(t, "pgx", pgtest.Database(t))
	for _, pool := range []sqllock.ExecQueryer{db, bunDB{&bunState{db}}, &bunDB{&bunState{db}}, &gormPST{db}} {
		checkFails(t, sqllock.Tx(pool), "is a pool")
	}
	for _, none := range []sqllock.ExecQueryer{(*sql.Tx)(nil), (*bunTx)(nil), nil} {
		checkFails(t, sqllock.Tx(none), "nil")
	}
}

func checkFails(t *testing.T, conn driver.Conn, want string) {
	t.Helper()
	if err := conn.Exec(t.Context(), `SELECT 1`); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("Exec: %v, want an error with %q", err, want)
	}
	if rows, err := conn.Query(t.Context(), `SELECT 1`); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("Query: %v, %v, want an error with %q", rows, err, want)
	}
}

// A value that cannot be committed is refused: a pool, for instance.
func TestBeginFuncOfAPool(t *testing.T) {
	db := openDB(t, "pgx", pgtest.Database(t))
	begin := sqllock.BeginFunc(func(context.Context) (*sql.DB, sqllock.ExecQueryer, error) { return db, db, nil })
	err := pglock.DoTx(t.Context(), begin, pglock.Name("job"), func(context.Context, *sql.DB) error {
		t.Error("fn was run")
		return nil
	})
	if err == nil || !strings.Contains(err.Error(), "*sql.DB is not a transaction") {
		t.Errorf("got %v", err)
	}
}
