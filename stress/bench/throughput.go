package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/pgxlock"
	"github.com/pglock-go/pglock/stress/bench/internal/load"
	"github.com/pglock-go/pglock/stress/bench/internal/peer"
	"github.com/pglock-go/pglock/stress/bench/internal/stats"
)

// The scenarios in which goroutines lock and unlock for a while.

func rateMetrics() []Metric {
	return []Metric{
		{"pairs per second", "/s", "more"},
		{"median", "s", "less"},
		{"99th percentile", "s", "less"},
	}
}

func rateValues(r *load.Result) []float64 {
	if r.Pair.N == 0 {
		return []float64{0, unknown, unknown}
	}
	return []float64{r.Rate(), r.Pair.Quantile(0.5).Seconds(), r.Pair.Quantile(0.99).Seconds()}
}

func fairMetrics() []Metric {
	return []Metric{
		{"pairs per second", "/s", "more"},
		{"slowest of fastest", "ratio", "more"},
		{"median wait", "s", "less"},
		{"99th percentile", "s", "less"},
		{"longest wait", "s", "less"},
	}
}

func fairValues(r *load.Result) []float64 {
	return []float64{
		r.Rate(), r.Fairness(), r.Wait.Quantile(0.5).Seconds(), r.Wait.Quantile(0.99).Seconds(), r.Wait.Longest.Seconds(),
	}
}

// peers returns contenders for the named kinds; do measures an open peer.
func peers(at peer.Addresses, names []string, do func(ctx context.Context, k peer.Kind, p peer.Peer) ([]float64, error)) ([]contender, error) {
	var all []contender
	for _, name := range names {
		k, err := peer.Find(name)
		if err != nil {
			return nil, err
		}
		c := contender{name: k.Name, label: k.Label}
		if reachable(at, k.Server) {
			c.measure = func(ctx context.Context) (values []float64, err error) {
				p, err := k.Open(ctx, at)
				if err != nil {
					return nil, err
				}
				defer func() { err = errors.Join(err, p.Close()) }()
				return do(ctx, k, p)
			}
		} else {
			c.missing = fmt.Sprintf("%s is not available", k.Server)
		}
		all = append(all, c)
	}
	return all, nil
}

func reachable(at peer.Addresses, s peer.Server) bool {
	return at != peer.Addresses{} && map[peer.Server]string{peer.Postgres: at.Postgres, peer.Redis: at.Redis, peer.Etcd: at.Etcd}[s] != ""
}

func (s scale) plan(p load.Plan) load.Plan {
	p.Time, p.Warm = s.Time, s.Warm
	if s.AtMost > 0 {
		p.Goroutines = min(p.Goroutines, s.AtMost)
	}
	return p
}

// ownKeys returns the scenarios in which each goroutine has its own key.
func ownKeys() []scenario {
	var all []scenario
	for _, n := range []int{1, 64, 1024} {
		title := fmt.Sprintf("%s goroutines, each with its own key", thousands(n))
		if n == 1 {
			title = "One goroutine"
		}
		all = append(all, scenario{
			name: fmt.Sprintf("own-%d", n), group: "own", title: title,
			what:    "Each goroutine repeatedly locks and unlocks its own key; times are those of a lock and its unlock together.",
			metrics: rateMetrics(), ours: "pglock-1",
			behind: "A single goroutine cannot share round trips: it pays for two, as with every library, and for the bookkeeping.",
			setup: func(ctx context.Context, e *env) ([]contender, func() error, error) {
				at, err := e.host.Addresses(ctx)
				if err != nil {
					return nil, nil, err
				}
				plan := e.scale.plan(load.Plan{Goroutines: n, Key: 1000})
				if n > 1000 {
					plan.Time = min(4*plan.Time, max(plan.Time, time.Second)) // time for a few pairs of each goroutine
				}
				c, err := peers(at, []string{"pglock-1", "pglock", "pgx", "pq", "redsync", "redislock", "etcd"},
					func(ctx context.Context, _ peer.Kind, p peer.Peer) ([]float64, error) {
						r, err := load.Run(ctx, p, plan)
						if err != nil {
							return nil, err
						}
						return rateValues(r), nil
					})
				return markVariants(c, "pglock"), nil, err
			},
		})
	}
	return all
}

