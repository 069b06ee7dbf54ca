package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/pgxlock"
	"github.com/pglock-go/pglock/prioritize"
	"github.com/pglock-go/pglock/sqllock"
	"github.com/pglock-go/pglock/stress/bench/internal/stats"
)

// The scenarios that measure how soon something is noticed.

func reactionMetrics() []Metric {
	return []Metric{{"median", "s", "less"}, {"longest", "s", "less"}}
}

// repeated measures one n times, and returns the median and the longest time.
func repeated(ctx context.Context, n int, one func(context.Context) (time.Duration, error)) ([]float64, error) {
	var times []float64
	for range n {
		d, err := one(ctx)
		if err != nil {
			return nil, err
		}
		times = append(times, d.Seconds())
	}
	s := stats.Summarize(times)
	return []float64{s.Median, s.Max}, nil
}

// clearing measures how soon a blocked statement continues after the wait limit of
// prioritize.
func clearing() scenario {
	return scenario{
		name: "clear", group: "reaction", title: "From the wait limit to the end of the prioritized statement",
		what:    "One session holds a table lock, another waits for it and is prioritized. The time is that of its `BEGIN; LOCK TABLE; ROLLBACK`, minus the wait limit. By hand means that a third session knows the blocker in advance and terminates it at that moment.",
		metrics: reactionMetrics(), ours: "terminate",
		behind: "A session that knows the blocker and the moment in advance has nothing to find. The watcher has to find the blockers, and the statement that signals them checks that it ends no other session.",
		setup: func(ctx context.Context, e *env) ([]contender, func() error, error) {
			server, err := e.host.Plain(ctx)
			if err != nil {
				return nil, nil, err
			}
			dsn := server.ConnString("postgres")
			me, err := pgx.Connect(ctx, dsn)
			if err != nil {
				return nil, nil, err
			}
			teardown := func() error { return me.Close(context.Background()) }
			if _, err := me.Exec(ctx, "CREATE TABLE IF NOT EXISTS bench_clear AS SELECT 1 AS i"); err != nil {
				return nil, nil, errors.Join(err, teardown())
			}
			grace := e.scale.Grace
			statement := func(ctx context.Context) (time.Duration, error) {
				began := time.Now()
				_, err := me.Exec(ctx, "BEGIN; LOCK TABLE bench_clear; ROLLBACK")
				return time.Since(began) - grace, err
			}
			repeat := func(name, label string, runs bool, clear func(ctx context.Context, blocker *pgconn.PgConn) (time.Duration, error)) contender {
				return contender{name: name, label: label, measure: func(ctx context.Context) ([]float64, error) {
					return repeated(ctx, e.scale.Reps, func(ctx context.Context) (_ time.Duration, err error) {
						blocker, free, err := block(ctx, dsn, runs)
						if err != nil {
							return 0, err
						}
						defer func() { err = errors.Join(err, free()) }()
						return clear(ctx, blocker)
					})
				}}
			}
			run := func(policy prioritize.RunForOption) func(context.Context, *pgconn.PgConn) (time.Duration, error) {
				return func(ctx context.Context, _ *pgconn.PgConn) (took time.Duration, err error) {
					err = prioritize.RunOn(ctx, pgxlock.ConnString(dsn), pgxlock.Conn(me), func(ctx context.Context) (err error) {
						took, err = statement(ctx)
						return err
					}, prioritize.After(grace), policy, prioritize.Allow(inspect.Superusers))
					return took, err
				}
			}
			return []contender{
				repeat("terminate", "prioritize.RunOn, Terminate; blocker idle in transaction", false, run(prioritize.Terminate())),
				variantContender(repeat("cancel", "prioritize.RunOn, Cancel; blocker running a statement", true, run(prioritize.Cancel()))),
				repeat("byhand", "by hand, pg_terminate_backend", false, func(ctx context.Context, blocker *pgconn.PgConn) (time.Duration, error) {
					third, err := pgx.Connect(ctx, dsn)
					if err != nil {
						return 0, err
					}
					ended := make(chan error, 1)
					time.AfterFunc(grace, func() {
						_, err := third.Exec(ctx, "SELECT pg_terminate_backend($1)", blocker.PID())
						ended <- errors.Join(err, third.Close(ctx))
					})
					took, err := statement(ctx)
					return took, errors.Join(err, <-ended)
				}),
			}, teardown, nil
		},
	}
}

