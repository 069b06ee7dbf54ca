package pglock_test

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/pgxlock"
)

// examplePool opens an application's pool; end closes it.
func examplePool() (pool *pgxpool.Pool, end func()) {
	dsn, done := exampleDatabase()
	pool, err := pgxpool.New(context.Background(), dsn)
	check(err)
	return pool, func() {
		pool.Close()
		done()
	}
}

// exampleLockers returns the Lockers of two machines on one database.
func exampleLockers(opts ...pglock.LockerOption) (one, other *pglock.Locker, end func()) {
	pool, endPool := examplePool()
	one, err := pglock.New(pgxlock.Pool(pool), opts...)
	check(err)
	other, err = pglock.New(pgxlock.Pool(pool), opts...)
	check(err)
	return one, other, func() {
		one.Close()
		other.Close()
		endPool()
	}
}

// exampleLeases returns the Lockers of two machines that take leases, and the pool of their
// database.
func exampleLeases() (one, other *pglock.Locker, pool *pgxpool.Pool, end func()) {
	pool, endPool := examplePool()
	_, err := pool.Exec(context.Background(), pglock.LeaseSQL("pglock"))
	check(err)
	one, err = pglock.New(pgxlock.Pool(pool), pglock.Leases(30*time.Second))
	check(err)
	other, err = pglock.New(pgxlock.Pool(pool), pglock.Leases(30*time.Second))
	check(err)
	return one, other, pool, func() {
		one.Close()
		other.Close()
		endPool()
	}
}
