package main

import (
	"context"
	"testing"

	"go.uber.org/goleak"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"
	"gorm.io/gorm/schema"

	"github.com/pglock-go/pglock"
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

// A User has the table that GORM chooses, and a LineItem names its own.
type (
	User     struct{ ID uint }
	LineItem struct{ ID uint }
)

func (LineItem) TableName() string { return "billing.line_items" }

// Any of GORM's models names its table.
func TestTables(t *testing.T) {
	db, _ := open(t, pgtest.Database(t), &gorm.Config{NamingStrategy: schema.NamingStrategy{TablePrefix: "app."}})
	for _, sql := range []string{"CREATE SCHEMA app", "CREATE SCHEMA billing"} {
		if err := db.Exec(sql).Error; err != nil {
			t.Fatal(err)
		}
	}
	if err := db.AutoMigrate(&User{}, &LineItem{}); err != nil {
		t.Fatal(err)
	}
	list, err := tables(db, &User{}, LineItem{}, (*User)(nil), []User{})
	if err != nil {
		t.Fatal(err)
	}
	err = db.Transaction(func(tx *gorm.DB) error {
		if err := pglock.LockTables(t.Context(), sqllock.Tx(tx.Statement.ConnPool), list); err != nil {
			return err
		}
		var locked string
		const sql = `SELECT string_agg(relation::regclass::text, ' ' ORDER BY relation::regclass::text) FROM pg_locks
			WHERE pid = pg_backend_pid() AND mode = 'AccessExclusiveLock' AND locktype = 'relation'`
		if err := tx.Raw(sql).Scan(&locked).Error; err != nil {
			return err
		}
		if locked != "app.users billing.line_items" {
			t.Errorf("locked %s", locked)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tables(db, 7); err == nil {
		t.Error("a number is a model")
	}
}
