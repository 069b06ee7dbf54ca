package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/pglock-go/pglock/internal/pgserver"
	"github.com/pglock-go/pglock/stress/bench/internal/usage"
)

// build builds a Go package into a directory that is removed at the end, once.
func (e *env) build(ctx context.Context, name, pkg string) (string, error) {
	if binary := e.built[name]; binary != "" {
		return binary, nil
	}
	dir, err := e.host.TempDir()
	if err != nil {
		return "", err
	}
	binary := filepath.Join(dir, name)
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", binary, pkg).CombinedOutput(); err != nil {
		return "", fmt.Errorf("building %s: %w: %s", name, err, out)
	}
	if e.built == nil {
		e.built = map[string]string{}
	}
	e.built[name] = binary
	return binary, nil
}

// pglock builds the command.
func (e *env) pglock(ctx context.Context) (string, error) {
	return e.build(ctx, "pglock", "github.com/pglock-go/pglock/cmd/pglock")
}

// A program is a command line that runs against a server.
type program struct {
	args        []string
	environment []string
	dir         string
}

// programs returns a function that makes programs for a server.
func programs(e *env, server *pgserver.Server) (func(args ...string) program, error) {
	dir, err := e.host.TempDir() // without a config file of pglock
	if err != nil {
		return nil, err
	}
	environment := append(withoutPG(os.Environ()), server.Env("postgres")...)
	return func(args ...string) program { return program{args, environment, dir} }, nil
}

// run runs the program from start to exit, and discards its output.
func (p program) run(ctx context.Context) error { return p.runInto(ctx, nil) }

func (p program) runInto(ctx context.Context, out io.Writer) error {
	cmd := exec.CommandContext(ctx, p.args[0], p.args[1:]...)
	cmd.Env, cmd.Dir = p.environment, p.dir
	var stderr strings.Builder
	cmd.Stdout, cmd.Stderr = out, &stderr
	if err := cmd.Run(); err != nil {
		return errors.Join(err, errors.New(stderr.String()))
	}
	return nil
}

// cost runs the program with the command cost, and returns what it cost.
func (p program) cost(ctx context.Context, command string) (c usage.Cost, err error) {
	p.args = append([]string{command}, p.args...)
	var out bytes.Buffer
	if err := p.runInto(ctx, &out); err != nil {
		return c, err
	}
	return c, json.Unmarshal(out.Bytes(), &c)
}

// psql returns a contender that runs psql, or why it cannot.
func psql(name, label string, measure func(path string) func(context.Context) ([]float64, error)) contender {
	path, err := exec.LookPath("psql")
	if err != nil {
		return contender{name: name, label: label, missing: "psql is not installed"}
	}
	return contender{name: name, label: label, measure: measure(path)}
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
