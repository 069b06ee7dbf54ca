package pglock_test

import (
	"context"

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
