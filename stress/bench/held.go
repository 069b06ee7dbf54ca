package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/stress/bench/internal/host"
	"github.com/pglock-go/pglock/stress/bench/internal/peer"
	"github.com/pglock-go/pglock/stress/bench/internal/stats"
)

// The scenarios in which many locks are held at the same time.

func heldLocks(s scale) []scenario {
	return []scenario{acquireMany(s), oneMore(0), oneMore(s.Held), oneMore(s.Most), memory(s)}
}

// unknown is the value of what this machine does not report.
const unknown = -1

// acquirers is the number of goroutines that acquire many locks.
const acquirers = 1024

// inParallel calls do with 0 to n-1, from several goroutines, until one call fails.
func inParallel(n int, do func(i int) error) error {
	var next atomic.Int64
	var once sync.Once
	var failed error
	var wg sync.WaitGroup
	for range min(acquirers, n) {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				if err := do(i); err != nil {
					once.Do(func() { failed = err })
					return
				}
			}
		})
	}
	wg.Wait()
	return failed
}

// acquireMany acquires and releases many locks.
func acquireMany(s scale) scenario {
	return scenario{
		name: "held", group: "held", title: fmt.Sprintf("%s locks held at the same time", thousands(s.Held)),
		what: fmt.Sprintf("%s goroutines acquire all locks, each one at a time. When all are held, they are released the same way.", thousands(acquirers)),
		metrics: []Metric{
			{"acquired per second", "/s", "more"},
			{"released per second", "/s", "more"},
			{"connections", "count", "less"},
		},
		ours: "pglock",
		setup: func(ctx context.Context, e *env) ([]contender, func() error, error) {
			at, err := e.host.Addresses(ctx)
			if err != nil {
				return nil, nil, err
			}
			big, err := e.host.Big(ctx)
			if err != nil {
				return nil, nil, err
			}
			at.Postgres = big.ConnString("postgres")
			n := e.scale.Held
			all, err := peers(at, []string{"pglock", "pgx", "pq", "redsync", "redislock", "etcd"},
				func(ctx context.Context, _ peer.Kind, p peer.Peer) ([]float64, error) {
					return acquireAndRelease(ctx, p, n)
				})
			if err != nil {
				return nil, nil, err
			}
			for i := range all {
				if all[i].name == "pgx" || all[i].name == "pq" {
					all[i].measure, all[i].missing = nil, "needs a connection for each lock, so a pool of 20 holds 20"
				}
			}
			more := []contender{
				{name: "lockall", label: "pglock, one LockAll", variant: true, measure: func(ctx context.Context) ([]float64, error) {
					return lockAll(ctx, at.Postgres, n)
				}},
				{name: "byhand", label: "pgx, one connection, sequentially", measure: func(ctx context.Context) (_ []float64, err error) {
					conn, err := pgx.Connect(ctx, at.Postgres)
					if err != nil {
						return nil, err
					}
					defer func() { err = errors.Join(err, conn.Close(ctx)) }()
					return byHand(ctx, conn, n)
				}},
			}
			return slices.Insert(all, 1, more...), nil, nil
		},
	}
}

func acquireAndRelease(ctx context.Context, p peer.Peer, n int) ([]float64, error) {
	l, err := p.Locker(ctx, false)
	if err != nil {
		return nil, err
	}
	if h, err := l.Lock(ctx, 0); err != nil { // connect before measuring
		return nil, err
	} else if err := h.Unlock(); err != nil {
		return nil, err
	}
	held := make([]peer.Held, n)
	began := time.Now()
	if err := inParallel(n, func(i int) (err error) { held[i], err = l.Lock(ctx, int64(1+i)); return err }); err != nil {
		return nil, err
	}
	taken := time.Since(began)
	connections := 1. // etcd has one
	switch p := p.(type) {
	case interface{ Stats() pglock.Stats }:
		connections = float64(p.Stats().Sessions)
	case interface{ Connections() int }:
		connections = float64(p.Connections())
	}
	began = time.Now()
	if err := inParallel(n, func(i int) error { return held[i].Unlock() }); err != nil {
		return nil, err
	}
	return []float64{float64(n) / taken.Seconds(), float64(n) / time.Since(began).Seconds(), connections}, nil
}

