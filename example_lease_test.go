package pglock_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/pgxlock"
)

// The only difference is an option. The tables are created once, here by the program.
func ExampleLeases() {
	ctx := context.Background()
	pool, end := examplePool() // the application's *pgxpool.Pool
	defer end()
	if _, err := pool.Exec(ctx, pglock.LeaseSQL("pglock")); err != nil {
		panic(err)
	}

	locker, err := pglock.New(pgxlock.Pool(pool), pglock.Leases(30*time.Second))
	if err != nil {
		panic(err)
	}
	defer locker.Close()

	err = locker.Do(ctx, pglock.Name("nightly-report"), func(ctx context.Context) error {
		fmt.Println("the only one")
		return nil
	})
	fmt.Println(err)
	// Output:
	// the only one
	// <nil>
}

// The tables of an application in its own schema.
func ExampleSchema() {
	ctx := context.Background()
	pool, end := examplePool()
	defer end()
	if _, err := pool.Exec(ctx, pglock.LeaseSQL("shop")); err != nil {
		panic(err)
	}

	locker, err := pglock.New(pgxlock.Pool(pool), pglock.Leases(30*time.Second), pglock.Schema("shop"))
	if err != nil {
		panic(err)
	}
	defer locker.Close()
	lock, err := locker.Lock(ctx, pglock.Name("device-7"))
	if err != nil {
		panic(err)
	}
	defer lock.Unlock()

	var name string
	err = pool.QueryRow(ctx, "SELECT name FROM shop.lease WHERE owner IS NOT NULL").Scan(&name)
	fmt.Println(name, err)
	// Output: device-7 <nil>
}

// A migration that creates the tables. It may be run again.
func ExampleLeaseSQL() {
	for line := range strings.Lines(pglock.LeaseSQL("app")) {
		if strings.HasPrefix(line, "CREATE") {
			fmt.Print(line)
		}
	}
	// Output:
	// CREATE SCHEMA IF NOT EXISTS "app";
	// CREATE TABLE IF NOT EXISTS "app".session (
	// CREATE TABLE IF NOT EXISTS "app".lease (
	// CREATE OR REPLACE FUNCTION "app".fence(name pg_catalog.text, token pg_catalog.int8, slot pg_catalog.int4 DEFAULT 0)
}

// The names of leases in their table.
func ExampleKey_LeaseName() {
	fmt.Println(pglock.Name("nightly-report").LeaseName())
	fmt.Println(pglock.Int(7).LeaseName())
	fmt.Println(pglock.Pair(1, 2).LeaseName())
	fmt.Println(pglock.Name("#7").LeaseName())
	// Output:
	// nightly-report
	// #7
	// #1,2
	// ##7
}

// A store that remembers the highest token refuses a holder that is late.
func ExampleLock_Token() {
	ctx := context.Background()
	locker, other, pool, end := exampleLeases()
	defer end()
	if _, err := pool.Exec(ctx, "CREATE TABLE settings (value text, token bigint); INSERT INTO settings VALUES ('old', 0)"); err != nil {
		panic(err)
	}
	// The store may be another one than the database of the leases.
	write := func(lock *pglock.Lock, value string) {
		tag, err := pool.Exec(ctx, "UPDATE settings SET value = $1, token = $2 WHERE token <= $2", value, lock.Token())
		fmt.Println(value, "is written:", tag.RowsAffected() == 1, err)
	}

	first, err := locker.Lock(ctx, pglock.Name("settings"))
	if err != nil {
		panic(err)
	}
	write(first, "a")
	// An operator frees the lease by force, and another machine takes it.
	if _, err := pool.Exec(ctx, "UPDATE pglock.lease SET owner = NULL WHERE name = 'settings'"); err != nil {
		panic(err)
	}
	second, err := other.Lock(ctx, pglock.Name("settings"))
	if err != nil {
		panic(err)
	}
	defer second.Unlock()
	write(second, "b")
	write(first, "c") // it does not know yet that it is late
	// Output:
	// a is written: true <nil>
	// b is written: true <nil>
	// c is written: false <nil>
}

// A transaction that only the holder of a lease commits.
func ExampleFence() {
	ctx := context.Background()
	locker, _, pool, end := exampleLeases()
	defer end()
	if _, err := pool.Exec(ctx, "CREATE TABLE settings (value text)"); err != nil {
		panic(err)
	}
	lock, err := locker.Lock(ctx, pglock.Name("settings"))
	if err != nil {
		panic(err)
	}
	defer lock.Unlock()

	write := func() error {
		return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
			if err := pglock.Fence(ctx, pgxlock.Tx(tx), lock); err != nil {
				return err
			}
			_, err := tx.Exec(ctx, "INSERT INTO settings VALUES ('a')") // nobody else holds the lease until COMMIT
			return err
		})
	}
	fmt.Println("held:", write())

	// An operator frees the lease by force.
	if _, err := pool.Exec(ctx, "UPDATE pglock.lease SET owner = NULL WHERE name = 'settings'"); err != nil {
		panic(err)
	}
	fmt.Println("too late:", errors.Is(write(), pglock.ErrLost))
	// Output:
	// held: <nil>
	// too late: true
}

