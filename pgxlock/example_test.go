package pgxlock_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
	"github.com/pglock-go/pglock/pgxlock"
)

func exampleDatabase() (dsn string, done func()) {
	e := &pgtest.Example{}
	return pgtest.Database(e), e.Done
}

func check(err error) {
	if err != nil {
		log.Panic(err)
	}
}

// A Locker beside the application's pool: its sessions do not belong to the pool.
func ExamplePool() {
	ctx := context.Background()
	dsn, done := exampleDatabase()
	defer done()
	pool, err := pgxpool.New(ctx, dsn)
	check(err)
	defer pool.Close()

	locker, err := pglock.New(pgxlock.Pool(pool))
	check(err)
	defer locker.Close()
	lock, err := locker.Lock(ctx, pglock.Name("nightly-report"))
	check(err)
	defer lock.Unlock()
	fmt.Println("connections of the pool in use:", pool.Stat().AcquiredConns())
	// Output: connections of the pool in use: 0
}

// A pool also runs queries for package inspect.
func ExampleDatabase_Query() {
	ctx := context.Background()
	dsn, done := exampleDatabase()
	defer done()
	pool, err := pgxpool.New(ctx, dsn)
	check(err)
	defer pool.Close()

	pairs, err := inspect.Blocked(ctx, pgxlock.Pool(pool), inspect.Where("database", "=", pool.Config().ConnConfig.Database))
	fmt.Println(len(pairs), err)

	rows, err := pgxlock.Pool(pool).Query(ctx, "SELECT $1 || 'day'", "to")
	check(err)
	defer rows.Close()
	for rows.Next() {
		var text string
		check(rows.Scan(&text))
		fmt.Println(text)
	}
	check(rows.Err())
	// Output:
	// 0 <nil>
	// today
}

// A Locker without a pool.
func ExampleConnString() {
	ctx := context.Background()
	dsn, done := exampleDatabase() // such as postgres://app@db-1,db-2/shop?target_session_attrs=read-write
	defer done()

	locker, err := pglock.New(pgxlock.ConnString(dsn))
	check(err)
	defer locker.Close()
	err = locker.Do(ctx, pglock.Name("nightly-report"), func(context.Context) error {
		fmt.Println("nobody else does this now")
		return nil
	})
	check(err)
	// Output: nobody else does this now
}

// A configuration that differs from the application's, such as one that bypasses a
// pooler.
func ExampleConfig() {
	ctx := context.Background()
	dsn, done := exampleDatabase()
	defer done()

	config, err := pgx.ParseConfig(dsn)
	check(err)
	config.RuntimeParams["application_name"] = "shop locks"
	locker, err := pglock.New(pgxlock.Config(config))
	check(err)
	defer locker.Close()
	key := pglock.Name("nightly-report")
	lock, err := locker.Lock(ctx, key)
	check(err)
	defer lock.Unlock()
	holders, err := locker.Holders(ctx, key)
	check(err)
	fmt.Println(holders[key][0].Application)
	// Output: shop locks
}

// A Locker works with sessions.
func ExampleDatabase_Open() {
	ctx := context.Background()
	dsn, done := exampleDatabase()
	defer done()

	session, err := pgxlock.ConnString(dsn).Open(ctx)
	check(err)
	defer session.Close()
	pid, err := session.QueryText(ctx, "SELECT pg_backend_pid()::text")
	check(err)
	fmt.Println("no pooler in between:", pid == fmt.Sprint(session.PID()))
	// Output: no pooler in between: true
}

// A lock in the application's transaction.
func ExampleTx() {
	ctx := context.Background()
	dsn, done := exampleDatabase()
	defer done()
	pool, err := pgxpool.New(ctx, dsn)
	check(err)
	defer pool.Close()

	tx, err := pool.Begin(ctx)
	check(err)
	defer tx.Rollback(ctx)
	check(pglock.LockTx(ctx, pgxlock.Tx(tx), pglock.Name("invoice numbers")))
	// ... read the highest number, and insert the next ...
	check(tx.Commit(ctx))
	fmt.Println("free again")
	// Output: free again
}

// Set a timeout on one connection.
func ExampleConn() {
	ctx := context.Background()
	dsn, done := exampleDatabase()
	defer done()
	conn, err := pgx.Connect(ctx, dsn)
	check(err)
	defer conn.Close(ctx)

	show := func(ctx context.Context) error {
		var timeout string
		err := conn.QueryRow(ctx, "SHOW lock_timeout").Scan(&timeout)
		fmt.Println(timeout)
		return err
	}
	check(pglock.WithLockTimeout(ctx, pgxlock.Conn(conn), 3*time.Second, show))
	check(show(ctx))
	// Output:
	// 3s
	// 0
}

// DoTx begins a transaction, locks, works, and commits.
func ExampleDatabase_Begin() {
	ctx := context.Background()
	dsn, done := exampleDatabase()
	defer done()
	pool, err := pgxpool.New(ctx, dsn)
	check(err)
	defer pool.Close()

	err = pglock.DoTx(ctx, pgxlock.Pool(pool), pglock.Name("invoice numbers"),
		func(ctx context.Context, tx pgx.Tx) error {
			var one int
			err := tx.QueryRow(ctx, "SELECT 1").Scan(&one)
			fmt.Println("in the transaction:", one)
			return err
		})
	check(err)
	// Output: in the transaction: 1
}

// DoTx with another isolation level.
func ExampleDatabase_TxOptions() {
	ctx := context.Background()
	dsn, done := exampleDatabase()
	defer done()

	db := pgxlock.ConnString(dsn).TxOptions(pgx.TxOptions{IsoLevel: pgx.RepeatableRead})
	err := pglock.DoTables(ctx, db, pglock.Tables("pg_catalog.pg_class"),
		func(ctx context.Context, tx pgx.Tx) error {
			var level string
			err := tx.QueryRow(ctx, "SHOW transaction_isolation").Scan(&level)
			fmt.Println(level)
			return err
		}, pglock.In(pglock.AccessShare))
	check(err)
	// Output: repeatable read
}

// A connection of the pool, which is closed if its state is uncertain.
func ExampleDatabase_Acquire() {
	ctx := context.Background()
	dsn, done := exampleDatabase()
	defer done()
	pool, err := pgxpool.New(ctx, dsn)
	check(err)
	defer pool.Close()

	c, err := pgxlock.Pool(pool).Acquire(ctx)
	check(err)
	defer c.Release(false)
	err = pglock.WithLockTimeout(ctx, c.Conn, time.Second, func(ctx context.Context) error {
		_, err := c.Native.Exec(ctx, "CREATE TABLE report ()")
		return err
	})
	fmt.Println(err)
	if err == nil {
		c.Release(true)
	}
	// Output: <nil>
}