func lockAll(ctx context.Context, dsn string, n int) (_ []float64, err error) {
	locker, err := newLocker(dsn)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, locker.Close()) }()
	if err := locker.Do(ctx, pglock.Int(0), func(context.Context) error { return nil }); err != nil {
		return nil, err
	}
	keys := make([]pglock.Key, n)
	for i := range keys {
		keys[i] = pglock.Int(int64(1 + i))
	}
	began := time.Now()
	lock, err := locker.LockAll(ctx, keys)
	if err != nil {
		return nil, err
	}
	taken := time.Since(began)
	sessions := locker.Stats().Sessions
	began = time.Now()
	if err := lock.Unlock(); err != nil {
		return nil, err
	}
	return []float64{float64(n) / taken.Seconds(), float64(n) / time.Since(began).Seconds(), float64(sessions)}, nil
}

func byHand(ctx context.Context, conn *pgx.Conn, n int) ([]float64, error) {
	alone := pgxAlone{conn}
	held := make([]peer.Held, n)
	began := time.Now()
	for i := range n {
		h, err := alone.Lock(ctx, int64(1+i))
		if err != nil {
			return nil, err
		}
		held[i] = h
	}
	taken := time.Since(began)
	began = time.Now()
	for _, h := range held {
		if err := h.Unlock(); err != nil {
			return nil, err
		}
	}
	return []float64{float64(n) / taken.Seconds(), float64(n) / time.Since(began).Seconds(), 1}, nil
}

// oneMore measures the cost of a lock while many others are held.
func oneMore(held int) scenario {
	title := fmt.Sprintf("One more lock while %s are held", thousands(held))
	if held == 0 {
		title = "One more lock while none is held"
	}
	return scenario{
		name: fmt.Sprintf("more-%d", held), group: "held", title: title,
		what:    "One goroutine locks and unlocks another key while its Locker, or the same bare connection, holds the others.",
		metrics: []Metric{{"lock and unlock", "s", "less"}}, ours: "pglock",
		behind: "A lock consists of two round trips; the Locker adds its registry, the handle and the check of every result.",
		setup: func(ctx context.Context, e *env) (_ []contender, _ func() error, err error) {
			server, err := e.host.Big(ctx)
			if err != nil {
				return nil, nil, err
			}
			dsn := server.ConnString("postgres")
			kind, err := peer.Find("pglock")
			if err != nil {
				return nil, nil, err
			}
			p, err := kind.Open(ctx, peer.Addresses{Postgres: dsn})
			if err != nil {
				return nil, nil, err
			}
			b, err := openBare(ctx, dsn)
			if err != nil {
				return nil, nil, errors.Join(err, p.Close())
			}
			locks := make([]peer.Held, held)
			teardown := func() error {
				err := inParallel(held, func(i int) error {
					if locks[i] == nil {
						return nil
					}
					return locks[i].Unlock()
				})
				return errors.Join(err, p.Close(), b.Close())
			}
			l, err := p.Locker(ctx, false)
			if err != nil {
				return nil, nil, errors.Join(err, teardown())
			}
			if err := inParallel(held, func(i int) (err error) { locks[i], err = l.Lock(ctx, int64(1+i)); return err }); err != nil {
				return nil, nil, errors.Join(err, teardown())
			}
			const bareKey = 10_000_000
			if err := b.conn.Exec(ctx, fmt.Sprintf("SELECT pg_advisory_lock(%d + i) FROM generate_series(1, %d) AS i", bareKey, held)).Close(); err != nil {
				return nil, nil, errors.Join(err, teardown())
			}
			return []contender{
				timePairs(e, "pglock", "pglock", l, 0),
				timePairs(e, "bare", "two bare round trips", b, bareKey),
			}, teardown, nil
		},
	}
}

func timePairs(e *env, name, label string, l peer.Locker, key int64) contender {
	return contender{name: name, label: label, measure: func(ctx context.Context) ([]float64, error) {
		times, err := sample(ctx, e.scale.Once, func(ctx context.Context) error {
			h, err := l.Lock(ctx, key)
			if err != nil {
				return err
			}
			return h.Unlock()
		})
		if err != nil {
			return nil, err
		}
		return []float64{stats.Median(times)}, nil
	}}
}

