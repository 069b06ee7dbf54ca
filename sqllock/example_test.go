package sqllock_test

import (
	"context"
	"database/sql"
	"fmt"
	"log"
	"testing"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
	"github.com/pglock-go/pglock/sqllock"
)

// A Locker with sessions of its own, beside the application's *sql.DB.
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

// A Locker whose sessions come out of the application's pool.
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

// exampleDatabase makes a database for an example, which ends with done.
func exampleDatabase() (dsn string, done func()) {
	e := &exampleTB{}
	return pgtest.Database(e), e.done
}

// exampleTB is as much of a test as a database needs.
type exampleTB struct {
	testing.TB
	atEnd []func()
}

func (e *exampleTB) Helper()                      {}
func (e *exampleTB) Context() context.Context     { return context.Background() }
func (e *exampleTB) Cleanup(f func())             { e.atEnd = append(e.atEnd, f) }
func (e *exampleTB) Error(args ...any)            { fmt.Println(args...) }
func (e *exampleTB) Fatal(args ...any)            { log.Panic(args...) }
func (e *exampleTB) Fatalf(f string, args ...any) { log.Panicf(f, args...) }

func (e *exampleTB) done() {
	for i := len(e.atEnd) - 1; i >= 0; i-- {
		e.atEnd[i]()
	}
}

// check ends an example that went wrong.
func check(err error) {
	if err != nil {
		log.Panic(err)
	}
}
