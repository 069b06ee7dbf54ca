//go:build unix

package doctest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
)

// imports has the packages that a block may use, by name.
var imports = map[string]string{
	"bun": "github.com/uptrace/bun", "gorm": "gorm.io/gorm",
	"doctor":       "github.com/pglock-go/pglock/doctor",
	"httpannotate": "github.com/pglock-go/pglock/inspect/httpannotate",
	"inspect":      "github.com/pglock-go/pglock/inspect",
	"pgxannotate":  "github.com/pglock-go/pglock/inspect/pgxannotate",
	"sqlannotate":  "github.com/pglock-go/pglock/inspect/sqlannotate",
	"pglock":       "github.com/pglock-go/pglock", "pgxlock": "github.com/pglock-go/pglock/pgxlock",
	"prioritize": "github.com/pglock-go/pglock/prioritize", "sqllock": "github.com/pglock-go/pglock/sqllock",
	"pgx": "github.com/jackc/pgx/v5", "pgxpool": "github.com/jackc/pgx/v5/pgxpool", "pgconn": "github.com/jackc/pgx/v5/pgconn",
	"context": "context", "errors": "errors", "exec": "os/exec", "fmt": "fmt", "log": "log", "http": "net/http", "os": "os",
	"reflect": "reflect", "slog": "log/slog", "sql": "database/sql", "strings": "strings", "time": "time",
}

// TestGo compiles all Go code in the guides and runs it if possible.
func TestGo(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	here, err := filepath.Abs(root + "/examples/internal/blocks")
	if err != nil {
		t.Fatal(err)
	}
	overlay := map[string]string{}
	add := func(name, source string) {
		file := filepath.Join(folder, strings.ReplaceAll(name, "/", "_"))
		if err := os.WriteFile(file, []byte(source), 0o600); err != nil {
			t.Fatal(err)
		}
		overlay[filepath.Join(here, name)] = file
	}

	known := worldMethods(t, here)
	var fragments, programs []*block
	table := &strings.Builder{}
	for _, p := range guides(t) {
		for _, b := range p.blocks(t, "go") {
			if path, ok := b.mark("from"); ok {
				checkExcerpt(t, b, path)
				continue
			}
			if strings.HasPrefix(b.text, "package ") {
				programs = append(programs, b)
				add(b.id()+"/main.go", b.text)
				continue
			}
			source, err := fragment(b, known)
			if err != nil {
				t.Errorf("%s: %v", b, err)
				continue
			}
			fragments = append(fragments, b)
			add("block_"+b.id()+".go", source)
			fmt.Fprintf(table, "%q: block_%s,\n", b.id(), b.id())
		}
	}
	add("none.go", "package main\n\nfunc blocks() map[string]func(*World) error {\nreturn map[string]func(*World) error{\n"+table.String()+"}\n}\n")
	if len(fragments) < 30 {
		t.Errorf("found only %d blocks of Go", len(fragments))
	}
	data, err := json.Marshal(map[string]any{"Replace": overlay})
	if err != nil {
		t.Fatal(err)
	}
	overlayFile := filepath.Join(folder, "overlay.json")
	if err := os.WriteFile(overlayFile, data, 0o600); err != nil {
		t.Fatal(err)
	}
	build := func(t *testing.T, name string) string {
		binary := filepath.Join(folder, "bin_"+strings.ReplaceAll(name, "/", "_"))
		cmd := exec.Command("go", "build", "-gcflags=-e", "-overlay", overlayFile, "-o", binary, "./"+name)
		cmd.Dir = here
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return binary
	}

	if t.Failed() {
		return
	}
	binary := build(t, "")
	for _, b := range fragments {
		reason, only := b.mark("compile")
		if only {
			if reason == "" {
				t.Errorf("%s: the mark compile needs a reason", b)
			}
			continue
		}
		t.Run(b.String(), func(t *testing.T) {
			t.Parallel()
			runGo(t, binary, b.id())
		})
	}
	for _, b := range programs {
		t.Run(b.String(), func(t *testing.T) {
			t.Parallel()
			binary := build(t, b.id())
			if _, only := b.mark("compile"); !only {
				runGo(t, binary)
			}
		})
	}
}

