package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/pglock-go/pglock/stress/bench/internal/stats"
)

// startUp measures the command from start to exit.
func startUp() scenario {
	return scenario{
		name: "startup", group: "reaction", title: "The command on an idle server, from start to exit",
		what:    "From the start of the process to its exit, with its output discarded. `pglock key` does not connect, so it shows what any process of that size takes.",
		metrics: []Metric{{"median", "s", "less"}, {"longest", "s", "less"}}, ours: "ls",
		behind: "psql is a smaller program and runs a simpler query.",
		setup: func(ctx context.Context, e *env) ([]contender, func() error, error) {
			server, err := e.host.Plain(ctx)
			if err != nil {
				return nil, nil, err
			}
			dir, err := e.host.TempDir()
			if err != nil {
				return nil, nil, err
			}
			binary := filepath.Join(dir, "pglock")
			build := exec.CommandContext(ctx, "go", "build", "-o", binary, "github.com/pglock-go/pglock/cmd/pglock")
			if out, err := build.CombinedOutput(); err != nil {
				return nil, nil, fmt.Errorf("building the command: %w: %s", err, out)
			}
			environment := withoutPG(os.Environ())
			environment = append(environment, server.Env("postgres")...)
			command := func(name, label string, args ...string) contender {
				return contender{name: name, label: label, measure: func(ctx context.Context) ([]float64, error) {
					times, err := sample(ctx, 2*e.scale.Once, func(ctx context.Context) error {
						cmd := exec.CommandContext(ctx, args[0], args[1:]...)
						cmd.Env, cmd.Dir = environment, dir
						var stderr strings.Builder
						cmd.Stderr = &stderr
						if err := cmd.Run(); err != nil {
							return errors.Join(err, errors.New(stderr.String()))
						}
						return nil
					})
					if err != nil {
						return nil, err
					}
					s := stats.Summarize(times)
					return []float64{s.Median, s.Max}, nil
				}}
			}
			all := []contender{
				command("ls", "pglock ls", binary, "ls"),
				variantContender(command("key", "pglock key", binary, "key", "nightly-report")),
			}
			psql, err := exec.LookPath("psql")
			if err != nil {
				return append(all, contender{name: "psql", label: "psql", missing: "psql is not installed"}), nil, nil
			}
			return append(all, command("psql", "psql -c 'SELECT * FROM pg_locks'", psql, "-X", "-c", "SELECT * FROM pg_locks")), nil, nil
		},
	}
}

// withoutPG returns the environment without the variables that select a server.
func withoutPG(environment []string) []string {
	var kept []string
	for _, v := range environment {
		if !strings.HasPrefix(v, "PG") || strings.HasPrefix(v, "PGLOCK_TEST_") {
			kept = append(kept, v)
		}
	}
	return kept
}
