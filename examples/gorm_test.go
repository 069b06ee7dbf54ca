package examples_test

import (
	"errors"
	"testing"

	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
	"github.com/pglock-go/pglock/sqllock"
)

// An Invoice has the table that GORM chooses for it: invoices.
type Invoice struct {
	ID     uint
	Amount int
}

// A LineItem names its table itself, as one of GORM's Tablers.
type LineItem struct{ ID uint }

func (LineItem) TableName() string { return "billing.line_items" }

// gormTable returns the table that GORM uses for a model.
func gormTable(db *gorm.DB, model any) (string, error) {
	statement := gorm.Statement{DB: db}
	if err := statement.Parse(model); err != nil {
		return "", err
	}
	return statement.Schema.Table, nil
}

func TestGORM(t *testing.T) {
	t.Parallel()
	dsn := pgtest.Database(t)
	db, err := gorm.Open(postgres.Open(dsn), &gorm.Config{Logger: logger.Discard})
	must(t, err)
	pool, err := db.DB()
	must(t, err)
	defer pool.Close()
	must(t, db.Exec("CREATE SCHEMA billing").Error)
	must(t, db.AutoMigrate(&Invoice{}, &LineItem{}))
	second := other(t, dsn)
	key := pglock.Name("invoices")

	invoices, err := gormTable(db, &Invoice{})
	must(t, err)
	boom := errors.New("boom")
	for _, outcome := range []error{nil, boom} {
		err = db.Transaction(func(tx *gorm.DB) error {
			conn := sqllock.Tx(tx.Statement.ConnPool)
			if err := pglock.LockTables(t.Context(), conn, pglock.Tables(invoices, &LineItem{}),
				pglock.In(pglock.ShareRowExclusive)); err != nil {
				return err
			}
			if err := pglock.LockTx(t.Context(), conn, key); err != nil {
				return err
			}
			canLock(t, second, "invoices", false)
			canLock(t, second, "billing.line_items", false)
			canAcquire(t, second, key, false)

			// A lock that is not acquired leaves GORM's transaction usable.
			_, err := second.Exec(t.Context(), "SELECT pg_advisory_lock(42)")
			must(t, err)
			if err := pglock.LockTx(t.Context(), conn, pglock.Int(42), pglock.NoWait()); !errors.Is(err, pglock.ErrNotAcquired) {
				t.Errorf("got %v", err)
			}
			_, err = second.Exec(t.Context(), "SELECT pg_advisory_unlock(42)")
			must(t, err)
			if err := tx.Create(&Invoice{Amount: 7}).Error; err != nil {
				return err
			}
			return outcome
		})
		if !errors.Is(err, outcome) {
			t.Fatal(err)
		}
		canLock(t, second, "invoices", true)
		canLock(t, second, "billing.line_items", true)
		canAcquire(t, second, key, true)
	}
	var n int64
	must(t, db.Model(&Invoice{}).Count(&n).Error)
	if n != 1 {
		t.Errorf("%d invoices, want the one that was committed", n)
	}

	// Outside a transaction it is an error, not a lock that is released at once.
	if err := pglock.LockTx(t.Context(), sqllock.Tx(db.Statement.ConnPool), key); err == nil {
		t.Error("a lock without a transaction")
	}
}
