package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/pgxlock"
	"github.com/pglock-go/pglock/stress/bench/internal/stats"
	"github.com/pglock-go/pglock/stress/bench/internal/usage"
)

// The scenarios in which the command shows a few of very many locks.

func manyRows(s scale) []scenario {
	var all []scenario
	for _, n := range s.Rows {
		all = append(all, rows(n))
	}
	return all
}

func rows(n int) scenario {
	return scenario{
		name: fmt.Sprintf("rows-%d", n), group: "inspect", size: n, title: fmt.Sprintf("25 of %s locks in a terminal", thousands(n)),
		what: "`pglock ls -l 25` and psql are whole processes, with their output discarded. `inspect.Locks` and the bare statement read all rows in the measuring process, whose memory is not measured.",
		metrics: []Metric{
			{"median", "s", "less"},
			{"client's processor time", "s", "less"},
			{"client's memory", "B", "less"},
		},
		ours:   "ls",
		behind: "The bare statement returns the locks alone, without their sessions and the names of what is locked, and sorts nothing.",
		setup: func(ctx context.Context, e *env) ([]contender, func() error, error) {
			server, err := e.host.Big(ctx)
			if err != nil {
				return nil, nil, err
			}
			binary, err := e.pglock(ctx)
			if err != nil {
				return nil, nil, err
			}
			cost, err := e.build(ctx, "cost", "github.com/pglock-go/pglock/stress/bench/internal/cost")
			if err != nil {
				return nil, nil, err
			}
			makeProgram, err := programs(e, server)
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
			if err := holder.Exec(ctx, fmt.Sprintf("SELECT count(pg_advisory_lock(i)) FROM generate_series(1, %d) AS i", n)).Close(); err != nil {
				return nil, nil, errors.Join(err, teardown())
			}
			q := pgxlock.Conn(observer)
			return []contender{
				{name: "ls", label: "pglock ls -l 25", measure: costOf(e, cost, makeProgram(binary, "ls", "-l", "25"))},
				variantContender(costed(e, "locks", "inspect.Locks", func(ctx context.Context) error {
					locks, err := inspect.Locks(ctx, q)
					return enough(n, len(locks), err)
				})),
				costed(e, "bare", "SELECT * FROM pg_locks", func(ctx context.Context) error {
					got, err := readAll(ctx, q, "SELECT * FROM pg_locks")
					return enough(n, got, err)
				}),
				psql("psql", "psql -c 'SELECT * FROM pg_locks'", func(path string) func(context.Context) ([]float64, error) {
					return costOf(e, cost, makeProgram(path, "-X", "-c", "SELECT * FROM pg_locks"))
				}),
			}, teardown, nil
		},
	}
}

// enough checks a number of rows.
func enough(want, got int, err error) error {
	if err == nil && got < want {
		err = fmt.Errorf("got %d rows, want at least %d", got, want)
	}
	return err
}

// costOf measures the time, the processor time and the memory of a program.
func costOf(e *env, command string, p program) func(context.Context) ([]float64, error) {
	return func(ctx context.Context) ([]float64, error) {
		var took, cpu, memory []float64
		_, err := sample(ctx, e.scale.Once, func(ctx context.Context) error {
			c, err := p.cost(ctx, command)
			if c.Memory == 0 {
				c.Memory = unknown
			}
			took, cpu, memory = append(took, c.Took.Seconds()), append(cpu, c.CPU.Seconds()), append(memory, float64(c.Memory))
			return err
		})
		if err != nil {
			return nil, err
		}
		return []float64{stats.Median(took), stats.Median(cpu), stats.Median(memory)}, nil
	}
}

// costed returns a contender that measures the same of a function, without its memory.
func costed(e *env, name, label string, do func(context.Context) error) contender {
	return contender{name: name, label: label, measure: func(ctx context.Context) ([]float64, error) {
		before, known := usage.OwnCPU()
		times, err := sample(ctx, e.scale.Once, do)
		if err != nil {
			return nil, err
		}
		cpu := float64(unknown)
		if after, _ := usage.OwnCPU(); known {
			cpu = (after - before).Seconds() / float64(len(times))
		}
		return []float64{stats.Median(times), cpu, unknown}, nil
	}}
}
