package main

import (
	"context"
	"testing"

	"go.uber.org/goleak"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/pglock-go/pglock/examples/internal/example"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
	"github.com/pglock-go/pglock/pglocktest"
	"github.com/pglock-go/pglock/sqllock"
)

func TestMain(m *testing.M) {
	// GORM's cache of prepared statements has a goroutine that never ends.
	pgtest.Main(m, goleak.IgnoreAnyFunction("gorm.io/gorm/internal/lru.NewLRU[...].func1"))
}

func open(t *testing.T, dsn string, config *gorm.Config) (*gorm.DB, *sqllock.Database) {
	config.Logger = logger.Discard
	db, err := gorm.Open(postgres.Open(dsn), config)
	if err != nil {
		t.Fatal(err)
	}
	pool, err := db.DB()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pool.Close() })
	return db, sqllock.DB(pool)
}

func TestProgram(t *testing.T) {
	dsn := pgtest.Database(t)
	db, source := open(t, dsn, &gorm.Config{})
	example.Test(t, dsn, source, example.Program{
		Run:        run,
		AddInvoice: func(ctx context.Context, amount int64) (int64, error) { return addInvoice(ctx, db, amount) },
		CloseMonth: func(ctx context.Context) (int64, error) { return closeMonth(ctx, db) },
		Remind:     func(ctx context.Context) (int, error) { n, err := remind(ctx, db); return int(n), err },
	})
}

// pglock works in GORM's transactions as in the driver's, with and without prepared
// statements.
func TestTx(t *testing.T) {
	for name, config := range map[string]*gorm.Config{
		"plain":      {},
		"statements": {PrepareStmt: true},
	} {
		t.Run(name, func(t *testing.T) {
			db, source := open(t, pgtest.Database(t), config)
			pglocktest.Tx(t, source, begin(db))
		})
	}
}
