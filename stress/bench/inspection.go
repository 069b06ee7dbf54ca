package main

import (
	"context"
	"database/sql"
	_ "embed"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/pgxlock"
	"github.com/pglock-go/pglock/stress/bench/internal/stats"
)

// The scenarios of package inspect, compared with plain SQL on the same connection.

func snapshots(s scale) []scenario {
	var all []scenario
	for _, n := range []int{100, s.Held, s.Most} {
		all = append(all, scenario{
			name: fmt.Sprintf("snapshot-%d", n), group: "inspect", title: fmt.Sprintf("%s rows in pg_locks", thousands(n)),
			what:    "`inspect.ReadSnapshot` returns all locks with their sessions and who blocks whom, `inspect.Locks` only the locks; the rows of the bare statement are read into strings. One session holds all the locks.",
			metrics: []Metric{{"median", "s", "less"}}, ours: "take",
			behind: "ReadSnapshot reads more than the bare statement: the sessions, the names of tables and who blocks whom, in one snapshot. With few locks, this dominates.",
			setup: func(ctx context.Context, e *env) ([]contender, func() error, error) {
				server, err := e.host.Big(ctx)
				if err != nil {
					return nil, nil, err
				}
				dsn := server.ConnString("postgres")
				holder, err := pgconn.Connect(ctx, dsn)
				if err != nil {
					return nil, nil, err
				}
				observer, err := pgx.Connect(ctx, dsn)
				if err != nil {
					return nil, nil, errors.Join(err, holder.Close(ctx))
				}
				teardown := func() error { return errors.Join(observer.Close(ctx), holder.Close(ctx)) }
				if err := holder.Exec(ctx, fmt.Sprintf("SELECT pg_advisory_lock(i) FROM generate_series(1, %d) AS i", n)).Close(); err != nil {
					return nil, nil, errors.Join(err, teardown())
				}
				q := pgxlock.Conn(observer)
				return []contender{
					timed(e, "take", "inspect.ReadSnapshot", func(ctx context.Context) error {
						s, err := inspect.ReadSnapshot(ctx, q)
						if err != nil {
							return err
						}
						return enough(n, len(s.Locks), nil)
					}),
					variantContender(timed(e, "locks", "inspect.Locks", func(ctx context.Context) error {
						locks, err := inspect.Locks(ctx, q)
						return enough(n, len(locks), err)
					})),
					timed(e, "bare", "SELECT * FROM pg_locks", func(ctx context.Context) error {
						got, err := readAll(ctx, q, "SELECT * FROM pg_locks")
						return enough(n, got, err)
					}),
				}, teardown, nil
			},
		})
	}
	return all
}

func variantContender(c contender) contender {
	c.variant = true
	return c
}

// timed returns a contender that measures the median of repeated calls.
func timed(e *env, name, label string, do func(context.Context) error) contender {
	return contender{name: name, label: label, measure: func(ctx context.Context) ([]float64, error) {
		times, err := sample(ctx, e.scale.Once, do)
		if err != nil {
			return nil, err
		}
		return []float64{stats.Median(times)}, nil
	}}
}

// readAll reads all columns of pg_locks into strings and counts the rows.
func readAll(ctx context.Context, q driver.Querier, query string) (int, error) {
	return readColumns(ctx, q, query, 16) // since Postgres 14
}

// readColumns reads all rows into strings and counts them. There may be one column fewer.
func readColumns(ctx context.Context, q driver.Querier, query string, columns int) (int, error) {
	rows, err := q.Query(ctx, query)
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	values := make([]sql.NullString, columns)
	dest := make([]any, len(values))
	for i := range values {
		dest[i] = &values[i]
	}
	n, first := 0, true
	for rows.Next() {
		err := rows.Scan(dest...)
		if err != nil && first {
			dest = dest[:columns-1]
			err = rows.Scan(dest...)
		}
		if err != nil {
			return n, err
		}
		first = false
		n++
	}
	return n, rows.Err()
}

// queues returns the scenarios about who blocks whom in one queue.
func queues(s scale) []scenario {
	var all []scenario
	for _, n := range s.Blocked {
		all = append(all, blocked(n))
	}
	return all
}