// The function that Do runs checks its lease in the transaction that writes.
func ExampleLockFrom() {
	ctx := context.Background()
	locker, _, pool, end := exampleLeases()
	defer end()
	if _, err := pool.Exec(ctx, "CREATE TABLE settings (value text)"); err != nil {
		panic(err)
	}
	err := locker.Do(ctx, pglock.Name("settings"), func(ctx context.Context) error {
		return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
			if err := pglock.Fence(ctx, pgxlock.Tx(tx), pglock.LockFrom(ctx)); err != nil {
				return err
			}
			_, err := tx.Exec(ctx, "INSERT INTO settings VALUES ('a')")
			return err
		})
	})
	fmt.Println(err)
	// Output: <nil>
}

// A holder publishes its address.
func ExampleNote() {
	ctx := context.Background()
	locker, other, _, end := exampleLeases()
	defer end()
	lock, err := locker.Lock(ctx, pglock.Name("scheduler"), pglock.Note("10.0.0.7:8080"))
	if err != nil {
		panic(err)
	}
	defer lock.Unlock()

	holders, err := other.Holders(ctx, pglock.Name("scheduler"))
	if err != nil {
		panic(err)
	}
	for _, holder := range holders[pglock.Name("scheduler")] {
		fmt.Println(holder.Note)
	}
	// Output: 10.0.0.7:8080
}

// A job that the timers of all machines start, and that one of them runs.
func ExampleEvery() {
	ctx := context.Background()
	locker, other, _, end := exampleLeases()
	defer end()

	cleanup := func(context.Context) error {
		fmt.Println("cleaning up")
		return nil
	}
	err := locker.Do(ctx, pglock.Name("cleanup"), cleanup, pglock.Every(55*time.Minute), pglock.SkipIfHeld())
	fmt.Println("one machine:", err)

	// The lock is free again, but the job is not due.
	err = other.Do(ctx, pglock.Name("cleanup"), cleanup, pglock.Every(55*time.Minute), pglock.SkipIfHeld())
	fmt.Println("another machine:", err)

	err = other.Do(ctx, pglock.Name("cleanup"), cleanup, pglock.Every(55*time.Minute), pglock.NoWait())
	fmt.Println("not due:", errors.Is(err, pglock.ErrNotAcquired))
	// Output:
	// cleaning up
	// one machine: <nil>
	// another machine: <nil>
	// not due: true
}

// A function that runs in one process at a time, until it returns. If the process loses its
// lock, the function is told to stop, and runs again when the process leads again.
func ExampleLocker_Lead() {
	ctx := context.Background()
	pool, end := examplePool()
	defer end()
	locker, err := pglock.New(pgxlock.Pool(pool))
	if err != nil {
		panic(err)
	}
	defer locker.Close()

	term := 0
	err = locker.Lead(ctx, pglock.Name("scheduler"), func(ctx context.Context) error {
		term++
		fmt.Println("term", term)
		if term == 2 {
			return nil // resigns
		}
		// An administrator terminates the session.
		if _, err := pool.Exec(context.Background(), `SELECT pg_terminate_backend(pid) FROM pg_locks
			WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`); err != nil {
			return err
		}
		<-ctx.Done()
		fmt.Println("stopped:", errors.Is(context.Cause(ctx), pglock.ErrLost))
		return ctx.Err()
	})
	fmt.Println(err)
	// Output:
	// term 1
	// stopped: true
	// term 2
	// <nil>
}

// A follower watches who leads.
func ExampleLocker_Watch() {
	ctx := context.Background()
	locker, other, _, end := exampleLeases()
	defer end()
	leader, err := locker.Lock(ctx, pglock.Name("scheduler"), pglock.Note("10.0.0.7:8080"))
	if err != nil {
		panic(err)
	}

	for holders, err := range other.Watch(ctx, pglock.Name("scheduler")) {
		if err != nil {
			fmt.Println(err) // and go on
			continue
		}
		if len(holders) == 0 {
			fmt.Println("nobody leads")
			break // the loop would go on until ctx is done
		}
		fmt.Println("the leader is", holders[0].Note)
		leader.Unlock()
	}
	// Output:
	// the leader is 10.0.0.7:8080
	// nobody leads
}

// At most two at a time.
func ExampleSlots() {
	ctx := context.Background()
	locker, other, end := exampleLockers()
	defer end()

	one, err := locker.Lock(ctx, pglock.Name("exports"), pglock.Slots(2))
	fmt.Println("one:", err)
	two, err := other.Lock(ctx, pglock.Name("exports"), pglock.Slots(2))
	fmt.Println("two:", err)
	defer two.Unlock()

	_, err = other.Lock(ctx, pglock.Name("exports"), pglock.Slots(2), pglock.NoWait())
	var failed *pglock.Error
	fmt.Println("three:", errors.As(err, &failed) && errors.Is(err, pglock.ErrNotAcquired), len(failed.Holders), "holders")

	one.Unlock()
	err = other.Do(ctx, pglock.Name("exports"), func(context.Context) error {
		fmt.Println("exporting")
		return nil
	}, pglock.Slots(2))
	fmt.Println("again:", err)
	// Output:
	// one: <nil>
	// two: <nil>
	// three: true 2 holders
	// exporting
	// again: <nil>
}

// An advisory lock with a token, for a store that refuses a holder that is late.
func ExampleFenced() {
	ctx := context.Background()
	locker, other, end := exampleLockers()
	defer end()

	first, err := locker.Lock(ctx, pglock.Name("settings"), pglock.Fenced())
	if err != nil {
		panic(err)
	}
	first.Unlock()
	second, err := other.Lock(ctx, pglock.Name("settings"), pglock.Fenced())
	if err != nil {
		panic(err)
	}
	defer second.Unlock()
	fmt.Println("the token grows:", first.Token() < second.Token())
	// Output: the token grows: true
}
