package main

import (
	"context"
	"database/sql"
	"testing"

	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/pgdialect"

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
