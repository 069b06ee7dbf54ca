package pglock_test

import (
	"go/ast"
	"go/doc"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"
)

// Every function or method that takes a ctx has its own executed example; every other
// exported one, such as an option, is used in an example. Exceptions are listed here,
// with the reason.
func TestEveryVerbHasAnExample(t *testing.T) {
	without := map[string]string{
		"Error.Unwrap":            "errors.Is and errors.As call it",
		"prioritize.Error.Unwrap": "errors.Is and errors.As call it",

		"trace.StatementError.Unwrap": "errors.Is and errors.As call it",

		"inspect.Context.MarshalJSON": "encoding/json calls it",
	}
	for _, dir := range []string{".", "inspect", "feed", "prioritize", "doctor", "trace", "pgxlock", "sqllock", "inspect/pgxannotate", "inspect/sqlannotate", "inspect/httpannotate"} {
		own, used := map[string]bool{}, map[string]bool{}
		type exported struct {
			name string
			verb bool
		}
		var all []exported
		for name, file := range goFilesOf(t, dir) {
			if strings.HasSuffix(name, "_test.go") {
				for _, e := range doc.Examples(file) {
					if e.Output == "" && !e.EmptyOutput {
						continue // compiled, but not run
					}
					name := e.Name
					if isSuffix(name) {
						name = name[:strings.LastIndex(name, "_")]
					}
					own[name] = true
					ast.Inspect(e.Code, func(n ast.Node) bool {
						if selector, ok := n.(*ast.SelectorExpr); ok {
							used[selector.Sel.Name] = true
						}
						return true
					})
				}
				continue
			}
			for _, decl := range file.Decls {
				f, ok := decl.(*ast.FuncDecl)
				if !ok || !f.Name.IsExported() {
					continue
				}
				name := f.Name.Name
				if f.Recv != nil {
					of := receiver(f.Recv.List[0].Type)
					if !ast.IsExported(of) {
						continue
					}
					name = of + "_" + name
				}
				all = append(all, exported{name, takesContext(f)})
			}
		}
		sort.Slice(all, func(i, j int) bool { return all[i].name < all[j].name })
		for _, e := range all {
			key := strings.TrimPrefix(dir+".", "..") + strings.Replace(e.name, "_", ".", 1)
			shown := own[e.name]
			if !e.verb {
				shown = shown || used[e.name[strings.Index(e.name, "_")+1:]]
			}
			_, excused := without[key]
			if !shown && !excused {
				t.Errorf("%s has no executed example", key)
			}
			if shown && excused {
				t.Errorf("%s has an example, and need not be listed", key)
			}
		}
		if len(all) == 0 {
			t.Errorf("%s has no functions", dir)
		}
	}
}

// takesContext reports whether the first parameter of a function is a ctx.
func takesContext(f *ast.FuncDecl) bool {
	if len(f.Type.Params.List) == 0 {
		return false
	}
	selector, ok := f.Type.Params.List[0].Type.(*ast.SelectorExpr)
	return ok && selector.Sel.Name == "Context"
}

// isSuffix reports whether the last part of an example's name is a suffix, which begins
// with a lower-case letter, and not a method.
func isSuffix(name string) bool {
	i := strings.LastIndex(name, "_")
	return i >= 0 && i+1 < len(name) && strings.ToLower(name[i+1:i+2]) == name[i+1:i+2]
}

func goFilesOf(t *testing.T, dir string) map[string]*ast.File {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]*ast.File{}
	for _, name := range names {
		source, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, source, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		files[name] = file
	}
	return files
}

func receiver(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.StarExpr:
		return receiver(e.X)
	case *ast.IndexExpr:
		return receiver(e.X)
	case *ast.Ident:
		return e.Name
	}
	return ""
}
