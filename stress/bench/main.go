package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/pglock-go/pglock/stress/bench/internal/host"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := command(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// command runs the program.
func command(ctx context.Context, args []string, in io.Reader, out, log io.Writer) error {
	if os.Getenv(workerEnv) != "" {
		return work(ctx, in, out)
	}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(log)
	fast := flags.Bool("quick", false, "measure for about two minutes instead of ten")
	only := flags.String("only", "", "measure only these scenarios: comma-separated names, groups or prefixes, such as own,held")
	list := flags.Bool("list", false, "list the scenarios")
	render := flags.Bool("render", false, "measure nothing; write the document from the last results")
	regress := flags.Bool("regress", false, "read benchstat's CSV from standard input, and fail if a benchmark became slower")
	most := flags.Float64("most", 10, "with -regress: how many percent slower is still accepted")
	rounds := flags.Int("rounds", 0, "number of turns for each contender; 0 means the default")
	document := flags.String("document", "", "write the report into this document, and the results next to it")
	commit := flags.String("commit", "", "version of pglock, for the report")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q; select scenarios with -only", flags.Arg(0))
	}
	s := full()
	if *fast {
		s = quick()
	}
	if *rounds > 0 {
		s.Rounds = *rounds
	}
	switch {
	case *regress:
		return checkRegress(in, out, *most)
	case *list:
		for _, s := range scenarios(s) {
			fmt.Fprintf(out, "%-18s %s\n", s.name, s.title)
		}
		return nil
	case *render:
		r, err := readResults(resultsFile(*document))
		if err != nil {
			return err
		}
		return writeReport(*document, r)
	}
	chosen, err := choose(scenarios(s), *only)
	if err != nil {
		return err
	}
	if *document != "" && *only != "" {
		return errors.New("-document needs a full run: omit -only")
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	r, err := measure(ctx, s, chosen, []string{self}, *commit, out, log)
	if err != nil {
		return err
	}
	printGoals(out, r)
	if *document != "" {
		err = errors.Join(writeResults(resultsFile(*document), r), writeReport(*document, r))
	}
	if len(r.Failed) > 0 {
		err = errors.Join(err, fmt.Errorf("%d scenarios failed:\n%s", len(r.Failed), strings.Join(r.Failed, "\n")))
	}
	return err
}

// choose returns the scenarios that only selects.
func choose(all []scenario, only string) ([]scenario, error) {
	if only == "" {
		return all, nil
	}
	var chosen []scenario
	for name := range strings.SplitSeq(only, ",") {
		found := false
		for _, s := range all {
			if s.name == name || s.group == name || strings.HasPrefix(s.name, name+"-") {
				chosen, found = append(chosen, s), true
			}
		}
		if !found {
			var names []string
			for _, s := range all {
				names = append(names, s.name)
			}
			return nil, fmt.Errorf("no scenario %q; use one of %s", name, strings.Join(names, ", "))
		}
	}
	return chosen, nil
}

// measure runs scenarios, and stops the servers that it started.
func measure(ctx context.Context, s scale, chosen []scenario, self []string, commit string, out, log io.Writer) (_ *Results, err error) {
	r := &Results{
		Began: time.Now(), Commit: commit, Machine: host.ThisMachine(), BusyFrom: host.Busy(),
		Settings: s, Versions: libraries(), LeftOut: map[string]string{},
	}
	h := &host.Host{Log: log}
	defer func() { err = errors.Join(err, h.Close()) }()
	e := &env{host: h, log: log, scale: s, self: self}
	for i, c := range chosen {
		fmt.Fprintf(log, "%d of %d: %s\n", i+1, len(chosen), c.title)
		began := time.Now()
		m, err := run(ctx, e, c)
		if ctx.Err() != nil {
			return nil, err
		}
		if err != nil {
			// The others may still work; the report lists what failed.
			fmt.Fprintln(log, "FAILED:", err)
			r.Failed = append(r.Failed, err.Error())
		}
		if s.Name == "smoke" {
			fmt.Fprintf(log, "took %v\n", time.Since(began))
		}
		printMeasured(out, &m)
		r.Scenarios = append(r.Scenarios, m)
	}
	for server, version := range h.Versions() {
		r.Versions[string(server)] = version
	}
	for server, why := range h.Missing() {
		r.LeftOut[string(server)] = why.Error()
	}
	r.Took, r.BusyTo = time.Since(r.Began), host.Busy()
	return r, nil
}

// libraries returns the versions of the drivers and peers in this program.
func libraries() map[string]string {
	short := map[string]string{
		"github.com/jackc/pgx/v5": "pgx", "github.com/lib/pq": "lib/pq",
		"github.com/go-redsync/redsync/v4": "redsync", "github.com/bsm/redislock": "redislock",
		"github.com/redis/go-redis/v9": "go-redis", "go.etcd.io/etcd/client/v3": "etcd client",
		"github.com/Shopify/toxiproxy/v2": "toxiproxy",
	}
	found := map[string]string{}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return found
	}
	for _, d := range info.Deps {
		if name := short[d.Path]; name != "" {
			found[name] = strings.TrimPrefix(d.Version, "v")
		}
	}
	return found
}

// resultsFile returns the path of the results for a document.
func resultsFile(document string) string {
	return filepath.Join(strings.TrimSuffix(document, ".md"), "results.json")
}

func writeResults(file string, r *Results) error {
	for _, m := range r.Scenarios {
		for _, row := range m.Rows {
			if slices.ContainsFunc(row.Rounds, func(v []float64) bool { return len(v) != len(m.Metrics) }) {
				return fmt.Errorf("%s: %s has values without a metric", m.Name, row.Name)
			}
		}
	}
	b, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return os.WriteFile(file, append(b, '\n'), 0o644)
}

func readResults(file string) (*Results, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	r := new(Results)
	if err := json.Unmarshal(b, r); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return r, nil
}
