// Package cli is the command pglock: one file for each verb. Verbs return
// errors; what exit code an error means is decided in exit.go and nowhere else.
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

// Streams are what the command reads and writes.
type Streams struct {
	In  io.Reader
	Out io.Writer
	Err io.Writer
}

// app is one run of the command: what its verbs share.
type app struct {
	Streams
	env        []string
	connection connect.Flags
	config     settings
}

// Main runs the command with args, of which the first is its own name, and
// returns its exit code.
func Main(args []string, streams Streams, env []string) int {
	// The name comes from the system, so it may be missing.
	if len(args) == 0 {
		args = []string{"pglock"}
	}
	if filepath.Base(args[0]) == supervise.GuardName {
		return supervise.Guard(args[1:], streams.Err)
	}
	return Run(context.Background(), args[1:], streams, env)
}

// Run runs the command with args, its own name not among them. ctx ends what
// waits.
func Run(ctx context.Context, args []string, streams Streams, env []string) int {
	a := &app{Streams: streams, env: env}
	root := a.rootCommand()
	if len(args) > 0 && args[0] == cobra.ShellCompRequestCmd {
		plainUsages(root)
	}
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if text := message(err); text != "" {
		fmt.Fprintf(a.Err, "pglock: %s\n", text)
	}
	return exitCode(err)
}

// getenv is a variable of the environment, "" when there is none.
func (a *app) getenv(name string) string {
	value, _ := a.lookup(name)
	return value
}

// lookup returns a variable of the environment, and whether it is there.
func (a *app) lookup(name string) (value string, ok bool) {
	for _, kv := range a.env {
		if v, is := strings.CutPrefix(kv, name+"="); is {
			value, ok = v, true // the last one counts, as for os/exec
		}
	}
	return value, ok
}
