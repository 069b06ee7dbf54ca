package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// An outcome is the result of running a mutant.
type outcome string

const (
	killed   outcome = "killed"
	timedOut outcome = "killed (time limit)"
	survived outcome = "SURVIVED"
	broken   outcome = "NOT RUN" // it does not compile, or the test did not start
)

// A runner runs tests in a tree whose files it may change.
type runner struct {
	tree  string
	bin   string // directory for test binaries
	limit time.Duration
}

func newRunner(tree string, limit time.Duration) (*runner, error) {
	bin, err := os.MkdirTemp("", "mutants")
	return &runner{tree: tree, bin: bin, limit: limit}, err
}

func (r *runner) close() { os.RemoveAll(r.bin) }

// unchanged runs every named test on the unchanged code: a test that fails anyway would
// seem to catch its mutant.
func (r *runner) unchanged(ctx context.Context, mutants []mutant) error {
	tests := make(map[string][]string)
	for _, m := range mutants {
		if !slices.Contains(tests[m.pkg], m.topTest()) {
			tests[m.pkg] = append(tests[m.pkg], m.topTest())
		}
	}
	for pkg, names := range tests {
		began := time.Now()
		output, err := r.test(ctx, pkg, "^("+strings.Join(names, "|")+")$", time.Duration(len(names))*r.limit)
		if err != nil {
			return fmt.Errorf("%s: %s on the unchanged code: %w\n%s", pkg, strings.Join(names, ", "), err, output)
		}
		fmt.Printf("%-17s %s: %d tests (%v)\n", "pass unchanged", pkg, len(names), time.Since(began).Round(100*time.Millisecond))
	}
	return nil
}

// run applies one mutant, runs its test, and restores the file.
func (r *runner) run(ctx context.Context, m mutant) (o outcome, detail string) {
	file := filepath.Join(r.tree, filepath.FromSlash(m.file))
	before, err := os.ReadFile(file)
	if err != nil {
		return broken, err.Error()
	}
	mutated := bytes.Replace(before, []byte(m.old), []byte(m.new), 1)
	if err := os.WriteFile(file, mutated, 0o644); err != nil {
		return broken, err.Error()
	}
	defer func() {
		if err := os.WriteFile(file, before, 0o644); err != nil {
			o, detail = broken, err.Error()
		}
	}()

	output, err := r.test(ctx, m.pkg, pattern(m.test), r.limit)
	switch {
	case err == nil:
		return survived, ""
	case strings.Contains(output, "\npanic: test timed out") || errors.Is(err, errTooLong):
		return timedOut, ""
	case strings.Contains(output, "\n--- FAIL: "+m.topTest()+" "), strings.Contains(output, "\npanic: "),
		strings.Contains(output, "\nfatal error: "):
		return killed, ""
	}
	return broken, fmt.Sprintf("%v\n%s", err, output)
}

// pattern returns the -run pattern for a test with its subtests.
func pattern(test string) string {
	parts := strings.Split(test, "/")
	for i, part := range parts {
		parts[i] = "^" + regexp.QuoteMeta(part) + "$"
	}
	return strings.Join(parts, "/")
}

var errTooLong = errors.New("the test did not end at its time limit")

// test builds a package's tests and runs those that match. It returns an error if a test
// fails or none matches.
func (r *runner) test(ctx context.Context, pkg, pattern string, limit time.Duration) (output string, err error) {
	binary := filepath.Join(r.bin, "mutant.test")
	build := exec.CommandContext(ctx, "go", "test", "-c", "-o", binary, pkg)
	build.Dir = r.tree
	if out, err := build.CombinedOutput(); err != nil {
		return string(out), fmt.Errorf("building the tests of %s: %w", pkg, err)
	}
	// The binary exits at its own limit; if it does not, it is killed.
	hard, cancel := context.WithTimeout(ctx, limit+time.Minute)
	defer cancel()
	run := exec.CommandContext(hard, binary, "-test.run", pattern, "-test.v", "-test.timeout", limit.String())
	run.Dir = filepath.Join(r.tree, filepath.FromSlash(pkg))
	run.WaitDelay = 10 * time.Second
	out, err := run.CombinedOutput()
	output = "\n" + string(out)
	switch {
	case hard.Err() != nil:
		return output, errTooLong
	case err == nil && !strings.Contains(output, "\n--- PASS: "):
		return output, fmt.Errorf("no test that matches %s passed", pattern)
	}
	return output, err
}
