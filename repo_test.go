package pglock_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Tests as linters: rules of the repository that no tool of Go's knows.

// goFiles calls f for every Go file of the repository.
func goFiles(t *testing.T, f func(path string)) {
	t.Helper()
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (strings.HasPrefix(d.Name(), ".") && path != "." || d.Name() == "testdata") {
			return filepath.SkipDir
		}
		if strings.HasSuffix(path, ".go") {
			f(path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// The library must not bring a driver, or anything else, into its users' programs:
// imports run downward, and end at the standard library.
func TestImports(t *testing.T) {
	const root = "github.com/pglock-go/pglock"
	may := map[string][]string{ // what the code of a folder may import beyond the standard library
		".":                 {root + "/internal/session", root + "/internal/sqlstate"},
		"internal/session":  {root + "/internal/sqlstate"},
		"internal/sqlstate": {},
		"inspect":           {root, root + "/internal/sqlstate"},
		"config":            {root + "/inspect", "go.yaml.in/yaml/v3"},
		"prioritize":        {root, root + "/inspect", root + "/internal/sqlstate"},
		"sqllock":           {root, root + "/internal/sqlstate"},
		"pgxlock":           {root, root + "/internal/sqlstate", "github.com/jackc/pgx/v5"},
		"pglocktest":        {root},
	}
	seen := map[string]bool{}
	goFiles(t, func(path string) {
		if strings.HasSuffix(path, "_test.go") {
			return
		}
		dir := filepath.ToSlash(filepath.Dir(path))
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, spec := range file.Imports {
			imported := strings.Trim(spec.Path.Value, `"`)
			if strings.HasPrefix(imported, root+"/cmd") && !strings.HasPrefix(dir, "cmd/") {
				t.Errorf("%s imports the command", path)
			}
			first, _, _ := strings.Cut(imported, "/")
			allowed, listed := may[dir]
			if listed && imported == "testing" && dir != "pglocktest" {
				t.Errorf("%s imports testing, whose flags would be in its users' programs", path)
			}
			if !listed || !strings.Contains(first, ".") {
				continue
			}
			seen[dir] = true
			ok := false
			for _, a := range allowed {
				ok = ok || imported == a || strings.HasPrefix(imported, a+"/") && a != root
			}
			if !ok {
				t.Errorf("%s imports %s, which %s must not", path, imported, dir)
			}
		}
	})
	if !seen["."] || !seen["pgxlock"] {
		t.Error("this test looks at nothing")
	}
}

// A replace works for us and for nobody who installs the module.
func TestNoReplace(t *testing.T) {
	found := 0
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Name() != "go.mod" && d.Name() != "go.work" {
			return err
		}
		found++
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(data)) {
			if strings.HasPrefix(strings.TrimSpace(line), "replace") {
				t.Errorf("%s: %s", path, line)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if found < 3 {
		t.Errorf("only %d go.mod and go.work files found", found)
	}
}

// Every package says what it is for.
func TestPackageDocs(t *testing.T) {
	documented := map[string]bool{}
	goFiles(t, func(path string) {
		if strings.HasSuffix(path, "_test.go") {
			return
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments|parser.PackageClauseOnly)
		if err != nil {
			t.Fatal(err)
		}
		dir := filepath.Dir(path)
		documented[dir] = documented[dir] || file.Doc != nil
	})
	for dir, ok := range documented {
		if !ok {
			t.Errorf("the package in %s has no documentation", dir)
		}
	}
}

// No global state and no code that runs because it was imported.
func TestNoInit(t *testing.T) {
	goFiles(t, func(path string) {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(data)) {
			if strings.HasPrefix(line, "func init()") {
				t.Errorf("%s has an init function", path)
			}
		}
	})
}