// checkExcerpt checks that a block is an excerpt of a file. The file has its own tests.
func checkExcerpt(t *testing.T, b *block, path string) {
	t.Helper()
	source, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Errorf("%s: %v", b, err)
	} else if !strings.Contains("\n"+string(source), "\n"+b.text) {
		t.Errorf("%s: the block is not an excerpt of %s", b, path)
	}
}

// runGo runs a program with its own database.
func runGo(t *testing.T, binary string, args ...string) {
	server := pgtest.Server(t)
	database := pgtest.DatabaseOn(t, server)
	dsn := server.ConnString(database)
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	_, err = conn.Exec(t.Context(), schema+pglock.LeaseSQL("pglock"))
	if err := conn.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, args...)
	bin := t.TempDir()
	linkExtras(t, bin)
	cmd.Env = append(os.Environ(), server.Env(database)...)
	cmd.Env = append(cmd.Env, "DATABASE_URL="+dsn, "PGLOCK_CONFIG="+configFile(t),
		"PATH="+bin+string(filepath.ListSeparator)+os.Getenv("PATH"))
	cmd.Dir = t.TempDir()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// schema creates the tables that the guides use.
const schema = `
CREATE SCHEMA app;
CREATE TABLE app.orders (id bigint PRIMARY KEY, state text, note text);
CREATE TABLE app.order_items (id bigint PRIMARY KEY, "order" bigint);
INSERT INTO app.orders VALUES (1, 'new'), (2, 'new');
CREATE TABLE orders (id bigint PRIMARY KEY, state text);
CREATE TABLE items (id bigint PRIMARY KEY, "order" bigint);
CREATE TABLE users (id bigint PRIMARY KEY);
CREATE TABLE accounts (id bigint PRIMARY KEY, balance bigint NOT NULL);
INSERT INTO orders VALUES (1, 'new'), (2, 'new');
CREATE TABLE objects (id bigint PRIMARY KEY, data text, fence bigint NOT NULL DEFAULT 0);
INSERT INTO accounts VALUES (1, 100), (2, 100);`

// worldMethods returns the methods of World by lower-case name. A block may use these
// names without declaring them.
func worldMethods(t *testing.T, folder string) map[string]string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(folder, "world.go"), nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]string{}
	for _, d := range file.Decls {
		if f, ok := d.(*ast.FuncDecl); ok && f.Recv != nil && f.Name.IsExported() {
			known[strings.ToLower(f.Name.Name)] = f.Name.Name
		}
	}
	if known["pool"] == "" {
		t.Fatal("World has no method Pool")
	}
	return known
}

const (
	before = "package main\nfunc _() error {\n"
	after  = "\nreturn nil\n}\n"
)

// fragment returns the source of a Go file for a block: a function that declares the
// names that the block does not declare, and contains the block.
func fragment(b *block, known map[string]string) (string, error) {
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, "", before+b.text+after, parser.SkipObjectResolution)
	if err != nil {
		return "", err
	}
	body := file.Decls[0].(*ast.FuncDecl).Body

	used := map[string]bool{}     // all names in the block
	declared := map[string]bool{} // names that it declares before it uses them
	ast.Inspect(body, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.AssignStmt:
			for _, left := range n.Lhs {
				if id, ok := left.(*ast.Ident); ok && n.Tok == token.DEFINE && !used[id.Name] && !reads(n, id.Name) {
					declared[id.Name] = true
				}
			}
		case *ast.Ident:
			used[n.Name] = true
		}
		return true
	})
	var given strings.Builder
	needed := map[string]bool{"errors": true}
	for name := range used {
		if method := known[strings.ToLower(name)]; method != "" && !declared[name] && imports[name] == "" && token.IsIdentifier(name) && !token.IsExported(name) {
			for _, m := range b.marks {
				if variable, value, ok := strings.Cut(m.word, "="); ok && variable == name {
					method = value
				}
			}
			fmt.Fprintf(&given, "%s := w.%s()\n_ = %[1]s\n", name, method)
		}
		if imports[name] != "" {
			needed[name] = true
		}
	}
	var list []string
	for name := range needed {
		list = append(list, fmt.Sprintf("%q", imports[name]))
	}
	slices.Sort(list)

	code := edit(b.text, body, files)
	return fmt.Sprintf("package main\n\nimport (\n%s\n)\n\nvar _ = errors.New\n\nfunc block_%s(w *World) error {\nvar err error\n_ = err\n%s{\n//line %s:%d\n%s\n}\nreturn nil\n}\n",
		strings.Join(list, "\n"), b.id(), given.String(), absolute(b.page.path), b.line, code), nil
}

