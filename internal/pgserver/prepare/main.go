// Command prepare gets the Postgres server and the other programs for the tests, and
// shows its progress: within go test, a download would be silent.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"time"

	"github.com/pglock-go/pglock/internal/pgserver"
)

func main() {
	if err := prepare(os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func prepare(out io.Writer) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	o, err := pgserver.FromEnv()
	if err != nil {
		return err
	}
	o.Log = out
	if o.Database != "" {
		// It must accept connections. Some tests also need their own server.
		server, err := pgserver.Start(ctx, o)
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "the tests use the server at %s, port %d\n", server.Host(), server.Port())
		o.Database = ""
	}
	if _, err := pgserver.Prepare(ctx, o); err != nil {
		return err
	}
	begin := time.Now()
	server, err := pgserver.Start(ctx, o)
	if err != nil {
		return err
	}
	bin := server.Binaries()
	for _, name := range []string{"psql", "pgbouncer", "python3"} {
		if _, err := pgserver.FindProgram(ctx, name, out); err != nil {
			// Only the tests that need it will fail.
			fmt.Fprintln(out, err)
		}
	}
	fmt.Fprintf(out, "Postgres %s in %s starts in %s\n", bin.Version, bin.Dir, time.Since(begin).Round(time.Millisecond))
	return server.Stop()
}
