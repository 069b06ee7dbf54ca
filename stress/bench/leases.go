package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/internal/pgbouncer"
	"github.com/pglock-go/pglock/pgxlock"
	"github.com/pglock-go/pglock/stress/bench/internal/load"
	"github.com/pglock-go/pglock/stress/bench/internal/peer"
)

// The scenarios in which leases are taken.

func leases(s scale) []scenario {
	all := ownLeases()
	return append(all, heldLeases(s), wokenByRelease())
}

// ownLeases returns the scenarios in which each goroutine has its own lease.
func ownLeases() []scenario {
	var all []scenario
	for _, n := range []int{1, 64, 1024} {
		title := fmt.Sprintf("%s goroutines, each with its own lease", thousands(n))
		if n == 1 {
			title = "One goroutine with a lease"
		}
		all = append(all, scenario{
			name: fmt.Sprintf("lease-%d", n), group: "lease", size: n, title: title,
			what:    "Each goroutine repeatedly takes and releases its own lease. The servers keep their data in memory: where they write to a disk, each statement of Postgres, and each of etcd's, also waits for that.",
			metrics: rateMetrics(), ours: "lease",
			behind: "A lease writes a row when it is taken and when it is released, and Postgres commits both; Redis sets a key, and writes it to the disk later or never.",
			setup: func(ctx context.Context, e *env) ([]contender, func() error, error) {
				at, err := e.host.Addresses(ctx)
				if err != nil {
					return nil, nil, err
				}
				plan := e.scale.plan(load.Plan{Goroutines: n, Key: 6000})
				if n > 1000 {
					plan.Time = min(4*plan.Time, max(plan.Time, time.Second))
				}
				c, err := peers(at, []string{"lease", "pglock-1", "rows", "redsync", "redislock", "etcd"},
					func(ctx context.Context, _ peer.Kind, p peer.Peer) ([]float64, error) {
						r, err := load.Run(ctx, p, plan)
						if err != nil {
							return nil, err
						}
						return rateValues(r), nil
					})
				return markVariants(c, "pglock-1"), nil, err
			},
		})
	}
	return all
}

// heldLeases measures what it costs to hold leases.
func heldLeases(s scale) scenario {
	return scenario{
		name: "lease-held", group: "lease", title: fmt.Sprintf("One lease held, and %s", thousands(s.Held)),
		what: "A Locker with the shortest time to live, three seconds, takes all leases, holds them for two seconds, and releases them. WAL is what Postgres logs.",
		metrics: []Metric{
			{"statements per second while held", "count", "less"},
			{"WAL per second while held", "B", "less"},
			{"taken per second", "/s", "more"},
			{"WAL for a take and a release", "B", "less"},
		},
		ours: "many",
		setup: func(ctx context.Context, e *env) ([]contender, func() error, error) {
			at, err := e.host.Addresses(ctx)
			if err != nil {
				return nil, nil, err
			}
			if err := peer.InstallLeases(ctx, at.Postgres); err != nil {
				return nil, nil, err
			}
			hold := func(name, label string, n int) contender {
				return contender{name: name, label: label, variant: name == "one", measure: func(ctx context.Context) ([]float64, error) {
					return holdLeases(ctx, at.Postgres, n, e.scale.Name == "smoke")
				}}
			}
			return []contender{
				hold("many", thousands(s.Held)+" leases", s.Held),
				hold("one", "one lease", 1),
			}, nil, nil
		},
	}
}

