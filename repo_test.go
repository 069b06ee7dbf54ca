package pglock_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Tests as linters: rules of the repository that no tool of Go's knows.

// goFiles calls f for every Go file of the repository that somebody wrote.
func goFiles(t *testing.T, f func(path string)) {
	t.Helper()
	generated := regexp.MustCompile(`(?m)^// Code generated .* DO NOT EDIT\.$`)
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (strings.HasPrefix(d.Name(), ".") && path != "." || d.Name() == "testdata") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if !generated.Match(data) {
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
		"driver":               {},
		".":                    {root + "/driver", root + "/internal/engine", root + "/internal/handshake", root + "/internal/query", root + "/internal/sqlstate", root + "/internal/sqltext", root + "/internal/termtext"},
		"internal/termtext":    {},
		"internal/redact":      {root + "/internal/lazyregexp"},
		"internal/lazyregexp":  {},
		"internal/handshake":   {root + "/driver", root + "/internal/sqlstate", root + "/internal/sqltext"},
		"internal/query":       {root + "/driver"},
		"internal/sqltext":     {root + "/internal/termtext"},
		"internal/engine":      {root + "/driver", root + "/internal/sqlstate", root + "/internal/sqltext", root + "/internal/handshake"},
		"internal/sqlstate":    {},
		"internal/signal":      {root, root + "/driver", root + "/inspect", root + "/internal/sqlstate", root + "/internal/sqltext", root + "/internal/termtext"},
		"doctor":               {root + "/driver", root + "/inspect", root + "/internal/handshake", root + "/internal/sqlstate", root + "/internal/sqltext", root + "/internal/termtext"},
		"feed":                 {root + "/driver", root + "/inspect"},
		"trace":                {root, root + "/driver", root + "/inspect", root + "/internal/handshake", root + "/internal/lazyregexp", root + "/internal/sqlstate", root + "/internal/sqltext"},
		"inspect":              {root, root + "/driver", root + "/internal/handshake", root + "/internal/lazyregexp", root + "/internal/sqlstate", root + "/internal/sqltext", root + "/internal/termtext"},
		"prioritize":           {root, root + "/internal/signal", root + "/driver", root + "/internal/handshake", root + "/inspect", root + "/internal/query", root + "/internal/sqlstate", root + "/internal/sqltext", root + "/internal/termtext"},
		"inspect/httpannotate": {root + "/inspect"},
		"sqllock":              {root, root + "/driver", root + "/internal/handshake", root + "/internal/sqlstate", root + "/internal/redact", root + "/internal/sqltext"},
		"pgxlock":              {root, root + "/driver", root + "/internal/sqlstate", root + "/internal/redact", "github.com/jackc/pgx/v5"},
		"pglocktest":           {root, root + "/driver", root + "/internal/engine", root + "/internal/handshake"},

		"cmd/pglock/internal/top":    {root + "/driver", root + "/feed", root + "/inspect", root + "/internal/termtext", root + "/cmd/pglock/internal/render", "charm.land/bubbletea/v2", "github.com/charmbracelet/x/ansi"},
		"cmd/pglock/internal/render": {root, root + "/doctor", root + "/inspect", root + "/internal/termtext", root + "/trace"},
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
			if imported == "os" && dir == "cmd/pglock/internal/render" {
				t.Errorf("%s imports os: callers pass where to write", path)
			}
			if listed && imported == "testing" && dir != "pglocktest" {
				t.Errorf("%s imports testing, whose flags would be in its users' programs", path)
			}
			if dir != "cmd/pglock/internal/top" && (first == "charm.land" || strings.HasPrefix(imported, "github.com/charmbracelet/")) {
				t.Errorf("%s imports a terminal library, which only cmd/pglock/internal/top may", path)
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

// What only tests import is in a separate block of go.mod: users of the module do not get
// it.
func TestRequirements(t *testing.T) {
	const title = "// Only tests import these.\nrequire ("
	helpers := []string{"internal/pgserver/pgtest", "examples/internal/example"} // not _test.go, but only for tests
	imported := make(map[string]map[string]bool)                                 // by module, then by path: not only by tests
	modules := []string{"cmd/pglock", "examples", "stress", "tools", "."}
	goFiles(t, func(path string) {
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		dir := filepath.ToSlash(filepath.Dir(path))
		module := modules[slices.IndexFunc(modules, func(m string) bool { return m == "." || m == dir || strings.HasPrefix(dir, m+"/") })]
		if imported[module] == nil {
			imported[module] = make(map[string]bool)
		}
		for _, spec := range file.Imports {
			imports, name := imported[module], strings.Trim(spec.Path.Value, `"`)
			imports[name] = imports[name] || !strings.HasSuffix(path, "_test.go") && !slices.Contains(helpers, dir)
		}
	})
	found := 0
	for _, module := range modules {
		data, err := os.ReadFile(filepath.Join(module, "go.mod"))
		if err != nil {
			t.Fatal(err)
		}
		before, block, _ := strings.Cut(string(data), title)
		block, after, _ := strings.Cut(block, "\n)")
		check := func(lines string, onlyTests bool) {
			for _, m := range regexp.MustCompile(`(?m)^(?:require |\t)(\S+) v\S+$`).FindAllStringSubmatch(lines, -1) {
				found++
				used := false
				for name, otherwise := range imported[module] {
					used = used || otherwise && (name == m[1] || strings.HasPrefix(name, m[1]+"/"))
				}
				if used == onlyTests {
					t.Errorf("%s/go.mod: %s is in the wrong block: only tests import it: %v", module, m[1], !used)
				}
			}
		}
		check(before+after, false)
		check(block, true)
	}
	if found < 20 {
		t.Errorf("only %d requirements found", found)
	}
}

// ARCHITECTURE.md names every folder once.
func TestArchitecture(t *testing.T) {
	page, err := os.ReadFile("ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	var named []string
	for _, row := range regexp.MustCompile("(?m)^\\| (`[^|]*`) \\|").FindAllStringSubmatch(string(page), -1) {
		for _, folder := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(row[1], -1) {
			named = append(named, folder[1])
		}
	}
	folders := []string{".", "cmd/pglock"}
	for _, in := range []string{".", "internal"} {
		entries, err := os.ReadDir(in)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			path := filepath.ToSlash(filepath.Join(in, e.Name()))
			if e.IsDir() && !strings.HasPrefix(path, ".") && !slices.Contains([]string{"bin", "dist", "cmd", "internal"}, path) {
				folders = append(folders, path)
			}
		}
	}
	slices.Sort(named)
	slices.Sort(folders)
	if !slices.Equal(named, folders) {
		t.Errorf("the folders are\n%q, the page names\n%q", folders, named)
	}
}

// Every package says what it is for.
func TestPackageDocs(t *testing.T) {
	documented := map[string]bool{}
	goFiles(t, func(path string) {
		if strings.HasSuffix(path, "_test.go") {
			return
		}
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, data, parser.ParseComments|parser.PackageClauseOnly)
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

// Nothing in the SQL that runs in a fresh session, or in a session of the caller,
// depends on search_path: every operator, function and type is Postgres' own.
// The tests with pgtest.Shadow try that; this looks everywhere.
func TestSQLIsQualified(t *testing.T) {
	later := []string{ // run after settings.sql, which sets search_path
		"internal/engine/sql/batch.sql", "internal/engine/sql/cancel.sql", "internal/engine/sql/held.sql",
		"internal/engine/sql/one.sql", "internal/engine/sql/ping.sql",
		"internal/engine/sql/wait.sql", "internal/engine/sql/awaited.sql", "internal/engine/sql/holders.sql",
		"internal/engine/sql/queued.sql", "prioritize/poll.sql", "internal/engine/sql/lease/take.sql",
	}
	found := 0
	for _, pattern := range []string{"sql/*.sql", "internal/engine/sql/*.sql", "internal/engine/sql/lease/*.sql", "internal/handshake/*.sql", "sqllock/*.sql", "inspect/*.sql", "doctor/*.sql", "trace/*.sql", "internal/signal/*.sql", "prioritize/*.sql", "cmd/pglock/internal/cli/*.sql"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatal(pattern, files, err)
		}
		for _, name := range files {
			if slices.Contains(later, filepath.ToSlash(name)) {
				continue
			}
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			found++
			for _, fault := range unqualified(string(text)) {
				t.Errorf("%s: %s", name, fault)
			}
		}
	}
	if found < 10 {
		t.Errorf("only %d files found", found)
	}
	for _, name := range []string{"inspect/attribute.go", "inspect/lock.go", "inspect/activity.go"} { // expressions of SQL, in backquotes
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		found := 0
		ast.Inspect(file, func(n ast.Node) bool {
			if literal, ok := n.(*ast.BasicLit); ok && strings.HasPrefix(literal.Value, "`") {
				found++
				for _, fault := range unqualified(strings.Trim(literal.Value, "`")) {
					t.Errorf("%s: %s", name, fault)
				}
			}
			return true
		})
		if found == 0 {
			t.Errorf("%s has no SQL", name)
		}
	}
	for _, sql := range []string{
		"SELECT a = b", "SELECT a FROM t WHERE b IN (1)", "SELECT now()", "SELECT CAST(1 AS text)", "SELECT a::text",
		"SELECT NULLIF(a, b)", "SELECT a IS DISTINCT FROM b", "SELECT CASE a WHEN b THEN c END", "SELECT a LIKE b",
	} {
		if len(unqualified(sql)) == 0 {
			t.Errorf("nothing is found in %s", sql)
		}
	}
}

// unqualified is what search_path decides in a statement.
func unqualified(sql string) (faults []string) {
	// Assignments and the parameters of a table are no operators, and pglock's own names are
	// qualified.
	for _, cut := range []string{`--[^\n]*`, `LOCK TABLE [^;]*;`, `(?s)\) WITH \(.*?\);`, `\bpglock\.\w+`, `(SET|,)\s+\w+ = `, `:?E?'[^']*'`, `OPERATOR\(pg_catalog\.[^)]*\)`, `\w\.\*`, `count\(\*\)`, `\$\d+`} {
		sql = regexp.MustCompile(cut).ReplaceAllString(sql, " ; ")
	}
	if bare := regexp.MustCompile(`[^\n]*[-+*/<>=~!@#%^&|?:][^\n]*`).FindString(sql); bare != "" {
		faults = append(faults, "an operator, or a cast, that search_path decides: "+strings.TrimSpace(bare))
	}
	if bare := regexp.MustCompile(`(?i)[^\n]*\b(IN|LIKE|BETWEEN|NULLIF|GREATEST|LEAST|IS (NOT )?DISTINCT|CASE \S+ WHEN|JOIN [^\n]* USING)\b[^\n]*`).FindString(sql); bare != "" {
		faults = append(faults, "syntax that hides an operator: "+strings.TrimSpace(bare))
	}
	syntax := []string{
		"CAST", "COALESCE", "ROW", "EXTRACT", "EXISTS", "ANY", "ALL", "ARRAY", "VALUES", "AS", "AND", "OR", "NOT", "FROM", "WHERE", "SELECT",
		"LATERAL", "JOIN", "MATERIALIZED", "ON", "BY", "THEN", "WHEN", "FILTER",
		"KEY", "CONFLICT", "USING", "notified",
		"family", "below", "next", "b", "c", "e", "k", "m", "r", "s", "t", "u", "v", "w", "x",
	} // aliases with columns
	for _, call := range regexp.MustCompile(`([\w.]+)\s*\(`).FindAllStringSubmatch(sql, -1) {
		if f := call[1]; !strings.HasPrefix(f, "pg_catalog.") && !slices.Contains(syntax, f) {
			faults = append(faults, "the function "+f+" that search_path decides")
		}
	}
	for _, cast := range regexp.MustCompile(`\bAS ([\w.]+)(\[\])?\)`).FindAllStringSubmatch(sql, -1) {
		if len(cast[1]) > 1 && !strings.HasPrefix(cast[1], "pg_catalog.") { // one letter is an alias
			faults = append(faults, "the type "+cast[1]+" that search_path decides")
		}
	}
	for _, from := range regexp.MustCompile(`\b(?:FROM|JOIN) (pg_\w+)`).FindAllStringSubmatch(sql, -1) {
		if from[1] != "pg_catalog" {
			faults = append(faults, "the relation "+from[1]+" that search_path decides")
		}
	}
	return faults
}