// markVariants marks contenders that are other ways to use pglock.
func markVariants(all []contender, names ...string) []contender {
	for i := range all {
		all[i].variant = slices.Contains(names, all[i].name)
	}
	return all
}

// lone compares one goroutine with two bare round trips.
func lone() scenario {
	return scenario{
		name: "lone", group: "own", title: "One goroutine, compared with two bare round trips",
		what:    "A lock and an unlock as two prepared statements on a dedicated connection: through pgx, and through pgconn below it, which is the minimum in Go.",
		metrics: rateMetrics(), ours: "pglock",
		behind: "A lock consists of two round trips; the Locker adds its registry, the handle and the check of every result.",
		setup: func(ctx context.Context, e *env) ([]contender, func() error, error) {
			at, err := e.host.Addresses(ctx)
			if err != nil {
				return nil, nil, err
			}
			kind, err := peer.Find("pglock")
			if err != nil {
				return nil, nil, err
			}
			one := func(ctx context.Context, p peer.Peer) ([]float64, error) {
				r, err := load.Run(ctx, p, e.scale.plan(load.Plan{Goroutines: 1, Key: 2000}))
				if err != nil {
					return nil, err
				}
				return rateValues(r), nil
			}
			return []contender{
				{name: "pglock", label: kind.Label, measure: func(ctx context.Context) (_ []float64, err error) {
					p, err := kind.Open(ctx, at)
					if err != nil {
						return nil, err
					}
					defer func() { err = errors.Join(err, p.Close()) }()
					return one(ctx, p)
				}},
				{name: "bare", label: "pgconn, two bare round trips", measure: func(ctx context.Context) (_ []float64, err error) {
					p, err := openBare(ctx, at.Postgres)
					if err != nil {
						return nil, err
					}
					defer func() { err = errors.Join(err, p.Close()) }()
					return one(ctx, p)
				}},
				{name: "pgx", label: "pgx, two statements", measure: func(ctx context.Context) (_ []float64, err error) {
					conn, err := pgx.Connect(ctx, at.Postgres)
					if err != nil {
						return nil, err
					}
					defer func() { err = errors.Join(err, conn.Close(ctx)) }()
					return one(ctx, pgxAlone{conn})
				}},
			}, nil, nil
		},
	}
}