// block starts a session that holds the table, with an idle transaction or, if runs is
// true, with a running statement.
func block(ctx context.Context, dsn string, runs bool) (_ *pgconn.PgConn, free func() error, err error) {
	c, err := pgconn.Connect(ctx, dsn)
	if err != nil {
		return nil, nil, err
	}
	if !runs {
		if err := c.Exec(ctx, "BEGIN; SELECT FROM bench_clear").Close(); err != nil {
			return nil, nil, errors.Join(err, c.Close(ctx))
		}
		return c, func() error { _ = c.Close(ctx); return nil }, nil // it may have been terminated
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Exec(ctx, "SELECT pg_sleep(1000) FROM bench_clear").Close() }()
	observer, err := pgx.Connect(ctx, dsn)
	if err == nil {
		err = errors.Join(until(ctx, observer, "SELECT EXISTS (SELECT FROM pg_locks WHERE relation = 'bench_clear'::regclass AND pid = $1)", c.PID()), observer.Close(ctx))
	}
	return c, func() error {
		_ = c.CancelRequest(ctx) // in case it still runs
		<-ended
		return c.Close(ctx)
	}, err
}

// loss measures how soon the holder of a lock is notified that its backend was killed.
func loss() scenario {
	return scenario{
		name: "loss", group: "reaction", title: "From killing a backend to the holder's canceled ctx",
		what:    "From just before `pg_terminate_backend` is sent until the ctx inside `Locker.Do` is done. A raw connection notices nothing until it is used; here one listens with `WaitForNotification`, which is the earliest possible. The Redis peers and the raw pools do not notify the holder at all.",
		metrics: reactionMetrics(), ours: "pgx",
		behind: "A connection that only listens has nothing else to do; the Locker notifies every holder first.",
		setup: func(ctx context.Context, e *env) ([]contender, func() error, error) {
			server, err := e.host.Plain(ctx)
			if err != nil {
				return nil, nil, err
			}
			dsn := server.ConnString("postgres")
			killer, err := pgx.Connect(ctx, dsn)
			if err != nil {
				return nil, nil, err
			}
			kill := func(ctx context.Context, pid int32) error {
				var yes bool
				if err := killer.QueryRow(ctx, "SELECT pg_terminate_backend($1)", pid).Scan(&yes); err != nil || !yes {
					return errors.Join(fmt.Errorf("backend %d was not terminated", pid), err)
				}
				return nil
			}
			ours := func(name, label string, source driver.Source) contender {
				return contender{name: name, label: label, measure: func(ctx context.Context) (_ []float64, err error) {
					locker, err := pglock.New(source)
					if err != nil {
						return nil, err
					}
					defer func() { err = errors.Join(err, locker.Close()) }()
					return repeated(ctx, e.scale.Reps, func(ctx context.Context) (time.Duration, error) {
						return loseLock(ctx, locker, kill)
					})
				}}
			}
			return []contender{
				ours("pgx", "pglock, pgxlock", pgxlock.ConnString(dsn)),
				variantContender(ours("sql", "pglock, sqllock with pgx", sqllock.ConnString("pgx", dsn))),
				{name: "bare", label: "a listening pgx connection", measure: func(ctx context.Context) ([]float64, error) {
					return repeated(ctx, e.scale.Reps, func(ctx context.Context) (time.Duration, error) {
						c, err := pgx.Connect(ctx, dsn)
						if err != nil {
							return 0, err
						}
						defer c.Close(ctx)
						noticed := make(chan time.Time, 1)
						go func() {
							_, _ = c.WaitForNotification(ctx) // returns with an error
							noticed <- time.Now()
						}()
						time.Sleep(5 * time.Millisecond) // until it listens
						began := time.Now()
						if err := kill(ctx, int32(c.PgConn().PID())); err != nil {
							return 0, err
						}
						return (<-noticed).Sub(began), nil
					})
				}},
			}, func() error { return killer.Close(context.Background()) }, nil
		},
	}
}

// loseLock kills the backend of a held lock, and returns how soon the ctx of the work
// is done.
func loseLock(ctx context.Context, locker *pglock.Locker, kill func(context.Context, int32) error) (took time.Duration, err error) {
	key := pglock.Int(6000)
	lock, err := locker.Lock(ctx, pglock.Int(6001)) // on the same session, to learn its PID
	if err != nil {
		return 0, err
	}
	defer func() { _ = lock.Unlock() }() // it is lost too
	err = locker.Do(ctx, key, func(ctx context.Context) error {
		time.Sleep(5 * time.Millisecond) // until the session is idle and listens
		began := time.Now()
		if err := kill(context.WithoutCancel(ctx), lock.PID()); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			took = time.Since(began)
			return nil
		case <-time.After(30 * time.Second):
			return errors.New("the loss of a lock was not noticed")
		}
	})
	if errors.Is(err, pglock.ErrLost) {
		err = nil
	}
	if took == 0 && err == nil {
		err = errors.New("the lock was not on the session that was killed")
	}
	return took, err
}
