// Command sqlx is an example of pglock's locks in sqlx's transactions.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/jmoiron/sqlx"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/sqllock"
)

// Invoice is a row of the table invoices.
type Invoice struct {
	Number int64
	Amount int64
}

// addInvoice adds an invoice with the next number, without gaps. The lock is released
// when the transaction ends, so the next caller sees this number.
func addInvoice(ctx context.Context, db *sqlx.DB, amount int64) (number int64, err error) {
	tx, err := db.BeginTxx(ctx, nil)
	if err != nil {
		return 0, err
	}
	defer tx.Rollback()
	if err := pglock.LockTx(ctx, sqllock.Tx(tx), pglock.Name("invoice numbers"), pglock.Wait(10*time.Second)); err != nil {
		return 0, err
	}
	if err := tx.GetContext(ctx, &number, `SELECT coalesce(max(number), 0) + 1 FROM invoices`); err != nil {
		return 0, err
	}
	if _, err := tx.NamedExecContext(ctx, `INSERT INTO invoices (number, amount) VALUES (:number, :amount)`,
		Invoice{Number: number, Amount: amount}); err != nil {
		return 0, err
	}
	return number, tx.Commit()
}

// closeMonth closes all open invoices while nobody writes to their table.
func closeMonth(ctx context.Context, db *sqlx.DB) (total int64, err error) {
	tx, err := db.BeginTxx(ctx, nil)
	if err != nil {
		return 0, err
	}
	defer tx.Rollback()
	if err := pglock.LockTables(ctx, sqllock.Tx(tx), pglock.Tables("invoices"),
		pglock.In(pglock.ShareRowExclusive), pglock.Wait(10*time.Second)); err != nil {
		return 0, err
	}
	if err := tx.GetContext(ctx, &total, `SELECT coalesce(sum(amount), 0) FROM invoices WHERE NOT closed`); err != nil {
		return 0, err
	}
	if _, err := tx.ExecContext(ctx, `UPDATE invoices SET closed = true WHERE NOT closed`); err != nil {
		return 0, err
	}
	return total, tx.Commit()
}

// remind counts the open invoices. Every machine calls it, but only one at a time runs it;
// the others skip it.
func remind(ctx context.Context, db *sqlx.DB) (invoices int, err error) {
	err = pglock.DoTx(ctx, begin(db), pglock.Name("reminders"), func(ctx context.Context, tx *sqlx.Tx) error {
		return tx.GetContext(ctx, &invoices, `SELECT count(*) FROM invoices WHERE NOT closed`)
	}, pglock.SkipIfHeld())
	return invoices, err
}

// begin begins sqlx's transactions for pglock.DoTx and pglock.DoTables.
func begin(db *sqlx.DB) driver.Beginner[*sqlx.Tx] {
	return sqllock.BeginFunc(func(ctx context.Context) (*sqlx.Tx, sqllock.ExecQueryer, error) {
		tx, err := db.BeginTxx(ctx, nil)
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
	db, err := sqlx.ConnectContext(ctx, "pgx", dsn)
	if err != nil {
		return err
	}
	defer db.Close()
	if _, err := db.ExecContext(ctx, `CREATE TABLE IF NOT EXISTS invoices
		(number bigint PRIMARY KEY, amount bigint NOT NULL, closed bool NOT NULL DEFAULT false)`); err != nil {
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
