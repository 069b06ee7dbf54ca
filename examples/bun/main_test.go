package main

import (
	"context"
	"database/sql"
	"testing"

	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/pgdialect"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/examples/internal/example"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
	"github.com/pglock-go/pglock/pglocktest"
	"github.com/pglock-go/pglock/sqllock"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func open(t *testing.T, dsn string) (*bun.DB, *sqllock.Database) {
	pool, err := sql.Open("pgx", dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pool.Close() })
	return bun.NewDB(pool, pgdialect.New()), sqllock.DB(pool)
}

func TestProgram(t *testing.T) {
	dsn := pgtest.Database(t)
	db, source := open(t, dsn)
	example.Test(t, dsn, source, example.Program{
		Run:        run,
		AddInvoice: func(ctx context.Context, amount int64) (int64, error) { return addInvoice(ctx, db, amount) },
		CloseMonth: func(ctx context.Context) (int64, error) { return closeMonth(ctx, db) },
		Remind:     func(ctx context.Context) (int, error) { n, err := remind(ctx, db); return int(n), err },
	})
}

// pglock works in Bun's transactions as in the driver's.
func TestTx(t *testing.T) {
	db, source := open(t, pgtest.Database(t))
	pglocktest.Tx(t, source, begin(db))
}

// A User has the table that Bun chooses, and a LineItem names its own.
type (
	User struct {
		ID int64 `bun:",pk"`
	}
	LineItem struct {
		bun.BaseModel `bun:"table:billing.line_items,alias:l"`

		ID int64 `bun:",pk"`
	}
)

// Any of Bun's models names its table.
func TestTables(t *testing.T) {
	db, _ := open(t, pgtest.Database(t))
	if _, err := db.ExecContext(t.Context(), "CREATE SCHEMA billing"); err != nil {
		t.Fatal(err)
	}
	for _, model := range []any{(*User)(nil), (*LineItem)(nil)} {
		if _, err := db.NewCreateTable().Model(model).Exec(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	err := db.RunInTx(t.Context(), nil, func(ctx context.Context, tx bun.Tx) error {
		if err := pglock.LockTables(ctx, sqllock.Tx(tx), tables(db, &User{}, LineItem{}, (*User)(nil))); err != nil {
			return err
		}
		var locked string
		const sql = `SELECT string_agg(relation::regclass::text, ' ' ORDER BY relation::regclass::text) FROM pg_locks
			WHERE pid = pg_backend_pid() AND mode = 'AccessExclusiveLock' AND locktype = 'relation'`
		if err := tx.NewRaw(sql).Scan(ctx, &locked); err != nil {
			return err
		}
		if locked != "billing.line_items users" {
			t.Errorf("locked %s", locked)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
