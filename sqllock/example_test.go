package sqllock_test

import (
	"context"
	"database/sql"
	"fmt"
	"log"
	"time"

	"github.com/lib/pq"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
	"github.com/pglock-go/pglock/sqllock"
)

// A Locker with its own sessions, beside the application's *sql.DB.
func ExampleConnString() {
	ctx := context.Background()
	dsn, done := exampleDatabase()
	defer done()

	locker, err := pglock.New(sqllock.ConnString("pgx", dsn))
	check(err)
	defer locker.Close()
	err = locker.Do(ctx, pglock.Name("nightly report"), func(context.Context) error {
		fmt.Println("nobody else does this now")
		return nil
	})
	check(err)
	// Output: nobody else does this now
}

// A Locker whose sessions come from the application's pool.
func ExampleDB() {
	ctx := context.Background()
	dsn, done := exampleDatabase()
	defer done()
	db, err := sql.Open("postgres", dsn)
	check(err)
	defer db.Close()

	locker, err := pglock.New(sqllock.DB(db))
	check(err)
	defer locker.Close()
	lock, err := locker.TryLock(ctx, pglock.Name("nightly report"))
	check(err)
	fmt.Println("locked:", db.Stats().OpenConnections, "connection")
	check(lock.Unlock())
	// Output: locked: 1 connection
}

// A lock in the application's own transaction.
func ExampleTx() {
	ctx := context.Background()
	dsn, done := exampleDatabase()
	defer done()
	db, err := sql.Open("pgx", dsn)
	check(err)
	defer db.Close()

	tx, err := db.BeginTx(ctx, nil)
	check(err)
	defer tx.Rollback()
	check(pglock.LockTx(ctx, sqllock.Tx(tx), pglock.Name("invoice numbers")))
	check(tx.Commit())
	fmt.Println("done")
	// Output: done
}

// The driver's connector instead of a connection string.
func ExampleConnector() {
	ctx := context.Background()
	dsn, done := exampleDatabase()
	defer done()
	connector, err := pq.NewConnector(dsn)
	check(err)

	locker, err := pglock.New(sqllock.Connector(connector))
	check(err)
	defer locker.Close()
	lock, err := locker.TryLock(ctx, pglock.Name("nightly report"))
	check(err)
	fmt.Println(lock.Unlock())
	// Output: <nil>
}

// A pool also runs queries for package inspect.
func ExampleDatabase_Query() {
	ctx := context.Background()
	dsn, done := exampleDatabase()
	defer done()
	db, err := sql.Open("pgx", dsn)
	check(err)
	defer db.Close()

	rows, err := sqllock.DB(db).Query(ctx, "SELECT $1 || 'day'", "to")
	check(err)
	defer rows.Close()
	for rows.Next() {
		var text string
		check(rows.Scan(&text))
		fmt.Println(text)
	}
	check(rows.Err())
	// Output: today
}

// A Locker works with sessions.
func ExampleDatabase_Open() {
	ctx := context.Background()
	dsn, done := exampleDatabase()
	defer done()

	session, err := sqllock.ConnString("pgx", dsn).Open(ctx)
	check(err)
	defer session.Close()
	answer, err := session.QueryText(ctx, "SELECT 'here'")
	check(err)
	fmt.Println(answer)
	// Output: here
}

// Set a timeout on one connection.
func ExampleConn() {
	ctx := context.Background()
	dsn, done := exampleDatabase()
	defer done()
	db, err := sql.Open("pgx", dsn)
	check(err)
	defer db.Close()
	conn, err := db.Conn(ctx)
	check(err)
	defer conn.Close()

	show := func(ctx context.Context) error {
		var timeout string
		err := conn.QueryRowContext(ctx, "SHOW lock_timeout").Scan(&timeout)
		fmt.Println(timeout)
		return err
	}
	check(pglock.WithLockTimeout(ctx, sqllock.Conn(conn), 3*time.Second, show))
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
	db, err := sql.Open("pgx", dsn)
	check(err)
	defer db.Close()

	err = pglock.DoTx(ctx, sqllock.DB(db), pglock.Name("invoice numbers"),
		func(ctx context.Context, tx *sql.Tx) error {
			var one int
			err := tx.QueryRowContext(ctx, "SELECT 1").Scan(&one)
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

	db := sqllock.ConnString("pgx", dsn).TxOptions(&sql.TxOptions{Isolation: sql.LevelRepeatableRead})
	err := pglock.DoTables(ctx, db, pglock.Tables("pg_catalog.pg_class"),
		func(ctx context.Context, tx *sql.Tx) error {
			var level string
			err := tx.QueryRowContext(ctx, "SHOW transaction_isolation").Scan(&level)
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
	db, err := sql.Open("pgx", dsn)
	check(err)
	defer db.Close()

	c, err := sqllock.DB(db).Acquire(ctx)
	check(err)
	defer c.Release(false)
	err = pglock.WithLockTimeout(ctx, c.Conn, time.Second, func(ctx context.Context) error {
		_, err := c.Native.ExecContext(ctx, "CREATE TABLE report ()")
		return err
	})
	fmt.Println(err)
	if err == nil {
		c.Release(true)
	}
	// Output: <nil>
}

// DoTx with a library that begins transactions differently, such as GORM, Bun, ent or
// sqlx.
func ExampleBeginFunc() {
	ctx := context.Background()
	dsn, done := exampleDatabase()
	defer done()
	db, err := sql.Open("pgx", dsn)
	check(err)
	defer db.Close()

	type libraryTx struct{ *sql.Tx }
	begin := sqllock.BeginFunc(func(ctx context.Context) (libraryTx, sqllock.ExecQueryer, error) {
		tx, err := db.BeginTx(ctx, nil)
		return libraryTx{tx}, tx, err
	})
	err = pglock.DoTx(ctx, begin, pglock.Name("invoice numbers"),
		func(ctx context.Context, tx libraryTx) error {
			fmt.Println("in the transaction")
			return nil
		})
	check(err)
	// Output: in the transaction
}

// exampleDatabase creates a database for an example; done drops it.
func exampleDatabase() (dsn string, done func()) {
	e := &pgtest.Example{}
	return pgtest.Database(e), e.Done
}

// check ends an example on an error.
func check(err error) {
	if err != nil {
		log.Panic(err)
	}
}
