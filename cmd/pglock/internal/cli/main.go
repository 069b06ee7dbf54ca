// Package cli implements the command pglock, with a file for each verb. Verbs return
// errors; only exit.go maps them to exit codes.
package cli

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pglock-go/pglock/cmd/pglock/internal/connect"
	"github.com/pglock-go/pglock/cmd/pglock/internal/supervise"
)

// Streams holds the standard streams of the command.
type Streams struct {
	In  io.Reader
	Out io.Writer
	Err io.Writer
}

// An app is one run of the command. It holds what the verbs share.
type app struct {
	Streams
	env        []string
	connection connect.Flags
	config     settings
}

// Main runs the command with args, including its name, and returns its exit code.
func Main(args []string, streams Streams, env []string) int {
	// args come from the system, so the name may be missing.
	if len(args) == 0 {
		args = []string{"pglock"}
	}
	if filepath.Base(args[0]) == supervise.GuardName {
		return supervise.Guard(args[1:], streams.Err)
	}
	return Run(context.Background(), args[1:], streams, env)
}

// Run runs the command with args, without its name, and returns its exit code. ctx ends
// every wait.
func Run(ctx context.Context, args []string, streams Streams, env []string) int {
	a := &app{Streams: streams, env: env}
	root := a.rootCommand()
	if len(args) > 0 && args[0] == cobra.ShellCompRequestCmd {
		stripUsageMarks(root)
	}
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if text := message(err); text != "" {
		fmt.Fprintf(a.Err, "pglock: %s\n", text)
	}
	return exitCode(err)
}

// getenv returns an environment variable, or "" if it is not set.
func (a *app) getenv(name string) string {
	value, _ := a.lookup(name)
	return value
}

// lookup returns an environment variable, and whether it is set.
func (a *app) lookup(name string) (value string, ok bool) {
	for _, kv := range a.env {
		if v, is := strings.CutPrefix(kv, name+"="); is {
			value, ok = v, true // the last one counts, as for os/exec
		}
	}
	return value, ok
}
