// Command mutants makes small faults in the code, one at a time, and checks that a named
// test catches each. It changes files, so it runs in a copy of the tree: see
// scripts/mutate and `make mutate`. The faults are listed in mutants.txt.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	tree := flag.String("tree", "", "copy of the repository, whose files are changed")
	only := flag.String("only", "", "name of the only mutant to run; the default is all")
	limit := flag.Duration("limit", 2*time.Minute, "time limit for a test; a mutant that exceeds it counts as killed")
	flag.Parse()
	if *tree == "" || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := mutate(ctx, *tree, *only, *limit); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// mutate runs the mutants of the list in a tree. It returns an error if the list is wrong
// or a mutant survived.
func mutate(ctx context.Context, tree, only string, limit time.Duration) error {
	mutants, err := parse(list)
	if err != nil {
		return err
	}
	if err := check(tree, mutants); err != nil {
		return err
	}
	if only != "" {
		if mutants, err = named(mutants, only); err != nil {
			return err
		}
	}
	r, err := newRunner(tree, limit)
	if err != nil {
		return err
	}
	defer r.close()

	began := time.Now()
	if err := r.unchanged(ctx, mutants); err != nil {
		return err
	}
	var alive, wrong int
	for _, m := range mutants {
		began := time.Now()
		outcome, detail := r.run(ctx, m)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		fmt.Printf("%-17s %-40s %s %s (%v)\n", outcome, m.name, m.pkg, m.test, time.Since(began).Round(100*time.Millisecond))
		switch outcome {
		case survived:
			alive++
			fmt.Printf("    %s: %s\n", m.file, m.why)
		case broken:
			wrong++
			fmt.Println(detail)
		}
	}
	fmt.Printf("%d mutants in %v: %d survived\n", len(mutants), time.Since(began).Round(time.Second), alive)
	switch {
	case wrong > 0:
		return fmt.Errorf("%d mutants could not be run; correct scripts/mutants/mutants.txt", wrong)
	case alive > 0:
		return fmt.Errorf("%d mutants survived: their tests do not catch them", alive)
	}
	return nil
}
