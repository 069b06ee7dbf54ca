package main

import (
	_ "embed"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

//go:embed mutants.txt
var list string

// A mutant is one small fault and the test that must catch it.
type mutant struct {
	name string
	why  string // what it breaks
	file string // relative to the root, with slashes
	pkg  string // of the test, as the go command takes it
	test string // its name, with subtests as -run takes them
	old  string // what is replaced; it occurs exactly once in the file
	new  string
}

// parse parses a list. The list describes its format.
func parse(list string) ([]mutant, error) {
	var mutants []mutant
	var errs []error
	names := make(map[string]bool)
	for block := range strings.SplitSeq(list, "\n\n") {
		m, err := parseOne(block)
		switch {
		case err != nil:
			errs = append(errs, err)
		case m.name == "": // only comments
		case names[m.name]:
			errs = append(errs, fmt.Errorf("duplicate mutant %s", m.name))
		default:
			names[m.name] = true
			mutants = append(mutants, m)
		}
	}
	return mutants, errors.Join(errs...)
}

var (
	validName = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)
	validTest = regexp.MustCompile(`^Test\w*(/.+)*$`)
)

func parseOne(block string) (m mutant, err error) {
	var olds, news []string
	for line := range strings.SplitSeq(block, "\n") {
		if strings.HasPrefix(line, "-") || strings.HasPrefix(line, "+") {
			if text := line[1:]; line[0] == '-' {
				olds = append(olds, text)
			} else {
				news = append(news, text)
			}
			continue
		}
		key, value, _ := strings.Cut(line, " ")
		value = strings.TrimSpace(value)
		switch key {
		case "", "#":
		case "mutant":
			m.name = value
		case "why":
			m.why = value
		case "file":
			m.file = value
		case "test":
			m.pkg, m.test, _ = strings.Cut(value, " ")
		default:
			return m, fmt.Errorf("mutant %s: unknown keyword %q", m.name, key)
		}
	}
	m.old, m.new = strings.Join(olds, "\n"), strings.Join(news, "\n")
	empty := m == mutant{}
	switch {
	case empty:
	case !validName.MatchString(m.name):
		return m, fmt.Errorf("%q is not a valid name of a mutant", m.name)
	case m.why == "" || m.file == "" || m.old == "":
		return m, fmt.Errorf("mutant %s needs a why line, a file line, and lines that begin with -", m.name)
	case m.pkg != "." && !strings.HasPrefix(m.pkg, "./") || !validTest.MatchString(m.test):
		return m, fmt.Errorf("mutant %s: the test line needs a package and a test, not %q", m.name, m.pkg+" "+m.test)
	case m.old == m.new:
		return m, fmt.Errorf("mutant %s changes nothing", m.name)
	}
	return m, nil
}

// named returns the mutant with that name.
func named(mutants []mutant, name string) ([]mutant, error) {
	for _, m := range mutants {
		if m.name == name {
			return []mutant{m}, nil
		}
	}
	return nil, fmt.Errorf("no mutant %s", name)
}

// check returns an error for each mutant that does not fit a tree: its text does not
// occur exactly once, or its test does not exist.
func check(tree string, mutants []mutant) error {
	var errs []error
	for _, m := range mutants {
		data, err := os.ReadFile(filepath.Join(tree, filepath.FromSlash(m.file)))
		if err != nil {
			errs = append(errs, fmt.Errorf("mutant %s: %w", m.name, err))
			continue
		}
		if n := strings.Count(string(data), m.old); n != 1 {
			errs = append(errs, fmt.Errorf("mutant %s: its text occurs %d times in %s, want once:\n%s", m.name, n, m.file, m.old))
		}
		if err := hasTest(filepath.Join(tree, filepath.FromSlash(m.pkg)), m.topTest()); err != nil {
			errs = append(errs, fmt.Errorf("mutant %s: %w", m.name, err))
		}
	}
	return errors.Join(errs...)
}

// topTest returns the name of the test without its subtests.
func (m mutant) topTest() string {
	top, _, _ := strings.Cut(m.test, "/")
	return top
}

// hasTest returns an error if no test file of a directory has a test with that name.
func hasTest(dir, name string) error {
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		return err
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if strings.Contains(string(data), "\nfunc "+name+"(") {
			return nil
		}
	}
	return fmt.Errorf("no test %s in %s", name, dir)
}