// memory measures the memory of a held lock in the client and in the server.
func memory(s scale) scenario {
	return scenario{
		name: "memory", group: "held", title: "Memory for each held lock",
		what: fmt.Sprintf("Growth of the client's heap and of the server process, divided by the number of locks (%s; 20 for the connections of pgx). Postgres keeps locks in a table that it allocates at startup; the pages touched for the first time are counted.", thousands(s.Held)),
		metrics: []Metric{
			{"client", "B", "less"},
			{"server", "B", "less"},
		},
		ours: "pglock",
		setup: func(ctx context.Context, e *env) ([]contender, func() error, error) {
			at, err := e.host.Addresses(ctx)
			if err != nil {
				return nil, nil, err
			}
			big, err := e.host.Big(ctx)
			if err != nil {
				return nil, nil, err
			}
			at.Postgres = big.ConnString("postgres")
			n := e.scale.Held
			all, err := peers(at, []string{"pglock", "redsync", "redislock"},
				func(ctx context.Context, k peer.Kind, p peer.Peer) ([]float64, error) {
					server := e.host.RedisMemory
					if k.Server == peer.Postgres {
						h, err := firstLock(ctx, p)
						if err != nil {
							return nil, err
						}
						defer h.Unlock()
						pid := int(h.(interface{ PID() int32 }).PID())
						server = func(context.Context) (int64, error) { return processMemory(pid), nil }
					}
					return heldMemory(ctx, p, n, server)
				})
			if err != nil {
				return nil, nil, err
			}
			return slices.Insert(all, 1, contender{name: "pgx", label: "pgx, one connection for each lock", measure: func(ctx context.Context) ([]float64, error) {
				return connectionMemory(ctx, at.Postgres, 20)
			}}), nil, nil
		},
	}
}

func firstLock(ctx context.Context, p peer.Peer) (peer.Held, error) {
	l, err := p.Locker(ctx, false)
	if err != nil {
		return nil, err
	}
	return l.Lock(ctx, 0)
}

// heap returns the size of the program's live heap objects, in bytes.
func heap() int64 {
	runtime.GC()
	runtime.GC() // frees what finalizers released
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// processMemory returns the memory of a server process in bytes, or unknown.
func processMemory(pid int) int64 {
	own, shared, ok := host.Memory(pid)
	if !ok {
		return unknown
	}
	return own + shared
}

// heldMemory returns the growth of the client and of the server for each of n locks.
func heldMemory(ctx context.Context, p peer.Peer, n int, server func(context.Context) (int64, error)) ([]float64, error) {
	l, err := p.Locker(ctx, false)
	if err != nil {
		return nil, err
	}
	// Open all connections and grow all buffers before measuring.
	held := make([]peer.Held, n)
	if err := inParallel(n/10, func(i int) error {
		h, err := l.Lock(ctx, -1-int64(i))
		if err != nil {
			return err
		}
		return h.Unlock()
	}); err != nil {
		return nil, err
	}
	serverBefore, err := server(ctx)
	if err != nil {
		return nil, err
	}
	before := heap()
	if err := inParallel(n, func(i int) (err error) { held[i], err = l.Lock(ctx, int64(1+i)); return err }); err != nil {
		return nil, err
	}
	client := heap() - before
	after, err := server(ctx)
	if err != nil {
		return nil, err
	}
	if err := inParallel(n, func(i int) error { return held[i].Unlock() }); err != nil {
		return nil, err
	}
	values := []float64{float64(max(client, 0)) / float64(n), unknown}
	if serverBefore != unknown && after != unknown {
		values[1] = float64(max(after-serverBefore, 0)) / float64(n)
	}
	return values, nil
}

// connectionMemory returns the same for n locks with a connection each.
func connectionMemory(ctx context.Context, dsn string, n int) (_ []float64, err error) {
	before := heap()
	config, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return nil, err
	}
	config.MaxConns = int32(n)
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	defer pool.Close()
	var server int64
	for i := range n {
		conn, err := pool.Acquire(ctx)
		if err != nil {
			return nil, err
		}
		defer conn.Release()
		if _, err := conn.Exec(ctx, "SELECT pg_advisory_lock($1)", int64(1+i)); err != nil {
			return nil, err
		}
		one, _, ok := host.Memory(int(conn.Conn().PgConn().PID()))
		if !ok {
			server = unknown
		}
		if server != unknown {
			server += one
		}
	}
	client := heap() - before
	values := []float64{float64(max(client, 0)) / float64(n), unknown}
	if server != unknown {
		values[1] = float64(server) / float64(n)
	}
	return values, nil
}
