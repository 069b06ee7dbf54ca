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
	"github.com/pglock-go/pglock/bench/internal/stats"
	"github.com/pglock-go/pglock/pgxlock"
	"github.com/pglock-go/pglock/prioritize"
	"github.com/pglock-go/pglock/sqllock"
)

// The scenarios that time how soon something is noticed.

func reactionMetrics() []Metric {
	return []Metric{{"median", "s", "less"}, {"longest", "s", "less"}}
}

// repeated times something several times over; it returns the median and the longest.
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

// clearing is how soon a statement that is blocked runs on, once its blocker is past
// its grace.
func clearing() scenario {
	return scenario{
		name: "clear", group: "reaction", title: "A blocker past its grace, until the prioritized statement has run on",
		what:    "A session holds a table, another wants it and is prioritized. The time is that of its `BEGIN; LOCK TABLE; ROLLBACK`, less the grace. By hand is a third session that knows whom to end and when, and so does it at that moment.",
		metrics: reactionMetrics(), ours: "terminate",
		behind: "Who knows beforehand whom to end, and when, has nothing to look for. The watcher asks who is in the way, and makes sure in the statement that signals that it ends nobody else.",
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
			run := func(policy prioritize.Option) func(context.Context, *pgconn.PgConn) (time.Duration, error) {
				return func(ctx context.Context, _ *pgconn.PgConn) (took time.Duration, err error) {
					err = prioritize.Run(ctx, pgxlock.ConnString(dsn), pgxlock.Conn(me), func(ctx context.Context) (err error) {
						took, err = statement(ctx)
						return err
					}, prioritize.After(grace), policy, prioritize.Allow(prioritize.Superusers))
					return took, err
				}
			}
			return []contender{
				repeat("terminate", "prioritize.Run, Terminate; blocker idle in a transaction", false, run(prioritize.Terminate())),
				asideContender(repeat("cancel", "prioritize.Run, Cancel; blocker runs a statement", true, run(prioritize.Cancel()))),
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

// block has a new session hold the table, by a transaction that does nothing or by
// a statement that runs.
func block(ctx context.Context, dsn string, runs bool) (_ *pgconn.PgConn, free func() error, err error) {
	c, err := pgconn.Connect(ctx, dsn)
	if err != nil {
		return nil, nil, err
	}
	if !runs {
		if err := c.Exec(ctx, "BEGIN; SELECT FROM bench_clear").Close(); err != nil {
			return nil, nil, errors.Join(err, c.Close(ctx))
		}
		return c, func() error { _ = c.Close(ctx); return nil }, nil // it may have been ended
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Exec(ctx, "SELECT pg_sleep(1000) FROM bench_clear").Close() }()
	eye, err := pgx.Connect(ctx, dsn)
	if err == nil {
		err = errors.Join(until(ctx, eye, "SELECT EXISTS (SELECT FROM pg_locks WHERE relation = 'bench_clear'::regclass AND pid = $1)", c.PID()), eye.Close(ctx))
	}
	return c, func() error {
		_ = c.CancelRequest(ctx) // if it runs still
		<-ended
		return c.Close(ctx)
	}, err
}

// loss is how soon the holder of a lock hears that its backend was killed.
func loss() scenario {
	return scenario{
		name: "loss", group: "reaction", title: "A backend is killed, until the holder's ctx is cancelled",
		what:    "From before `pg_terminate_backend` is sent, to when the ctx inside `Locker.Do` is over. A raw connection hears nothing until it is used; here one listens, as `WaitForNotification` does, which is as soon as can be. The peers in Redis and the raw pools do not tell at all.",
		metrics: reactionMetrics(), ours: "pgx",
		behind: "A connection that listens has nothing else to do when it hears; the Locker tells every holder first.",
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
			ours := func(name, label string, source pglock.Source) contender {
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
				asideContender(ours("sql", "pglock, sqllock with pgx", sqllock.ConnString("pgx", dsn))),
				{name: "bare", label: "a pgx connection that listens", measure: func(ctx context.Context) ([]float64, error) {
					return repeated(ctx, e.scale.Reps, func(ctx context.Context) (time.Duration, error) {
						c, err := pgx.Connect(ctx, dsn)
						if err != nil {
							return 0, err
						}
						defer c.Close(ctx)
						heard := make(chan time.Time, 1)
						go func() {
							_, _ = c.WaitForNotification(ctx) // its error is what is waited for
							heard <- time.Now()
						}()
						time.Sleep(5 * time.Millisecond) // until it listens
						began := time.Now()
						if err := kill(ctx, int32(c.PgConn().PID())); err != nil {
							return 0, err
						}
						return (<-heard).Sub(began), nil
					})
				}},
			}, func() error { return killer.Close(context.Background()) }, nil
		},
	}
}

// loseLock has the backend of a held lock killed, and returns how soon the ctx of
// the work is over.
func loseLock(ctx context.Context, locker *pglock.Locker, kill func(context.Context, int32) error) (took time.Duration, err error) {
	key := pglock.Int(6000)
	lock, err := locker.Lock(ctx, pglock.Int(6001)) // on the same session, to know its number
	if err != nil {
		return 0, err
	}
	defer func() { _ = lock.Unlock() }() // it is lost with the other
	err = locker.Do(ctx, key, func(ctx context.Context) error {
		time.Sleep(5 * time.Millisecond) // until the session has nothing to do but listen
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
