// Command ent is an example of pglock's locks in ent's transactions.
package main

import (
	"context"
	"database/sql"
	"fmt"
	"io"
	"os"
	"time"

	"entgo.io/ent/dialect"
	entsql "entgo.io/ent/dialect/sql"
	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/examples/testdata/ent/ent"
	"github.com/pglock-go/pglock/examples/testdata/ent/ent/invoice"
	"github.com/pglock-go/pglock/sqllock"
)

// addInvoice adds an invoice with the next number, without gaps. The lock is released
// when the transaction ends, so the next caller sees this number.
func addInvoice(ctx context.Context, client *ent.Client, amount int64) (number int64, err error) {
	tx, err := client.Tx(ctx)
	if err != nil {
		return 0, err
	}
	defer tx.Rollback()
	if err := pglock.LockTx(ctx, sqllock.Tx(tx), pglock.Name("invoice numbers"), pglock.Wait(10*time.Second)); err != nil {
		return 0, err
	}
	last, err := tx.Invoice.Query().Order(invoice.ByNumber(entsql.OrderDesc())).First(ctx)
	switch {
	case err == nil:
		number = last.Number + 1
	case ent.IsNotFound(err):
		number = 1
	default:
		return 0, err
	}
	if err := tx.Invoice.Create().SetNumber(number).SetAmount(amount).Exec(ctx); err != nil {
		return 0, err
	}
	return number, tx.Commit()
}

// closeMonth closes all open invoices while nobody writes to their table.
func closeMonth(ctx context.Context, client *ent.Client) (total int64, err error) {
	tx, err := client.Tx(ctx)
	if err != nil {
		return 0, err
	}
	defer tx.Rollback()
	if err := pglock.LockTables(ctx, sqllock.Tx(tx), pglock.Tables(invoice.Table),
		pglock.In(pglock.ShareRowExclusive), pglock.Wait(10*time.Second)); err != nil {
		return 0, err
	}
	open, err := tx.Invoice.Query().Where(invoice.Closed(false)).All(ctx)
	if err != nil {
		return 0, err
	}
	for _, one := range open {
		total += one.Amount
	}
	if err := tx.Invoice.Update().Where(invoice.Closed(false)).SetClosed(true).Exec(ctx); err != nil {
		return 0, err
	}
	return total, tx.Commit()
}

// remind counts the open invoices. Every machine calls it, but only one at a time runs it;
// the others skip it.
func remind(ctx context.Context, client *ent.Client) (invoices int, err error) {
	err = pglock.DoTx(ctx, begin(client), pglock.Name("reminders"), func(ctx context.Context, tx *ent.Tx) error {
		invoices, err = tx.Invoice.Query().Where(invoice.Closed(false)).Count(ctx)
		return err
	}, pglock.SkipIfHeld())
	return invoices, err
}

// begin begins ent's transactions for pglock.DoTx and pglock.DoTables.
func begin(client *ent.Client) driver.Beginner[*ent.Tx] {
	return sqllock.BeginFunc(func(ctx context.Context) (*ent.Tx, sqllock.ExecQueryer, error) {
		tx, err := client.Tx(ctx)
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
	client := ent.NewClient(ent.Driver(entsql.OpenDB(dialect.Postgres, pool)))
	defer client.Close()
	if err := client.Schema.Create(ctx); err != nil {
		return err
	}
	for _, amount := range []int64{10, 20} {
		number, err := addInvoice(ctx, client, amount)
		if err != nil {
			return err
		}
		fmt.Fprintln(out, "invoice", number)
	}
	invoices, err := remind(ctx, client)
	if err != nil {
		return err
	}
	fmt.Fprintln(out, "reminders", invoices)
	total, err := closeMonth(ctx, client)
	if err != nil {
		return err
	}
	fmt.Fprintln(out, "closed", total)
	return nil
}
