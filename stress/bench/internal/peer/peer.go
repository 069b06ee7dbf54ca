// Package peer puts pglock and its peers behind one small interface. Each is used as
// its documentation advises.
package peer

import (
	"context"
	"fmt"
)

// Addresses holds the addresses of the servers. It can be sent to another process.
type Addresses struct {
	Postgres string // a connection string
	Redis    string // network and address, with a space between them
	Etcd     string // host and port
}

// A Server is a kind of server that a peer needs.
type Server string

// The servers.
const (
	Postgres Server = "Postgres"
	Redis    Server = "Redis"
	Etcd     Server = "etcd"
)

// A Peer takes locks for the goroutines of one process.
type Peer interface {
	// Locker returns a Locker for one goroutine. contended means that others will
	// want the same keys.
	Locker(ctx context.Context, contended bool) (Locker, error)

	Close() error
}

// A Locker takes locks, one at a time.
type Locker interface {
	// Lock waits until it acquires the lock of a key.
	Lock(ctx context.Context, key int64) (Held, error)

	// TryLock does not wait. It returns nil if another holds the lock.
	TryLock(ctx context.Context, key int64) (Held, error)
}

// A Sharer is a Locker that also has shared locks.
type Sharer interface {
	Locker
	LockShared(ctx context.Context, key int64) (Held, error)
}

// Held is a lock that is held.
type Held interface{ Unlock() error }

// A Kind is one of the contenders that are measured.
type Kind struct {
	Name   string // for example "pgx"
	Label  string // for tables and plots, for example "pgx, pool of 20"
	How    string // how it is used, so that readers can judge the comparison
	Server Server // the server it needs
	Shares bool   // its lockers are Sharers

	Open func(ctx context.Context, at Addresses) (Peer, error)
}

// connections is the size of each peer's pool.
const connections = 20

// Kinds returns all kinds, pglock first.
func Kinds() []Kind {
	return []Kind{
		{
			"pglock", "pglock", "a Locker from `pglock.New(pgxlock.ConnString(dsn))`; it opens up to 8 sessions as needed",
			Postgres, true, openPglock(),
		},
		{
			"pglock-1", "pglock, 1 connection", "the same with `pglock.Sessions(1)`",
			Postgres, true, openPglock(oneSession),
		},
		{
			"lease", "pglock, leases", "the same with `pglock.Leases(30*time.Second)`; it has one connection",
			Postgres, false, openLeases,
		},
		{
			"rows", "rows, pool of 20", "leases as cirello.io/pglock takes them, with statements like its own and 20 warm connections: `nextval`, then a serializable transaction for each take, and another for each release; tries again after 20 ms",
			Postgres, false, openRows,
		},
		{
			"pgx", "pgx, pool of 20", "`pgxpool` with 20 warm connections; a lock acquires one of them, runs `SELECT pg_advisory_lock($1)`, and keeps it until `SELECT pg_advisory_unlock($1)`",
			Postgres, true, openPgx,
		},
		{
			"pq", "lib/pq, pool of 20", "`database/sql` with 20 warm connections and the same statements; `binary_parameters=yes` saves each of them a round trip",
			Postgres, true, openPQ,
		},
		{
			"redsync", "redsync", "go-redis with 20 connections; redsync's default retry delay, 50 to 250 ms at random, and no limit on tries",
			Redis, false, openRedsync(false),
		},
		{
			"redsync-eager", "redsync, eager", "the same, but it retries after 0.5 to 1.5 ms",
			Redis, false, openRedsync(true),
		},
		{
			"redislock", "redislock", "go-redis with 20 connections; `ExponentialBackoff` of 16 to 128 ms, since its documentation advises at least 16 ms",
			Redis, false, openRedislock(false),
		},
		{
			"redislock-eager", "redislock, eager", "the same, but `LinearBackoff(1ms)`",
			Redis, false, openRedislock(true),
		},
		{
			"etcd", "etcd", "`concurrency.Mutex` with one client; one `concurrency.Session` for the process, or one for each goroutine if they want the same keys, since a session does not exclude itself",
			Etcd, false, openEtcd,
		},
	}
}

// Find returns the kind with the given name.
func Find(name string) (Kind, error) {
	for _, k := range Kinds() {
		if k.Name == name {
			return k, nil
		}
	}
	return Kind{}, fmt.Errorf("peer: no kind %q", name)
}
