package pglock_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/pgxlock"
	"github.com/pglock-go/pglock/sqllock"
)

// The lock guards what the transaction does, and ends with it.
func ExampleLockTx() {
	ctx := context.Background()
	dsn, done := exampleDatabase()
	defer done()
	conn, err := pgx.Connect(ctx, dsn)
	check(err)
	defer conn.Close(ctx)

	tx, err := conn.Begin(ctx)
	check(err)
	defer tx.Rollback(ctx)
	err = pglock.LockTx(ctx, pgxlock.Tx(tx), pglock.Name("invoice numbers"), pglock.Wait(2*time.Second))
	check(err)
	_, err = tx.Exec(ctx, `SELECT 'read the highest number, and insert the next'`)
	check(err)
	check(tx.Commit(ctx))

	fmt.Println("done")
	// Output: done
}

// If the lock is not acquired, the transaction is unchanged, and the error lists the
// holders.
func ExampleLockTx_notAcquired() {
	ctx := context.Background()
	dsn, done := exampleDatabase()
	defer done()
	other, err := pgx.Connect(ctx, dsn)
	check(err)
	defer other.Close(ctx)
	_, err = other.Exec(ctx, `SET application_name = 'billing'; SELECT pg_advisory_lock(42)`)
	check(err)

	conn, err := pgx.Connect(ctx, dsn)
	check(err)
	defer conn.Close(ctx)
	tx, err := conn.Begin(ctx)
	check(err)
	defer tx.Rollback(ctx)

	err = pglock.LockTx(ctx, pgxlock.Tx(tx), pglock.Int(42), pglock.NoWait())
	fmt.Println("not acquired:", errors.Is(err, pglock.ErrNotAcquired))
	var e *pglock.Error
	if errors.As(err, &e) {
		for _, holder := range e.Holders {
			fmt.Println("held by", holder.Application)
		}
	}
	_, err = tx.Exec(ctx, `SELECT 'something else'`)
	fmt.Println("the transaction goes on:", err == nil)
	// Output:
	// not acquired: true
	// held by billing
	// the transaction goes on: true
}

func ExampleTryLockTx() {
	ctx := context.Background()
	dsn, done := exampleDatabase()
	defer done()
	conn, err := pgx.Connect(ctx, dsn)
	check(err)
	defer conn.Close(ctx)

	tx, err := conn.Begin(ctx)
	check(err)
	defer tx.Rollback(ctx)
	switch err := pglock.TryLockTx(ctx, pgxlock.Tx(tx), pglock.Pair(1, 77)); {
	case err == nil:
		fmt.Println("mine")
	case errors.Is(err, pglock.ErrNotAcquired):
		fmt.Println("somebody else's")
	default:
		fmt.Println(err)
	}
	// Output: mine
}

// Two transfers between the same accounts, in either direction, never deadlock.
func ExampleLockAllTx() {
	ctx := context.Background()
	dsn, done := exampleDatabase()
	defer done()
	conn, err := pgx.Connect(ctx, dsn)
	check(err)
	defer conn.Close(ctx)

	tx, err := conn.Begin(ctx)
	check(err)
	defer tx.Rollback(ctx)
	accounts := []pglock.Key{pglock.Name("account 8"), pglock.Name("account 3")}
	check(pglock.LockAllTx(ctx, pgxlock.Tx(tx), accounts))

	var n int
	check(tx.QueryRow(ctx, `SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()`).Scan(&n))
	fmt.Println(n, "locks")
	// Output: 2 locks
}

// Begin a transaction, lock, and commit, in one call.
func ExampleDoTx() {
	ctx := context.Background()
	dsn, done := exampleDatabase()
	defer done()
	pool, err := pgxpool.New(ctx, dsn)
	check(err)
	defer pool.Close()

	err = pglock.DoTx(ctx, pgxlock.Pool(pool), pglock.Name("nightly report"),
		func(ctx context.Context, tx pgx.Tx) error {
			_, err := tx.Exec(ctx, `CREATE TABLE report AS SELECT 'all is well' AS text`)
			return err
		}, pglock.SkipIfHeld())
	check(err)

	var text string
	check(pool.QueryRow(ctx, `SELECT text FROM report`).Scan(&text))
	fmt.Println(text)
	// Output: all is well
}

// Order is a GORM model.
type Order struct{ ID int }

func (Order) TableName() string { return "shop.orders" }

func ExampleLockTables() {
	ctx := context.Background()
	dsn, done := exampleDatabase()
	defer done()
	conn, err := pgx.Connect(ctx, dsn)
	check(err)
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, `CREATE SCHEMA shop; CREATE TABLE shop.orders (); CREATE TABLE shop."Returns" ()`)
	check(err)

	tx, err := conn.Begin(ctx)
	check(err)
	defer tx.Rollback(ctx)
	err = pglock.LockTables(ctx, pgxlock.Tx(tx), pglock.Tables(Order{}, "shop.Returns"),
		pglock.In(pglock.ShareRowExclusive), pglock.Wait(2*time.Second))
	check(err)

	rows, err := tx.Query(ctx, `SELECT relation::regclass || ' ' || mode FROM pg_locks
		WHERE pid = pg_backend_pid() AND mode = 'ShareRowExclusiveLock' ORDER BY 1`)
	check(err)
	locks, err := pgx.CollectRows(rows, pgx.RowTo[string])
	check(err)
	for _, lock := range locks {
		fmt.Println(lock)
	}
	// Output:
	// shop."Returns" ShareRowExclusiveLock
	// shop.orders ShareRowExclusiveLock
}