// sharedKeys returns the scenarios in which goroutines want the same keys.
func sharedKeys() []scenario {
	everybody := []string{"pglock", "pgx", "pq", "redsync", "redsync-eager", "redislock", "redislock-eager", "etcd"}
	one := func(name, title, what string, names []string, behind string, do func(ctx context.Context, e *env, at peer.Addresses, k peer.Kind, p peer.Peer) (*load.Result, error)) scenario {
		return scenario{
			name: name, group: "contended", title: title, what: what,
			metrics: fairMetrics(), ours: "pglock", behind: behind,
			setup: func(ctx context.Context, e *env) ([]contender, func() error, error) {
				at, err := e.host.Addresses(ctx)
				if err != nil {
					return nil, nil, err
				}
				c, err := peers(at, names, func(ctx context.Context, k peer.Kind, p peer.Peer) ([]float64, error) {
					r, err := do(ctx, e, at, k, p)
					if err != nil {
						return nil, err
					}
					return fairValues(r), nil
				})
				return c, nil, err
			},
		}
	}
	inProcess := func(plan load.Plan) func(context.Context, *env, peer.Addresses, peer.Kind, peer.Peer) (*load.Result, error) {
		return func(ctx context.Context, e *env, _ peer.Addresses, _ peer.Kind, p peer.Peer) (*load.Result, error) {
			return load.Run(ctx, p, e.scale.plan(plan))
		}
	}
	const polling = "The Redis libraries poll: the client that has just unlocked is the first to ask again and gets the lock again, which is fast but starves the others; see the column of the slowest."
	return []scenario{
		one("one-key", "16 goroutines of one process contend for one key",
			"Each repeatedly locks and unlocks it.", everybody, "",
			inProcess(load.Plan{Goroutines: 16, Key: 3000, Keys: 1})),
		one("processes", "4 processes with 4 goroutines each contend for one key",
			"The same; each process has its own Locker, pool or client.", everybody, polling,
			func(ctx context.Context, e *env, at peer.Addresses, k peer.Kind, _ peer.Peer) (*load.Result, error) {
				plan := e.scale.plan(load.Plan{Goroutines: 4, Key: 3100, Keys: 1})
				plan.Time *= 2 // the lock changes processes only a few times per second
				processes := 4
				if e.scale.Name == "smoke" {
					processes = 2
				}
				return runProcesses(ctx, e, processes, job{k.Name, at, plan})
			}),
		one("skewed", "64 goroutines choose among 10,000 keys, some of them far more often",
			"The keys follow Zipf's law (s = 1.1): one lock in six is for the same key.",
			everybody, polling,
			inProcess(load.Plan{Goroutines: 64, Key: 10_000, Keys: 10_000, Skew: 1.1})),
		one("mixed", "16 goroutines contend for one key, nine of ten times shared",
			"The Redis and etcd peers have no shared locks.",
			[]string{"pglock", "pgx", "pq"}, "",
			inProcess(load.Plan{Goroutines: 16, Key: 3200, Keys: 1, SharedOfTen: 9})),
	}
}

// slowNetwork returns the scenarios of ownKeys over a slow network.
func slowNetwork() []scenario {
	var all []scenario
	goroutines := map[int][]int{1: {64, 256}, 5: {1, 64, 256, 1024}, 50: {1, 64, 1024}}
	for _, milliseconds := range []int{1, 5, 50} {
		delay := time.Duration(milliseconds) * time.Millisecond
		for _, n := range goroutines[milliseconds] {
			title := fmt.Sprintf("%d ms each way, %s goroutines", delay.Milliseconds(), thousands(n))
			if n == 1 {
				title = fmt.Sprintf("%d ms each way, one goroutine", delay.Milliseconds())
			}
			all = append(all, scenario{
				name: fmt.Sprintf("slow-%d-%d", delay.Milliseconds(), n), group: "slow", size: n, title: title,
				what:    "Own keys, as above, through a proxy (toxiproxy) that delays all traffic. Two bare round trips are those of one goroutine with one connection; times the number of goroutines, they are the most that the network allows.",
				metrics: rateMetrics(), ours: "pglock-1",
				behind: "Every contender waits for two round trips and nothing else. Many times two bare round trips are not a contender but a limit: they cost no processor time, and no request comes too late for a statement.",
				setup: func(ctx context.Context, e *env) ([]contender, func() error, error) {
					at, stop, err := e.host.Slow(ctx, delay)
					if err != nil {
						return nil, nil, err
					}
					plan := e.scale.plan(load.Plan{Goroutines: n, Key: 4000})
					if e.scale.Name != "smoke" {
						plan.Time = max(plan.Time, 40*delay) // ten pairs of one goroutine
						if n > 1000 {
							plan.Time = max(plan.Time, time.Second)
						}
					}
					c, err := peers(at, []string{"pglock-1", "pglock", "pgx", "redislock"},
						func(ctx context.Context, _ peer.Kind, p peer.Peer) ([]float64, error) {
							r, err := load.Run(ctx, p, plan)
							if err != nil {
								return nil, err
							}
							return rateValues(r), nil
						})
					if n > 1 {
						c = append(c, contender{name: "bare", label: "two bare round trips, times goroutines", measure: func(ctx context.Context) ([]float64, error) {
							return timesMany(ctx, at.Postgres, plan)
						}})
					}
					for i := range c {
						// go-redis serves requests in order, so all lock before any unlocks.
						if c[i].name == "redislock" && n > 1000 && delay > 10*time.Millisecond {
							c[i].measure, c[i].missing = nil, "not measured: with 20 connections, a lock and its unlock take 10 s"
						}
					}
					return markVariants(c, "pglock"), func() error { stop(); return nil }, err
				},
			})
		}
	}
	return all
}