func blocked(n int) scenario {
	return scenario{
		name: fmt.Sprintf("blocked-%d", n), group: "inspect", size: n, title: fmt.Sprintf("%d sessions queued on one table: who blocks whom", n),
		what:    "`inspect.Blocked` returns each pair with the details of both sides; the bare statement returns `pg_blocking_pids` for each waiting session. The Postgres wiki's query joins pg_locks with itself, so it returns each waiter with all other sessions of the queue. `pglock ls` is a whole process, with its output discarded.",
		metrics: []Metric{{"median", "s", "less"}}, ours: "blocked",
		behind: "The bare statement returns only PIDs. Blocked also reads the locks and the sessions of both sides, distinguishes holders from waiters ahead in the queue, and builds a value for each pair. Each session in a queue waits for all those ahead of it, so n sessions make n(n+1)/2 pairs.",
		setup: func(ctx context.Context, e *env) (_ []contender, _ func() error, err error) {
			server, err := e.host.Big(ctx)
			if err != nil {
				return nil, nil, err
			}
			dsn := server.ConnString("postgres")
			binary, err := e.pglock(ctx)
			if err != nil {
				return nil, nil, err
			}
			makeProgram, err := programs(e, server)
			if err != nil {
				return nil, nil, err
			}
			scene, err := queue(ctx, dsn, n)
			if err != nil {
				return nil, nil, err
			}
			q := pgxlock.Conn(scene.observer)
			list := makeProgram(binary, "ls", "--blocking", "-l", "25")
			return []contender{
				timed(e, "blocked", "inspect.Blocked", func(ctx context.Context) error {
					pairs, err := inspect.Blocked(ctx, q)
					if err == nil && len(pairs) != n*(n+1)/2 {
						err = fmt.Errorf("got %d pairs, want %d", len(pairs), n*(n+1)/2)
					}
					return err
				}),
				timed(e, "bare", "pg_blocking_pids, for each waiter", func(ctx context.Context) error {
					rows, err := q.Query(ctx, "SELECT pid, pg_blocking_pids(pid)::text FROM (SELECT DISTINCT pid FROM pg_locks WHERE NOT granted) AS w")
					if err != nil {
						return err
					}
					defer rows.Close()
					got := 0
					for ; rows.Next(); got++ {
						var pid int32
						var pids string
						if err := rows.Scan(&pid, &pids); err != nil {
							return err
						}
					}
					if got != n {
						return fmt.Errorf("%d sessions are waiting, want %d: %w", got, n, rows.Err())
					}
					return rows.Err()
				}),
				timed(e, "wiki", "the wiki's query", func(ctx context.Context) error {
					got, err := readColumns(ctx, q, wikiSQL, 8)
					return enough(n, got, err)
				}),
				variantContender(timed(e, "command", "pglock ls --blocking -l 25", list.run)),
			}, scene.close, nil
		},
	}
}

//go:embed wiki.sql
var wikiSQL string

// A queueScene is a set of sessions that wait for each other.
type queueScene struct {
	observer *pgx.Conn
	holder   *pgconn.PgConn
	waiters  []*pgconn.PgConn
	waits    chan error
}

// queue starts n sessions that wait for a table that another session has locked.
func queue(ctx context.Context, dsn string, n int) (s *queueScene, err error) {
	s = &queueScene{waits: make(chan error, n)}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if s.observer, err = pgx.Connect(ctx, dsn); err != nil {
		return s, err
	}
	if s.holder, err = pgconn.Connect(ctx, dsn); err != nil {
		return s, err
	}
	for _, statement := range []string{"CREATE TABLE IF NOT EXISTS bench_queue ()", "BEGIN", "LOCK TABLE bench_queue"} {
		if err := s.holder.Exec(ctx, statement).Close(); err != nil {
			return s, err
		}
	}
	for range n {
		c, err := pgconn.Connect(ctx, dsn)
		if err != nil {
			return s, err
		}
		s.waiters = append(s.waiters, c)
		go func() { s.waits <- c.Exec(context.WithoutCancel(ctx), "BEGIN; LOCK TABLE bench_queue").Close() }()
	}
	err = until(ctx, s.observer, "SELECT count(*) = $1 FROM pg_locks WHERE NOT granted AND relation = 'bench_queue'::regclass", n)
	if len(s.waits) > 0 {
		why := <-s.waits
		s.waits <- why // close receives one for each waiter
		err = errors.Join(err, fmt.Errorf("a session is not waiting: %w", why))
	}
	return s, err
}

// close ends all sessions, the waiters first.
func (s *queueScene) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var errs []error
	if s.observer != nil {
		// Otherwise each waiter would still acquire the table in turn.
		if _, err := s.observer.Exec(ctx, "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE NOT granted AND relation = to_regclass('bench_queue')"); err != nil {
			errs = append(errs, err)
		}
	}
	for range s.waiters {
		<-s.waits // an error, as expected
	}
	for _, c := range s.waiters {
		_ = c.Close(ctx) // the server has closed it
	}
	if s.holder != nil {
		errs = append(errs, s.holder.Close(ctx))
	}
	if s.observer != nil {
		errs = append(errs, s.observer.Close(ctx))
	}
	return errors.Join(errs...)
}

// until waits until a query returns true.
func until(ctx context.Context, conn *pgx.Conn, query string, args ...any) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		var yes bool
		if err := conn.QueryRow(ctx, query, args...).Scan(&yes); err != nil {
			return fmt.Errorf("waiting for %s: %w", query, err)
		}
		if yes {
			return nil
		}
		time.Sleep(time.Millisecond)
	}
}
