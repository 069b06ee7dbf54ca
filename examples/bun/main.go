// Command bun is an example of pglock's locks in Bun's transactions.
package main

import (
	"context"
	"database/sql"
	"fmt"
	"io"
	"os"
	"reflect"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/pgdialect"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/sqllock"
)

// Invoice is a model; Bun calls its table invoices.
type Invoice struct {
	Number int64 `bun:",pk"`
	Amount int64
	Closed bool
}

// addInvoice adds an invoice with the next number, without gaps. The lock is released
// when the transaction ends, so the next caller sees this number.
func addInvoice(ctx context.Context, db *bun.DB, amount int64) (number int64, err error) {
	err = db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		if err := pglock.LockTx(ctx, sqllock.Tx(tx), pglock.Name("invoice numbers"), pglock.Wait(10*time.Second)); err != nil {
			return err
		}
		if err := tx.NewSelect().Model((*Invoice)(nil)).ColumnExpr("coalesce(max(number), 0) + 1").Scan(ctx, &number); err != nil {
			return err
		}
		_, err := tx.NewInsert().Model(&Invoice{Number: number, Amount: amount}).Exec(ctx)
		return err
	})
	return number, err
}

// tables returns the tables of models, as Bun names them.
func tables(db *bun.DB, models ...any) pglock.TableList {
	var names []any
	for _, model := range models {
		names = append(names, db.Table(reflect.TypeOf(model)).Name)
	}
	return pglock.Tables(names...)
}

// closeMonth closes all open invoices while nobody writes to their table.
func closeMonth(ctx context.Context, db *bun.DB) (total int64, err error) {
	err = db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		if err := pglock.LockTables(ctx, sqllock.Tx(tx), tables(db, &Invoice{}),
			pglock.In(pglock.ShareRowExclusive), pglock.Wait(10*time.Second)); err != nil {
			return err
		}
		if err := tx.NewSelect().Model((*Invoice)(nil)).ColumnExpr("coalesce(sum(amount), 0)").
			Where("NOT closed").Scan(ctx, &total); err != nil {
			return err
		}
		_, err := tx.NewUpdate().Model((*Invoice)(nil)).Set("closed = true").Where("NOT closed").Exec(ctx)
		return err
	})
	return total, err
}

// remind counts the open invoices. Every machine calls it, but only one at a time runs it;
// the others skip it.
func remind(ctx context.Context, db *bun.DB) (invoices int64, err error) {
	err = pglock.DoTx(ctx, begin(db), pglock.Name("reminders"), func(ctx context.Context, tx bun.Tx) error {
		invoices, err = tx.NewSelect().Model((*Invoice)(nil)).Where("NOT closed").Count(ctx)
		return err
	}, pglock.SkipIfHeld())
	return invoices, err
}

// begin begins Bun's transactions for pglock.DoTx and pglock.DoTables.
func begin(db *bun.DB) driver.Beginner[bun.Tx] {
	return sqllock.BeginFunc(func(ctx context.Context) (bun.Tx, sqllock.ExecQueryer, error) {
		tx, err := db.BeginTx(ctx, nil)
		return tx, tx, err
	})
}

func main() {
	if err := run(context.Background(), os.Getenv("DATABASE_URL"), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, dsn string, out io.Writer) error {
	pool, err := sql.Open("pgx", dsn)
	if err != nil {
		return err
	}
	db := bun.NewDB(pool, pgdialect.New())
	defer db.Close()
	if _, err := db.NewCreateTable().Model((*Invoice)(nil)).IfNotExists().Exec(ctx); err != nil {
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
