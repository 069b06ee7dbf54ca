package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"

	"github.com/pglock-go/pglock/stress/bench/internal/load"
	"github.com/pglock-go/pglock/stress/bench/internal/peer"
)

// A job is the work of another process of this program.
type job struct {
	Kind string
	At   peer.Addresses
	Plan load.Plan
}

// work reads a job from in, reports that it is ready, waits for the signal to begin, and
// writes the result.
func work(ctx context.Context, in io.Reader, out io.Writer) (err error) {
	lines := json.NewDecoder(in)
	var j job
	if err := lines.Decode(&j); err != nil {
		return err
	}
	kind, err := peer.Find(j.Kind)
	if err != nil {
		return err
	}
	p, err := kind.Open(ctx, j.At)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	if _, err := fmt.Fprintln(out, `"ready"`); err != nil {
		return err
	}
	var begin string
	if err := lines.Decode(&begin); err != nil {
		return err // the parent is gone
	}
	r, err := load.Run(ctx, p, j.Plan)
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(r)
}

// runProcesses runs the same job in n processes at the same time, and merges the
// results.
func runProcesses(ctx context.Context, e *env, n int, j job) (_ *load.Result, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // kills processes that have not exited
	type process struct {
		cmd    *exec.Cmd
		in     io.WriteCloser
		out    *json.Decoder
		stderr *strings.Builder // standard error; read after the process has exited
	}
	var all []process
	defer func() {
		cancel()
		for _, p := range all { // killed, if something else failed before
			if e := p.cmd.Wait(); e != nil && p.stderr.Len() > 0 {
				err = errors.Join(err, fmt.Errorf("a worker: %w: %s", e, p.stderr))
			}
		}
	}()
	for range n {
		cmd := exec.CommandContext(ctx, e.self[0], e.self[1:]...)
		cmd.Env = append(os.Environ(), workerEnv+"=yes")
		stderr := new(strings.Builder)
		cmd.Stderr = stderr
		in, err := cmd.StdinPipe()
		if err != nil {
			return nil, err
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			return nil, err
		}
		if err := cmd.Start(); err != nil {
			return nil, err
		}
		all = append(all, process{cmd, in, json.NewDecoder(bufio.NewReader(out)), stderr})
		if err := json.NewEncoder(in).Encode(j); err != nil {
			return nil, err
		}
	}
	for _, p := range all {
		var ready string
		if err := p.out.Decode(&ready); err != nil {
			return nil, fmt.Errorf("a worker did not become ready: %w", err)
		}
	}
	for _, p := range all {
		if _, err := fmt.Fprintln(p.in, `"begin"`); err != nil {
			return nil, err
		}
	}
	var sum load.Result
	for _, p := range all {
		var r load.Result
		if err := p.out.Decode(&r); err != nil {
			return nil, fmt.Errorf("a worker wrote no result: %w", err)
		}
		sum.Merge(&r)
	}
	for len(all) > 0 {
		p := all[0]
		all = all[1:]
		if err := p.cmd.Wait(); err != nil {
			return nil, fmt.Errorf("a worker: %w: %s", err, p.stderr)
		}
	}
	return &sum, nil
}

// workerEnv is the environment variable that makes this program a worker.
const workerEnv = "PGLOCK_BENCH_WORKER"
