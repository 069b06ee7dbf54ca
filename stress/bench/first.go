package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/internal/pgserver"
	"github.com/pglock-go/pglock/pgxlock"
	"github.com/pglock-go/pglock/sqllock"
	"github.com/pglock-go/pglock/stress/bench/internal/stats"
)

// The scenarios of the first lock, which needs a connection.

func firstLocks() []scenario {
	return []scenario{first(0), first(5 * time.Millisecond)}
}

func first(delay time.Duration) scenario {
	title := "The first lock, with its connection"
	if delay > 0 {
		title = fmt.Sprintf("The same, %d ms each way", delay.Milliseconds())
	}
	return scenario{
		name: fmt.Sprintf("first-%d", delay.Milliseconds()), group: "reaction", title: title,
		what:    "From before `New` or connecting until the lock is held. A proxy counts how often the client waits for the server. It accepts TCP connections at once, so a real network adds one round trip for every contender.",
		metrics: []Metric{{"median", "s", "less"}, {"longest", "s", "less"}, {"round trips", "count", "less"}}, ours: "pgx",
		behind: "A Locker also identifies its session, checks that no pooler is in between, sets timeouts, and proves that the server has advisory locks.",
		setup: func(ctx context.Context, e *env) ([]contender, func() error, error) {
			server, err := e.host.Plain(ctx)
			if err != nil {
				return nil, nil, err
			}
			dsn := server.ConnString("postgres")
			stop := func() {}
			if delay > 0 {
				at, stopProxies, err := e.host.Slow(ctx, delay)
				if err != nil {
					return nil, nil, err
				}
				dsn, stop = at.Postgres, stopProxies
			}
			flights, err := pgserver.CountFlights(dsn)
			if err != nil {
				stop()
				return nil, nil, err
			}
			return firstLockers(e, flights), func() error {
				err := flights.Close()
				stop()
				return err
			}, nil
		},
	}
}

// firstLockers returns the contenders, which connect through the proxy.
func firstLockers(e *env, flights *pgserver.Flights) []contender {
	dsn := flights.ConnString()
	repeat := func(name, label string, variant bool, lock func(ctx context.Context) (closeIt func() error, err error)) contender {
		return contender{name: name, label: label, variant: variant, measure: func(ctx context.Context) ([]float64, error) {
			var times, counts []float64
			for range 2 * e.scale.Reps {
				flights.Take()
				began := time.Now()
				closeIt, err := lock(ctx)
				took, n := time.Since(began), flights.Take()
				if err == nil {
					err = closeIt()
				}
				if err != nil {
					return nil, err
				}
				times, counts = append(times, took.Seconds()), append(counts, float64(n))
			}
			s := stats.Summarize(times)
			return []float64{s.Median, s.Max, stats.Median(counts)}, nil
		}}
	}
	const key = 7000
	ours := func(source driver.Source) func(ctx context.Context) (func() error, error) {
		return func(ctx context.Context) (func() error, error) {
			locker, err := pglock.New(source)
			if err != nil {
				return nil, err
			}
			lock, err := locker.Lock(ctx, pglock.Int(key))
			if err != nil {
				return nil, errors.Join(err, locker.Close())
			}
			return func() error { return errors.Join(lock.Unlock(), locker.Close()) }, nil
		}
	}
	return []contender{
		repeat("pgx", "pglock, pgxlock", false, ours(pgxlock.ConnString(dsn))),
		repeat("pq", "pglock, sqllock with lib/pq", true, ours(sqllock.ConnString("postgres", dsn))),
		repeat("bare", "pgx.Connect and pg_advisory_lock", false, func(ctx context.Context) (func() error, error) {
			conn, err := pgx.Connect(ctx, dsn)
			if err != nil {
				return nil, err
			}
			closeIt := func() error { return conn.Close(context.Background()) }
			if _, err := conn.Exec(ctx, "SELECT pg_advisory_lock($1)", key); err != nil {
				return nil, errors.Join(err, closeIt())
			}
			return closeIt, nil
		}),
		repeat("barepq", "sql.Open, lib/pq, and pg_advisory_lock", false, func(ctx context.Context) (func() error, error) {
			db, err := sql.Open("postgres", dsn)
			if err != nil {
				return nil, err
			}
			if _, err := db.ExecContext(ctx, "SELECT pg_advisory_lock($1)", key); err != nil {
				return nil, errors.Join(err, db.Close())
			}
			return db.Close, nil
		}),
	}
}