func absolute(path string) string {
	full, err := filepath.Abs(filepath.Join(root, path))
	if err != nil {
		return path
	}
	return full
}

// edit returns source with two changes, on the same lines: declared variables may be
// unused, and an err that the next statement does not check ends the block.
func edit(source string, body *ast.BlockStmt, files *token.FileSet) string {
	inserts := map[int]string{} // text to insert, by offset
	at := func(pos token.Pos) int { return files.Position(pos).Offset - len(before) }
	ast.Inspect(body, func(n ast.Node) bool {
		var list []ast.Stmt
		switch n := n.(type) {
		case *ast.BlockStmt:
			list = n.List
		case *ast.CaseClause:
			list = n.Body
		case *ast.CommClause:
			list = n.Body
		}
		for i, stmt := range list {
			var names []*ast.Ident
			assigned := false
			switch stmt := stmt.(type) {
			case *ast.AssignStmt:
				for _, left := range stmt.Lhs {
					id, ok := left.(*ast.Ident)
					if !ok || id.Name == "_" {
						continue
					}
					assigned = assigned || id.Name == "err"
					if stmt.Tok == token.DEFINE {
						names = append(names, id)
					}
				}
			case *ast.DeclStmt:
				for _, spec := range stmt.Decl.(*ast.GenDecl).Specs {
					if value, ok := spec.(*ast.ValueSpec); ok {
						names = append(names, value.Names...)
					}
				}
			default:
				continue
			}
			text := ""
			for _, id := range names {
				text += "; _ = " + id.Name
			}
			if assigned && n == ast.Node(body) {
				next := i + 1 // it exists: the added "return nil"
				for ; ; next++ {
					if _, declares := list[next].(*ast.DeclStmt); !declares {
						break
					}
				}
				if !reads(list[next], "err") {
					text += `; if err != nil { return err }`
				}
			}
			inserts[at(stmt.End())] = text
		}
		return true
	})
	var out strings.Builder
	for i := 0; i <= len(source); i++ {
		out.WriteString(inserts[i])
		if i < len(source) {
			out.WriteByte(source[i])
		}
	}
	return out.String()
}

// reads reports whether a statement reads a variable, not only assigns it.
func reads(stmt ast.Stmt, name string) bool {
	found := false
	ast.Inspect(stmt, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.AssignStmt:
			for _, right := range n.Rhs {
				found = found || reads(&ast.ExprStmt{X: right}, name)
			}
			return false
		case *ast.FuncLit:
			return false // it has its own variables
		case *ast.Ident:
			found = found || n.Name == name
		}
		return true
	})
	return found
}

// fragment allows an unused variable, and ends the block at an unchecked err.
func TestFragment(t *testing.T) {
	p := &page{path: "x.md"}
	b := &block{page: p, line: 1, seen: map[string]bool{}, text: "one, err := pool.Begin(ctx)\nerr = one.Rollback(ctx)\nif err != nil {\n\treturn err\n}"}
	source, err := fragment(b, map[string]string{"pool": "Pool", "ctx": "Ctx"})
	if err != nil {
		t.Fatal(err)
	}
	formatted, err := format.Source([]byte(source))
	if err != nil {
		t.Fatalf("%v\n%s", err, source)
	}
	if n := bytes.Count(formatted, []byte("if err != nil")); n != 2 {
		t.Errorf("%d checks of err, want 2:\n%s", n, formatted)
	}
	for _, want := range []string{`pool := w\.Pool\(\)`, `_ = one`, `//line .*x\.md:1`} {
		if !regexp.MustCompile(want).Match(formatted) {
			t.Errorf("%s is missing in\n%s", want, formatted)
		}
	}
}
