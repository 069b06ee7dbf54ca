package main

import (
	"context"
	"database/sql"
	"testing"

	"entgo.io/ent/dialect"
	entsql "entgo.io/ent/dialect/sql"

	"github.com/pglock-go/pglock/examples/internal/example"
	"github.com/pglock-go/pglock/examples/testdata/ent/ent"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
	"github.com/pglock-go/pglock/pglocktest"
	"github.com/pglock-go/pglock/sqllock"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func open(t *testing.T, dsn string) (*ent.Client, *sqllock.Database) {
	pool, err := sql.Open("pgx", dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pool.Close() })
	return ent.NewClient(ent.Driver(entsql.OpenDB(dialect.Postgres, pool))), sqllock.DB(pool)
}

func TestProgram(t *testing.T) {
	dsn := pgtest.Database(t)
	client, source := open(t, dsn)
	example.Test(t, dsn, source, example.Program{
		Run:        run,
		AddInvoice: func(ctx context.Context, amount int64) (int64, error) { return addInvoice(ctx, client, amount) },
		CloseMonth: func(ctx context.Context) (int64, error) { return closeMonth(ctx, client) },
		Remind:     func(ctx context.Context) (int, error) { return remind(ctx, client) },
	})
}

// pglock works in ent's transactions as in the driver's.
func TestTx(t *testing.T) {
	client, source := open(t, pgtest.Database(t))
	pglocktest.Tx(t, source, begin(client))
}