func ExampleDoTables() {
	ctx := context.Background()
	dsn, done := exampleDatabase()
	defer done()
	pool, err := pgxpool.New(ctx, dsn)
	check(err)
	defer pool.Close()
	_, err = pool.Exec(ctx, `CREATE TABLE orders (n int)`)
	check(err)

	err = pglock.DoTables(ctx, pgxlock.Pool(pool), pglock.Tables("orders"),
		func(ctx context.Context, tx pgx.Tx) error {
			_, err := tx.Exec(ctx, `ALTER TABLE orders ADD COLUMN note text`)
			return err
		}, pglock.Wait(2*time.Second))
	fmt.Println(err)
	// Output: <nil>
}

// The error names a missing table, and the transaction can continue.
func ExampleLockTables_noSuchTable() {
	ctx := context.Background()
	dsn, done := exampleDatabase()
	defer done()
	conn, err := pgx.Connect(ctx, dsn)
	check(err)
	defer conn.Close(ctx)
	tx, err := conn.Begin(ctx)
	check(err)
	defer tx.Rollback(ctx)

	err = pglock.LockTables(ctx, pgxlock.Tx(tx), pglock.Tables("ordres"))
	fmt.Println(err)
	_, err = tx.Exec(ctx, `SELECT 1`)
	fmt.Println(err)
	// Output:
	// pglock: lock tables ordres: ERROR: relation "ordres" does not exist (SQLSTATE 42P01)
	// <nil>
}

func ExampleMode_Conflicts() {
	for _, mode := range []pglock.Mode{pglock.AccessShare, pglock.RowExclusive, pglock.Share} {
		fmt.Println(mode, "beside CREATE INDEX:", !mode.Conflicts(pglock.Share))
	}
	// Output:
	// ACCESS SHARE beside CREATE INDEX: true
	// ROW EXCLUSIVE beside CREATE INDEX: false
	// SHARE beside CREATE INDEX: true
}

func ExampleParseMode() {
	fmt.Println(pglock.ParseMode("share row exclusive"))
	fmt.Println(pglock.ParseMode("ShareRowExclusiveLock"))
	// Output:
	// SHARE ROW EXCLUSIVE <nil>
	// SHARE ROW EXCLUSIVE <nil>
}

// An ALTER TABLE gives up after half a second without its lock, before a long queue
// builds up behind it.
func ExampleWithLockTimeout() {
	ctx := context.Background()
	dsn, done := exampleDatabase()
	defer done()
	conn, err := pgx.Connect(ctx, dsn)
	check(err)
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, `CREATE TABLE orders (); SET lock_timeout = '1min'`)
	check(err)

	err = pglock.WithLockTimeout(ctx, pgxlock.Conn(conn), 500*time.Millisecond, func(ctx context.Context) error {
		fmt.Println("within:", setting(ctx, conn, "lock_timeout"))
		_, err := conn.Exec(ctx, `ALTER TABLE orders ADD COLUMN note text`)
		return err
	})
	fmt.Println("error:", err)
	fmt.Println("after:", setting(ctx, conn, "lock_timeout"))
	// Output:
	// within: 500ms
	// error: <nil>
	// after: 1min
}

// A report without a timeout, on a connection that has one.
func ExampleWithStatementTimeout() {
	ctx := context.Background()
	dsn, done := exampleDatabase()
	defer done()
	conn, err := pgx.Connect(ctx, dsn)
	check(err)
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, `SET statement_timeout = '5s'`)
	check(err)

	err = pglock.WithStatementTimeout(ctx, pgxlock.Conn(conn), pglock.NoTimeout, func(ctx context.Context) error {
		fmt.Println("within:", setting(ctx, conn, "statement_timeout"))
		return nil
	})
	check(err)
	fmt.Println("after:", setting(ctx, conn, "statement_timeout"))
	// Output:
	// within: 0
	// after: 5s
}

func setting(ctx context.Context, conn *pgx.Conn, name string) (value string) {
	check(conn.QueryRow(ctx, `SELECT current_setting($1)`, name).Scan(&value))
	return value
}

// With database/sql, only the adapter differs.
func Example_databaseSQL() {
	ctx := context.Background()
	dsn, done := exampleDatabase()
	defer done()
	db, err := sql.Open("postgres", dsn)
	check(err)
	defer db.Close()

	err = pglock.DoTx(ctx, sqllock.DB(db), pglock.Name("nightly report"),
		func(ctx context.Context, tx *sql.Tx) error {
			return pglock.TryLockTx(ctx, sqllock.Tx(tx), pglock.Name("another"))
		})
	fmt.Println(err)
	// Output: <nil>
}
