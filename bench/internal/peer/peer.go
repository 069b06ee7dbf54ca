// Package peer has pglock and its peers behind one small interface, each used as
// its own documentation advises.
package peer

import (
	"context"
	"fmt"
)

// Addresses are where the servers are. It can be sent to another process.
type Addresses struct {
	Postgres string // a connection string
	Redis    string // network and address, with a space between them
	Etcd     string // host and port
}

// A Server is what a peer needs.
type Server string

// The servers.
const (
	Postgres Server = "Postgres"
	Redis    Server = "Redis"
	Etcd     Server = "etcd"
)

// A Peer takes locks for the goroutines of one process.
type Peer interface {
	// Locker is what one goroutine takes locks with. contended says that others
	// will want the same keys.
	Locker(ctx context.Context, contended bool) (Locker, error)

	Close() error
}

// A Locker takes locks, one at a time.
type Locker interface {
	// Lock waits for the lock of a key.
	Lock(ctx context.Context, key int64) (Held, error)

	// TryLock answers at once, with nil when another holds the lock.
	TryLock(ctx context.Context, key int64) (Held, error)
}

// A Sharer is a Locker that also has shared locks.
type Sharer interface {
	Locker
	LockShared(ctx context.Context, key int64) (Held, error)
}

// Held is a lock that is held.
type Held interface{ Unlock() error }

// A Kind is one of those that are measured.
type Kind struct {
	Name   string // such as "pgx"
	Label  string // such as "pgx, pool of 20", for tables and plots
	How    string // how it is used, for who wants to know whether that is fair
	Server Server // what it needs
	Shares bool   // its lockers are Sharers

	Open func(ctx context.Context, at Addresses) (Peer, error)
}

// connections is how many connections each peer's pool has.
const connections = 20

// Kinds are all that there are, pglock first.
func Kinds() []Kind {
	return []Kind{
		{
			"pglock", "pglock", "a Locker as `pglock.New(pgxlock.ConnString(dsn))` makes it; it opens sessions as it needs them, 8 at the most",
			Postgres, true, openPglock(),
		},
		{
			"pglock-1", "pglock, 1 connection", "the same with `pglock.Sessions(1)`",
			Postgres, true, openPglock(oneSession),
		},
		{
			"pgx", "pgx, pool of 20", "`pgxpool` with 20 connections, warm; a lock acquires one of them, runs `SELECT pg_advisory_lock($1)`, and keeps it until `SELECT pg_advisory_unlock($1)`",
			Postgres, true, openPgx,
		},
		{
			"pq", "lib/pq, pool of 20", "`database/sql` with 20 open and idle connections, warm, and the same statements; `binary_parameters=yes`, which spares a round trip for each",
			Postgres, true, openPQ,
		},
		{
			"redsync", "redsync", "go-redis with 20 connections; the retry delay of redsync's own default, 50 to 250 ms at random, and as many tries as it takes",
			Redis, false, openRedsync(false),
		},
		{
			"redsync-eager", "redsync, eager", "the same, but it tries again after 0.5 to 1.5 ms",
			Redis, false, openRedsync(true),
		},
		{
			"redislock", "redislock", "go-redis with 20 connections; `ExponentialBackoff` of 16 to 128 ms, since its documentation advises no less than 16 ms",
			Redis, false, openRedislock(false),
		},
		{
			"redislock-eager", "redislock, eager", "the same, but `LinearBackoff(1ms)`",
			Redis, false, openRedislock(true),
		},
		{
			"etcd", "etcd", "`concurrency.Mutex` with one client; one `concurrency.Session` for a process, and one for each goroutine where they want the same key, since a session's locks are not exclusive to itself",
			Etcd, false, openEtcd,
		},
	}
}

// Find returns the kind of a name.
func Find(name string) (Kind, error) {
	for _, k := range Kinds() {
		if k.Name == name {
			return k, nil
		}
	}
	return Kind{}, fmt.Errorf("peer: nothing is called %q", name)
}