// holdLeases takes n leases, holds them for a while, and releases them.
func holdLeases(ctx context.Context, dsn string, n int, brief bool) (_ []float64, err error) {
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	locker, err := newLocker(dsn, pglock.Leases(3*time.Second))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, locker.Close()) }()
	keys := make([]pglock.Key, n)
	for i := range keys {
		keys[i] = pglock.Int(int64(100_000 + i))
	}
	written := func() (bytes float64, err error) {
		err = conn.QueryRow(ctx, "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')").Scan(&bytes)
		return bytes, err
	}
	// The rows must exist already, and the pages be logged in full since the last checkpoint.
	if lock, err := locker.LockAll(ctx, keys); err != nil {
		return nil, err
	} else if err := lock.Unlock(); err != nil {
		return nil, err
	}
	start, err := written()
	if err != nil {
		return nil, err
	}
	began := time.Now()
	lock, err := locker.LockAll(ctx, keys)
	if err != nil {
		return nil, err
	}
	took := time.Since(began)
	taken, err := written()
	if err != nil {
		return nil, err
	}
	statements := locker.Stats().RoundTrips
	window := 2 * time.Second
	if brief {
		window = 1200 * time.Millisecond
	}
	began = time.Now()
	select {
	case <-time.After(window):
	case <-lock.Done():
		return nil, lock.Err()
	}
	held := time.Since(began).Seconds()
	statements = locker.Stats().RoundTrips - statements
	kept, err := written()
	if err != nil {
		return nil, err
	}
	if err := lock.Unlock(); err != nil {
		return nil, err
	}
	end, err := written()
	if err != nil {
		return nil, err
	}
	return []float64{
		float64(statements) / held, (kept - taken) / held,
		float64(n) / took.Seconds(), (taken - start + end - kept) / float64(n),
	}, nil
}

// wokenByRelease measures how soon a waiter has a lease that another process releases.
func wokenByRelease() scenario {
	return scenario{
		name: "lease-wake", group: "lease", title: "From the release of a lease to the next holder",
		what:    "One process holds the lock, and another waits for it. The time is from the call of Unlock until Lock returns.",
		metrics: reactionMetrics(), ours: "lease",
		behind: "Postgres itself grants an advisory lock. A waiter for a lease gets a notification, and then takes it.",
		setup: func(ctx context.Context, e *env) ([]contender, func() error, error) {
			server, err := e.host.Plain(ctx)
			if err != nil {
				return nil, nil, err
			}
			direct := server.ConnString("postgres")
			if err := peer.InstallLeases(ctx, direct); err != nil {
				return nil, nil, err
			}
			pooler, err := pgbouncer.Run(ctx, pgbouncer.Config{Server: server, Mode: pgbouncer.Transaction})
			if err != nil {
				return nil, nil, err
			}
			wake := func(name, label, dsn string, opts ...pglock.LockerOption) contender {
				return contender{name: name, label: label, variant: name != "lease", measure: func(ctx context.Context) ([]float64, error) {
					return repeated(ctx, e.scale.Reps, func(ctx context.Context) (time.Duration, error) { return handOver(ctx, dsn, opts) })
				}}
			}
			return []contender{
				wake("lease", "a lease, directly", direct, pglock.Leases(peer.LeaseTTL)),
				wake("pooled", "a lease, through PgBouncer in transaction mode", pooler.ConnString("postgres"), pglock.Leases(peer.LeaseTTL)),
				wake("advisory", "an advisory lock", direct),
			}, pooler.Close, nil
		},
	}
}

// handOver returns how long it takes until a waiting process has a lock that another releases.
func handOver(ctx context.Context, dsn string, opts []pglock.LockerOption) (_ time.Duration, err error) {
	var lockers [2]*pglock.Locker
	for i := range lockers {
		l, err := pglock.New(pgxlock.ConnString(dsn), opts...)
		if err != nil {
			return 0, err
		}
		defer func() { err = errors.Join(err, l.Close()) }()
		lockers[i] = l
	}
	key := pglock.Int(99_999)
	lock, err := lockers[0].Lock(ctx, key)
	if err != nil {
		return 0, err
	}
	type result struct {
		at  time.Time
		err error
	}
	done := make(chan result, 1)
	go func() {
		next, err := lockers[1].Lock(ctx, key)
		at := time.Now()
		if err == nil {
			err = next.Unlock()
		}
		done <- result{at, err}
	}()
	// Wait until it waits, and until what a waiter does first is over.
	for lockers[1].Stats().Waiting == 0 {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(300 * time.Millisecond)
	released := time.Now()
	if err := lock.Unlock(); err != nil {
		return 0, err
	}
	r := <-done
	return r.at.Sub(released), r.err
}
