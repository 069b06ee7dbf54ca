package main

import (
	"context"

	"github.com/pglock-go/pglock/stress/bench/internal/stats"
)

// startUp measures the command from start to exit.
func startUp() scenario {
	return scenario{
		name: "startup", group: "reaction", title: "The command on an idle server, from start to exit",
		what:    "From the start of the process to its exit, with its output discarded. `pglock version` and `pglock key` do not connect; the smallest Go program does nothing but print a line.",
		metrics: []Metric{{"median", "s", "less"}, {"longest", "s", "less"}}, ours: "ls",
		behind: "psql is a smaller program and runs a simpler query. A Go program that does nothing shows what starting one takes.",
		setup: func(ctx context.Context, e *env) ([]contender, func() error, error) {
			server, err := e.host.Plain(ctx)
			if err != nil {
				return nil, nil, err
			}
			binary, err := e.pglock(ctx)
			if err != nil {
				return nil, nil, err
			}
			hello, err := e.build(ctx, "hello", "github.com/pglock-go/pglock/stress/bench/internal/hello")
			if err != nil {
				return nil, nil, err
			}
			makeProgram, err := programs(e, server)
			if err != nil {
				return nil, nil, err
			}
			measure := func(args ...string) func(context.Context) ([]float64, error) {
				p := makeProgram(args...)
				return func(ctx context.Context) ([]float64, error) {
					times, err := sample(ctx, 2*e.scale.Once, p.run)
					if err != nil {
						return nil, err
					}
					s := stats.Summarize(times)
					return []float64{s.Median, s.Max}, nil
				}
			}
			query := func(name, sql string) contender {
				return psql(name, "psql -c '"+sql+"'", func(path string) func(context.Context) ([]float64, error) {
					return measure(path, "-X", "-c", sql)
				})
			}
			return []contender{
				{name: "ls", label: "pglock ls", measure: measure(binary, "ls")},
				{name: "version", label: "pglock version", variant: true, measure: measure(binary, "version")},
				{name: "key", label: "pglock key", variant: true, measure: measure(binary, "key", "nightly-report")},
				query("psql", "SELECT * FROM pg_locks"),
				query("select", "SELECT 1"),
				{name: "hello", label: "the smallest Go program", measure: measure(hello)},
			}, nil, nil
		},
	}
}
