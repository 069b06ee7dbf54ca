// Command prepare gets the Postgres server that the tests will use, and the other
// programs that some of them need, and shows what it does meanwhile: inside of go test a download would be silent.
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
		// It must answer, and some tests need a server of their own besides.
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
			// The tests that need it will fail, and the others need not wait for it.
			fmt.Fprintln(out, err)
		}
	}
	fmt.Fprintf(out, "Postgres %s in %s starts in %s\n", bin.Version, bin.Dir, time.Since(begin).Round(time.Millisecond))
	return server.Stop()
}
