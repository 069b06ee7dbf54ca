package pglock_test

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/pgxlock"
)

// Postgres sees a name as a number, the same one in every language that maps names in
// this way.
func ExampleName() {
	key := pglock.Name("nightly-report")
	fmt.Println(key.String(), key.ID())
	// Output: "nightly-report" (-8663603374018903193) -8663603374018903193
}

// A pair of numbers: an object's class and its number.
func ExamplePair() {
	const orders = 7
	key := pglock.Pair(orders, 4711)
	class, object, ok := key.Pair()
	fmt.Println(key, class, object, ok)
	// Output: (7, 4711) 7 4711 true
}

// A key as shown in pg_locks, and back. The name is lost.
func ExamplePgLocksKey() {
	classid, objid, objsubid := pglock.Name("nightly-report").PgLocks()
	fmt.Println(classid, objid, objsubid)
	key, ok := pglock.PgLocksKey(classid, objid, objsubid)
	_, named := key.Name()
	fmt.Println(key, ok, named)
	// Output:
	// 2277814946 280642407 1
	// -8663603374018903193 true false
}

// The modes of a table lock, and their conflicts.
func ExampleModes() {
	for _, mode := range pglock.Modes()[:3] {
		fmt.Println(mode.String(), mode.PgLocks(), mode.Conflicts(pglock.Share))
	}
	// Output:
	// ACCESS SHARE AccessShareLock false
	// ROW SHARE RowShareLock false
	// ROW EXCLUSIVE RowExclusiveLock true
}

// A table without its partitions.
func ExampleOnly() {
	ctx := context.Background()
	pool, end := examplePool()
	defer end()
	_, err := pool.Exec(ctx, `CREATE TABLE events (at timestamptz)`)
	check(err)
	tx, err := pool.Begin(ctx)
	check(err)
	defer tx.Rollback(ctx)

	err = pglock.LockTables(ctx, pgxlock.Tx(tx), pglock.Tables("events"), pglock.Only(), pglock.In(pglock.Share))
	fmt.Println(err)
	// Output: <nil>
}

// The holders of a lock, one line each.
func ExampleHolder_String() {
	ctx := context.Background()
	locker, other, end := exampleLockers()
	defer end()
	held, err := other.Lock(ctx, pglock.Name("device-7"))
	check(err)
	defer held.Unlock()

	holders, err := locker.Holders(ctx, pglock.Name("device-7"))
	check(err)
	for _, holder := range holders[pglock.Name("device-7")] {
		fmt.Println(holder.String() != "", holder.Application)
	}
	// Output: true pglock
}

// A pooler that assigns a session to each client, and other settings.
func ExampleAllowPooler() {
	ctx := context.Background()
	dsn, done := exampleDatabase()
	defer done()
	pool, err := pgxpool.New(ctx, dsn)
	check(err)
	defer pool.Close()

	locker, err := pglock.New(pgxlock.Pool(pool),
		pglock.AllowPooler(),
		pglock.Sessions(4), // at most
	)
	check(err)
	defer locker.Close()
	fmt.Println(locker.Do(ctx, pglock.Name("device-7"), func(context.Context) error { return nil }))
	// Output: <nil>
}
