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

// identity is the user whom the server and all that touches its files run as.
type identity struct {
	name     string
	uid, gid uint32
	switches bool // the current user is root, so children change to this one
}

// command prepares a child that runs as id, in a clean environment and in a
// session of its own, which the terminal's Ctrl-C does not reach.
func (id identity) command(ctx context.Context, env []string, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = "/"
	cmd.Env = append(cleanEnv(), env...)
	cmd.SysProcAttr = id.attributes()
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// run runs a child to its end and returns what it wrote. A failure carries that
// output.
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

// commandError is the failure of a child, with what it wrote.
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

// cleanEnv is the environment for the server and initdb: only what they need,
// so that no PG* variable and no locale of the caller changes what they do.
func cleanEnv() []string {
	env := []string{"LC_ALL=C", "HOME=/"}
	for _, name := range []string{"PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"} {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	return env
}
