package main

import (
	"context"
	"testing"

	"github.com/jmoiron/sqlx"

	"github.com/pglock-go/pglock/examples/internal/example"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
	"github.com/pglock-go/pglock/pglocktest"
	"github.com/pglock-go/pglock/sqllock"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func open(t *testing.T, dsn string) (*sqlx.DB, *sqllock.Database) {
	db, err := sqlx.Open("pgx", dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db, sqllock.DB(db.DB)
}

func TestProgram(t *testing.T) {
	dsn := pgtest.Database(t)
	db, source := open(t, dsn)
	example.Test(t, dsn, source, example.Program{
		Run:        run,
		AddInvoice: func(ctx context.Context, amount int64) (int64, error) { return addInvoice(ctx, db, amount) },
		CloseMonth: func(ctx context.Context) (int64, error) { return closeMonth(ctx, db) },
		Remind:     func(ctx context.Context) (int, error) { return remind(ctx, db) },
	})
}

// pglock works in sqlx's transactions as in the driver's.
func TestTx(t *testing.T) {
	db, source := open(t, pgtest.Database(t))
	pglocktest.Tx(t, source, begin(db))
}
