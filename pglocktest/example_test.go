package pglocktest_test

import (
	"context"
	"database/sql"
	"fmt"
	"log"

	"github.com/jackc/pgx/v5"
	_ "github.com/lib/pq"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
	"github.com/pglock-go/pglock/pglocktest"
	"github.com/pglock-go/pglock/pgxlock"
	"github.com/pglock-go/pglock/sqllock"
)

// The examples are functions whose t comes from elsewhere; yours would be func
// TestReport(t *testing.T).

// A program that waits for a lock: the test holds the lock first.
func ExampleKey() {
	t, dsn := exampleTest()
	defer t.Done()
	source := pgxlock.ConnString(dsn)

	locker, err := pglock.New(source)
	check(err)
	defer locker.Close()
	report := func(context.Context) error { fmt.Println("the report is written"); return nil }

	lock := pglocktest.Key(t, source, pglock.Name("report"))
	lock.Hold()
	done := make(chan error, 1)
	go func() { done <- locker.Do(context.Background(), pglock.Name("report"), report) }()
	lock.AwaitWaiters(1)
	fmt.Println("the program waits")
	lock.Release()
	check(<-done)
	lock.WantFree()
	// Output:
	// the program waits
	// the report is written
}

// A program that must stop when it loses its lock: the test terminates the session that
// holds it. The test needs only the program's *sql.DB.
func ExampleLock_Terminate() {
	t, dsn := exampleTest()
	defer t.Done()
	db, err := sql.Open("postgres", dsn)
	check(err)
	defer db.Close()

	locker, err := pglock.New(sqllock.ConnString("postgres", dsn))
	check(err)
	defer locker.Close()
	working, done := make(chan struct{}), make(chan error, 1)
	go func() {
		done <- locker.Do(context.Background(), pglock.Name("import"), func(ctx context.Context) error {
			close(working)
			<-ctx.Done() // it works until it must stop
			return context.Cause(ctx)
		}, pglock.Shared())
	}()

	<-working
	lock := pglocktest.Key(t, sqllock.DB(db), pglock.Name("import"))
	lock.Terminate()
	if <-done != nil {
		fmt.Println("the import has stopped")
	}
	// Output: the import has stopped
}

// A migration that must not wait for a table in use.
func ExampleTable() {
	t, dsn := exampleTest()
	defer t.Done()
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, dsn)
	check(err)
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, `CREATE TABLE orders ()`)
	check(err)

	orders := pglocktest.Table(t, pgxlock.ConnString(dsn), "orders", pglock.RowExclusive)
	orders.Hold()
	err = pglock.DoTables(ctx, pgxlock.ConnString(dsn), pglock.Tables("orders"),
		func(ctx context.Context, tx pgx.Tx) error {
			_, err := tx.Exec(ctx, `ALTER TABLE orders ADD note text`)
			return err
		}, pglock.SkipIfHeld())
	check(err)
	orders.Release()
	orders.WantFree()
	fmt.Println("not now, then not at all")
	// Output: not now, then not at all
}

// exampleTest is the part of testing.TB that the examples need.
func exampleTest() (t *pgtest.Example, dsn string) {
	t = &pgtest.Example{}
	return t, pgtest.Database(t)
}

// check ends an example on an error.
func check(err error) {
	if err != nil {
		log.Panic(err)
	}
}
