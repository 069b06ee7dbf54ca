package pgserver

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"
)

// An identity is the user that runs the server and everything that touches its files.
type identity struct {
	name     string
	uid, gid uint32
	switches bool // the current user is root, so children switch to this user
}

// command returns a child process that runs as id, with a clean environment, and in its
// own session, which the terminal's Ctrl-C does not reach.
func (id identity) command(ctx context.Context, env []string, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = "/"
	cmd.Env = append(cleanEnv(), env...)
	cmd.SysProcAttr = id.attributes()
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// run runs a child and returns its output. An error includes that output.
func (id identity) run(ctx context.Context, env []string, stdin io.Reader, name string, args ...string) (string, error) {
	var out bytes.Buffer
	cmd := id.command(ctx, env, name, args...)
	cmd.Stdin = stdin
	cmd.Stdout = &out
	cmd.Stderr = &out
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return out.String(), &commandError{name, err, strings.TrimSpace(out.String())}
	}
	return out.String(), nil
}

// A commandError is the failure of a child, with its output.
type commandError struct {
	name   string
	err    error
	output string
}

func (e *commandError) Error() string {
	if e.output == "" {
		return fmt.Sprintf("%s: %v", e.name, e.err)
	}
	return fmt.Sprintf("%s: %v\n%s", e.name, e.err, e.output)
}

func (e *commandError) Unwrap() error { return e.err }

// cleanEnv returns the environment for the server and initdb. It has only what they need,
// so that the caller's PG variables and locale have no effect.
func cleanEnv() []string {
	env := []string{"LC_ALL=C", "HOME=/"}
	for _, name := range []string{"PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"} {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	return env
}
