//go:build unix

// Cluster starts a Postgres cluster on this machine: three servers under Patroni, with
// etcd, HAProxy and PgBouncer, all in temporary folders and on the loopback interface. It
// prints how to try it, and ends it with Ctrl-C. With -load, processes take leases and
// advisory locks through HAProxy and write to a table, while the primary is switched and
// killed; then their histories are checked, and the result is printed as tables for
// docs/reliability.md. See `make cluster`.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	if worker, err := workerMain(); worker {
		end(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	end(run(ctx, os.Args[1:], os.Stdout))
}

func end(err error) {
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("cluster", flag.ContinueOnError)
	loaded := flags.Bool("load", false, "take locks while the primary is switched and killed, and check them")
	mode := flags.String("sync", "on", "synchronous_mode: on, off or, with -load, both")
	ttls := flags.String("ttl", "3s", "with -load: time to live of the leases; several, separated by commas, are tried one after another")
	only := flags.String("only", "", "with -load: only the events with this text in their names")
	rounds := flags.Int("n", 1, "with -load: how often each event happens")
	failover := flags.Duration("failover", 30*time.Second, "Patroni's ttl: how long a primary may be silent")
	dir := flags.String("history", "", "with -load: directory for the histories; by default only those of a run with broken promises are kept")
	path := flags.String("write", "", "with -load: document to write the tables into, between its markers 'cluster: begin' and 'cluster: end'")
	if err := flags.Parse(args); err != nil {
		return err
	}
	modes, ok := map[string][]bool{"on": {true}, "off": {false}, "both": {true, false}}[*mode]
	switch {
	case flags.NArg() > 0:
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case !ok || len(modes) > 1 && !*loaded:
		return fmt.Errorf("-sync=%s is not possible here", *mode)
	case *rounds < 1:
		return errors.New("-n must be at least 1")
	case *failover < 9*time.Second:
		return errors.New("-failover must be at least 9s")
	}
	chosen := slices.DeleteFunc(events(), func(e event) bool { return !strings.Contains(e.name, *only) })
	if len(chosen) == 0 {
		return fmt.Errorf("no event has %q in its name", *only)
	}
	p, err := findPrograms(ctx, out)
	if err != nil {
		return err
	}
	if !*loaded {
		return show(ctx, p, modes[0], *failover, out)
	}
	began := time.Now()
	var outcomes []*outcome
	for text := range strings.SplitSeq(*ttls, ",") {
		ttl, err := time.ParseDuration(text)
		if err != nil {
			return err
		}
		for _, sync := range modes {
			l := load{Sync: sync, TTL: ttl, Failover: *failover, Events: slices.Repeat(chosen, *rounds), Dir: *dir, Log: out}
			o, err := l.run(ctx, p)
			if err != nil {
				return err
			}
			if len(o.wrong) > 0 {
				return fmt.Errorf("WRONG:\n%s\nthe history is in %s", strings.Join(o.wrong, "\n"), o.dir)
			}
			outcomes = append(outcomes, o)
		}
	}
	text := markdown(outcomes)
	fmt.Fprintf(out, "\n%s\n", text)
	if *path == "" {
		return nil
	}
	command := fmt.Sprintf("make cluster LOAD='%s'", strings.Join(slices.DeleteFunc(slices.Clone(args), func(arg string) bool { return arg == "-load" }), " "))
	return rewrite(*path, text+fmt.Sprintf("\n`%s`, %s.\n", command, began.UTC().Format("2 January 2006")))
}
