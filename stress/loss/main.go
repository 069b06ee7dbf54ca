// Command loss measures how long it takes until the holder of a lost lock is notified,
// and until the lock of a dead holder is free for others. It writes the table of
// docs/reliability.md. See make loss.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"time"

	"github.com/pglock-go/pglock/internal/pgserver"
)

func main() {
	if done, err := child(); done {
		exit(err)
	}
	exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

func exit(err error) {
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "loss:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func run(args []string, out, progress io.Writer) error {
	flags := flag.NewFlagSet("loss", flag.ContinueOnError)
	trials := flags.Int("n", 30, "number of trials for each fault")
	write := flags.String("write", "", "file to write the table into, between its markers")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *trials < 1 {
		return errors.New("-n must be at least 1")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	options, err := pgserver.FromEnv()
	if err != nil {
		return err
	}
	options.Database = "" // start a server that can be killed
	options.Log = progress
	rows, version, err := measureAll(ctx, options, *trials, progress)
	if err != nil {
		return err
	}
	text := table(rows, version)
	fmt.Fprint(out, text)
	if *write == "" {
		return nil
	}
	return writeBetween(*write, "loss", text)
}

// measureAll measures every row of the table.
func measureAll(ctx context.Context, o pgserver.Options, trials int, progress io.Writer) (rows []row, version string, err error) {
	began := time.Now()
	say := func(what string) {
		fmt.Fprintf(progress, "%6s  %s\n", time.Since(began).Round(time.Second), what)
	}
	o.TCP = true
	server, err := pgserver.Start(ctx, o)
	if err != nil {
		return nil, "", err
	}
	defer func() { err = errors.Join(err, server.Stop()) }()
	version = server.Binaries().Version
	const heartbeat = 2 * time.Second
	add := func(more []row, err error) error {
		rows = append(rows, more...)
		return err
	}
	for _, f := range faults() {
		say(f.what)
		if err := add(f.untilNotified(ctx, server, heartbeat, trials)); err != nil {
			return nil, "", fmt.Errorf("%s: %w", f.what, err)
		}
	}
	say(processKilled)
	if err := add(untilFree(ctx, server, heartbeat, trials)); err != nil {
		return nil, "", fmt.Errorf("%s: %w", processKilled, err)
	}
	for _, heartbeat := range []time.Duration{heartbeat, 10 * time.Second} {
		say(fmt.Sprintf("%s, with a heartbeat of %v", cablePulled, heartbeat))
		c := cut{Heartbeat: heartbeat, Trials: 3, Holders: max(trials/3, 1)}
		if err := add(c.inNamespace(ctx)); err != nil {
			return nil, "", fmt.Errorf("%s: %w", cablePulled, err)
		}
	}
	say("done")
	return rows, version, nil
}
