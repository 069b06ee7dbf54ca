// Command gorm is an example of pglock's locks in GORM's transactions.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"gorm.io/driver/postgres"
	"gorm.io/gorm"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/sqllock"
)

// Invoice is a model; GORM calls its table invoices.
type Invoice struct {
	Number int64 `gorm:"primaryKey;autoIncrement:false"`
	Amount int64
	Closed bool
}

// addInvoice adds an invoice with the next number, without gaps. The lock is released
// when the transaction ends, so the next caller sees this number.
func addInvoice(ctx context.Context, db *gorm.DB, amount int64) (number int64, err error) {
	err = db.WithContext(ctx).Transaction(func(tx *gorm.DB) error {
		conn := sqllock.Tx(tx.Statement.ConnPool)
		if err := pglock.LockTx(ctx, conn, pglock.Name("invoice numbers"), pglock.Wait(10*time.Second)); err != nil {
			return err
		}
		if err := tx.Model(&Invoice{}).Select("coalesce(max(number), 0) + 1").Scan(&number).Error; err != nil {
			return err
		}
		return tx.Create(&Invoice{Number: number, Amount: amount}).Error
	})
	return number, err
}

// tables returns the tables of models, as GORM names them.
func tables(db *gorm.DB, models ...any) (pglock.TableList, error) {
	var names []any
	for _, model := range models {
		statement := gorm.Statement{DB: db}
		if err := statement.Parse(model); err != nil {
			return pglock.TableList{}, err
		}
		names = append(names, statement.Schema.Table)
	}
	return pglock.Tables(names...), nil
}

// closeMonth closes all open invoices while nobody writes to their table.
func closeMonth(ctx context.Context, db *gorm.DB) (total int64, err error) {
	invoices, err := tables(db, &Invoice{})
	if err != nil {
		return 0, err
	}
	err = db.WithContext(ctx).Transaction(func(tx *gorm.DB) error {
		conn := sqllock.Tx(tx.Statement.ConnPool)
		if err := pglock.LockTables(ctx, conn, invoices,
			pglock.In(pglock.ShareRowExclusive), pglock.Wait(10*time.Second)); err != nil {
			return err
		}
		if err := tx.Model(&Invoice{}).Where("NOT closed").Select("coalesce(sum(amount), 0)").Scan(&total).Error; err != nil {
			return err
		}
		return tx.Model(&Invoice{}).Where("NOT closed").Update("closed", true).Error
	})
	return total, err
}

// remind counts the open invoices. Every machine calls it, but only one at a time runs it;
// the others skip it.
func remind(ctx context.Context, db *gorm.DB) (invoices int64, err error) {
	err = pglock.DoTx(ctx, begin(db), pglock.Name("reminders"), func(_ context.Context, tx *gorm.DB) error {
		return tx.Model(&Invoice{}).Where("NOT closed").Count(&invoices).Error
	}, pglock.SkipIfHeld())
	return invoices, err
}

// begin begins GORM's transactions for pglock.DoTx and pglock.DoTables.
func begin(db *gorm.DB) driver.Beginner[*gorm.DB] {
	return sqllock.BeginFunc(func(ctx context.Context) (*gorm.DB, sqllock.ExecQueryer, error) {
		tx := db.WithContext(ctx).Begin()
		return tx, tx.Statement.ConnPool, tx.Error
	})
}

func main() {
	if err := run(context.Background(), os.Getenv("DATABASE_URL"), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, dsn string, out io.Writer) error {
	db, err := gorm.Open(postgres.Open(dsn))
	if err != nil {
		return err
	}
	pool, err := db.DB()
	if err != nil {
		return err
	}
	defer pool.Close()
	if err := db.AutoMigrate(&Invoice{}); err != nil {
		return err
	}
	for _, amount := range []int64{10, 20} {
		number, err := addInvoice(ctx, db, amount)
		if err != nil {
			return err
		}
		fmt.Fprintln(out, "invoice", number)
	}
	invoices, err := remind(ctx, db)
	if err != nil {
		return err
	}
	fmt.Fprintln(out, "reminders", invoices)
	total, err := closeMonth(ctx, db)
	if err != nil {
		return err
	}
	fmt.Fprintln(out, "closed", total)
	return nil
}