// refused measures how long a failing TryLock takes while many goroutines wait.
func refused(s scale) scenario {
	return scenario{
		name: "refused", group: "held", title: fmt.Sprintf("A try fails while %s goroutines wait for the lock", thousands(s.Queue)),
		what:    "One goroutine holds the lock and the others wait for it. The time is that of one more that tries without waiting, with another process's Locker, connection or client.",
		metrics: []Metric{{"median", "s", "less"}, {"99th percentile", "s", "less"}}, ours: "pglock",
		behind: "A try is one round trip for every contender.",
		setup: func(ctx context.Context, e *env) ([]contender, func() error, error) {
			at, err := e.host.Addresses(ctx)
			if err != nil {
				return nil, nil, err
			}
			const key = 5000
			timeTries := func(other bool) func(context.Context, peer.Kind, peer.Peer) ([]float64, error) {
				return func(ctx context.Context, k peer.Kind, p peer.Peer) (values []float64, err error) {
					free, err := occupy(ctx, p, key, e.scale.Queue)
					if err != nil {
						return nil, err
					}
					defer func() { err = errors.Join(err, free()) }()
					if other {
						q, err := k.Open(ctx, at)
						if err != nil {
							return nil, err
						}
						defer func() { err = errors.Join(err, q.Close()) }()
						p = q
					}
					l, err := p.Locker(ctx, true)
					if err != nil {
						return nil, err
					}
					times, err := sample(ctx, e.scale.Once, func(ctx context.Context) error {
						h, err := l.TryLock(ctx, key)
						if h != nil {
							return errors.New("a held lock was granted")
						}
						return err
					})
					if err != nil {
						return nil, err
					}
					slices.Sort(times)
					return []float64{stats.Quantile(times, 0.5), stats.Quantile(times, 0.99)}, nil
				}
			}
			all, err := peers(at, []string{"pglock", "pgx", "pq", "redsync", "redislock"}, timeTries(true))
			if err != nil {
				return nil, nil, err
			}
			same, err := peers(at, []string{"pglock"}, timeTries(false))
			if err != nil {
				return nil, nil, err
			}
			same[0].name, same[0].label, same[0].variant = "pglock-same", "pglock, from the same process", true
			return slices.Insert(all, 1, same[0]), nil, nil
		},
	}
}

// occupy holds a lock while waiters goroutines wait for it, until free is called.
func occupy(ctx context.Context, p peer.Peer, key int64, waiters int) (free func() error, err error) {
	l, err := p.Locker(ctx, true)
	if err != nil {
		return nil, err
	}
	h, err := l.Lock(ctx, key)
	if err != nil {
		return nil, err
	}
	waiting, cancel := context.WithCancel(ctx)
	ends := make(chan error, waiters)
	for range waiters {
		go func() {
			h, err := l.Lock(waiting, key)
			if err == nil {
				err = h.Unlock()
			} else if waiting.Err() != nil {
				err = nil // as expected
			}
			ends <- err
		}()
	}
	// Until all are waiting: not every peer can report that.
	time.Sleep(150 * time.Millisecond)
	return func() error {
		cancel()
		var errs []error
		for range waiters {
			errs = append(errs, <-ends)
		}
		return errors.Join(append(errs, h.Unlock())...)
	}, nil
}

// newLocker returns a Locker for scenarios that only pglock supports.
func newLocker(dsn string, opts ...pglock.LockerOption) (*pglock.Locker, error) {
	return pglock.New(pgxlock.ConnString(dsn), opts...)
}
