//go:build unix

// Soak runs rounds of package chaos for a while, each with a different seed, and stops
// at the first round that breaks a promise. See `make soak`.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/pglock-go/pglock/stress/chaos"
)

func main() {
	if worker, err := chaos.WorkerMain(); worker {
		end(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	end(soak(ctx))
}

func end(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// step is the difference between the seeds of two rounds. The seed of each round is
// printed, and can be given as the seed of the first round.
const step = 1_000_003

func soak(ctx context.Context) error {
	length := flag.Duration("for", 10*time.Minute, "how long to run; the last round is completed")
	seed := flag.Uint64("seed", rand.Uint64N(1<<32), "seed of the first round")
	leases := flag.Duration("leases", 0, "take leases with this TTL, in place of advisory locks")
	faults := flag.Int("faults", 20, "number of faults in a round")
	dir := flag.String("history", os.TempDir(), "directory for the history of a failed round")
	write := flag.String("write", "", "document to write the table into, between its markers 'faults: begin' and 'faults: end', or 'lease faults: ...'")
	flag.Parse()

	mode := ""
	if *leases != 0 {
		mode = fmt.Sprintf(" LEASES=%v", *leases)
	}
	began := time.Now()
	var rows []chaos.Row
	var sum chaos.Leases
	rounds := 0
	for s := *seed; time.Since(began) < *length; s += step {
		fmt.Printf("round %d, seed %d\n", rounds+1, s)
		result, err := chaos.Round{Seed: s, Random: *faults, Leases: *leases, Dir: *dir, Log: os.Stdout}.Run(ctx)
		if err != nil {
			return fmt.Errorf("seed %d: %w", s, err)
		}
		rounds++
		rows = chaos.Add(rows, result.Faults)
		sum = sum.Add(result.Leases)
		if len(result.Wrong) > 0 {
			return fmt.Errorf("WRONG:\n%s\n\n%s\nthe history is in %s\nto repeat this round: make soak D=1s SEED=%d%s",
				strings.Join(result.Wrong, "\n"), chaos.Text(result.Faults, chaos.KindNames()), result.Dir, s, mode)
		}
	}
	summary := fmt.Sprintf("%d rounds of %d faults in %v, first seed %d; nothing was wrong",
		rounds, *faults, time.Since(began).Round(time.Second), *seed)
	if *leases != 0 {
		summary += "; " + sum.String()
	}
	fmt.Printf("\n%s\n%s.\n", chaos.Text(rows, chaos.KindNames()), summary)
	if *write == "" {
		return nil
	}
	marker := "faults"
	if *leases != 0 {
		marker = "lease faults"
	}
	return rewrite(*write, marker, chaos.Markdown(rows, chaos.KindNames())+"\n"+summary+
		fmt.Sprintf(" (`make soak D=%v SEED=%d%s`, %s).\n", *length, *seed, mode, began.UTC().Format("2 January 2006")))
}

// rewrite replaces the text between the markers of a document.
func rewrite(path, marker, text string) error {
	begin, end := "<!-- "+marker+": begin -->\n", "<!-- "+marker+": end -->"
	old, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	head, rest, ok := strings.Cut(string(old), begin)
	_, tail, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		return errors.New(path + " has no markers for the table")
	}
	return os.WriteFile(path, []byte(head+begin+text+end+tail), 0o644)
}
