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
	"time"

	"github.com/pglock-go/pglock/internal/pgserver"
)

// childEnv is the environment variable that makes this program, or its tests, a child
// with the task that is its value.
const childEnv = "PGLOCK_LOSS_CHILD"

// child runs the child's task if this process is a child, and reports whether it is.
func child() (done bool, err error) {
	switch os.Getenv(childEnv) {
	case "":
		return false, nil
	case "hold":
		return true, holdUntilKilled()
	case "cut":
		return true, runCut()
	}
	return true, fmt.Errorf("%s=%s", childEnv, os.Getenv(childEnv))
}

// command returns a command that runs this program as a child, which reads and writes
// JSON.
func command(ctx context.Context, what string) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self)
	cmd.Env = append(os.Environ(), childEnv+"="+what)
	cmd.Stderr = os.Stderr
	return cmd, nil
}

// A holdTask is the lock that a child acquires.
type holdTask struct {
	Driver    int // index into drivers()
	DSN       string
	Key       int64
	Heartbeat time.Duration
}

// holdUntilKilled runs in the child: it acquires a lock, reports that, and returns when
// its input ends.
func holdUntilKilled() error {
	var what holdTask
	if err := json.NewDecoder(os.Stdin).Decode(&what); err != nil {
		return err
	}
	h, err := hold(context.Background(), drivers()[what.Driver].source(what.DSN), what.Key, what.Heartbeat)
	if err != nil {
		return err
	}
	defer h.close()
	fmt.Println("held")
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// untilFree measures how long it takes until another session acquires the lock of a
// killed process.
func untilFree(ctx context.Context, server *pgserver.Server, heartbeat time.Duration, trials int) ([]row, error) {
	var rows []row
	for i, d := range drivers() {
		for _, way := range []struct{ name, dsn string }{
			{"TCP", server.TCPConnString("postgres")},
			{"unix socket", server.ConnString("postgres")},
		} {
			r := row{Fault: processKilled, Until: lockFree, Driver: d.name + ", " + way.name, Heartbeat: heartbeat, Bound: freeAtOnce}
			for n := range trials {
				took, err := killHolder(ctx, server, holdTask{i, way.dsn, int64(n), heartbeat})
				if err != nil {
					return nil, fmt.Errorf("%s: %w", r.Driver, err)
				}
				r.Took = append(r.Took, took)
			}
			rows = append(rows, r)
		}
	}
	return rows, nil
}

func killHolder(ctx context.Context, server *pgserver.Server, what holdTask) (took time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, trialTimeout)
	defer cancel()
	cmd, err := command(ctx, "hold")
	if err != nil {
		return 0, err
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return 0, err
	}
	defer stdin.Close()
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	if err := json.NewEncoder(stdin).Encode(what); err != nil {
		return 0, err
	}
	if _, err := bufio.NewReader(stdout).ReadString('\n'); err != nil {
		return 0, errors.New("the child did not acquire the lock")
	}
	w, err := await(ctx, server.ConnString("postgres"), what.Key)
	if err != nil {
		return 0, err
	}
	defer w.close()
	began := time.Now()
	if err := cmd.Process.Kill(); err != nil {
		return 0, err
	}
	at, err := w.granted()
	return at.Sub(began), err
}
