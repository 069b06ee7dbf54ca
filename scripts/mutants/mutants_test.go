package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The list fits the current tree: each text occurs exactly once, and each test exists.
func TestList(t *testing.T) {
	mutants, err := parse(list)
	if err != nil {
		t.Fatal(err)
	}
	if err := check("../..", mutants); err != nil {
		t.Error(err)
	}
	if len(mutants) < 30 {
		t.Errorf("the list has only %d mutants", len(mutants))
	}
}

// An error names the mutant and the mistake.
func TestWrongLists(t *testing.T) {
	const good = "mutant a\nwhy b\nfile c.go\ntest ./d TestE/f\n-old\n+new\n"
	for _, test := range []struct{ old, new, want string }{
		{"mutant a", "mutant A b", `"A b" is not a valid name`},
		{"why b\n", "", "mutant a needs a why line"},
		{"-old\n", "", "mutant a needs a why line"},
		{"+new", "+old", "mutant a changes nothing"},
		{"./d TestE/f", "d TestE", "mutant a: the test line"},
		{"./d TestE/f", "./d Example", "mutant a: the test line"},
		{"why b", "because b", `mutant a: unknown keyword "because"`},
		{"+new\n", "+new\n\n" + good, "duplicate mutant a"},
	} {
		if _, err := parse(strings.Replace(good, test.old, test.new, 1)); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("with %q for %q: got %v, want %q", test.new, test.old, err, test.want)
		}
	}

	mutants, err := parse("# A comment.\n\n" + good + "\n\n# Another.\n")
	if err != nil || len(mutants) != 1 {
		t.Fatal(mutants, err)
	}
	if want := (mutant{"a", "b", "c.go", "./d", "TestE/f", "old", "new"}); mutants[0] != want {
		t.Errorf("got %+v, want %+v", mutants[0], want)
	}
	if _, err := named(mutants, "b"); err == nil {
		t.Error("mutant b does not exist, but was returned")
	}
}

// The outcomes of mutants of a tiny program, and of lists that do not fit it.
func TestMutate(t *testing.T) {
	tree := t.TempDir()
	for name, text := range map[string]string{
		"go.mod": "module small\n\ngo 1.25.0\n",
		"a.go":   "package small\n\nfunc double(n int) int { return 2 * n }\n\nfunc twice(n int) int { return n + n }\n",
		"a_test.go": "package small\n\nimport \"testing\"\n\n" +
			"func TestDouble(t *testing.T) {\n\tif double(3) != 6 {\n\t\tt.Error(double(3))\n\t}\n}\n\n" +
			"func TestFails(t *testing.T) { t.Error(1) }\n\nfunc TestSkips(t *testing.T) { t.Skip() }\n",
	} {
		if err := os.WriteFile(filepath.Join(tree, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("GOWORK", "off")
	r, err := newRunner(tree, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()

	double := mutant{"double", "why", "a.go", ".", "TestDouble", "2 * n", "3 * n"}
	with := func(change func(*mutant)) mutant { m := double; change(&m); return m }
	for _, test := range []struct {
		name string
		m    mutant
		want outcome
	}{
		{"one that is caught", double, killed},
		{"one that runs on", with(func(m *mutant) { m.new = "func() int { select {} }()" }), timedOut},
		{"one that no test covers", with(func(m *mutant) { m.old, m.new = "n + n", "n" }), survived},
		{"one that does not compile", with(func(m *mutant) { m.new = "x" }), broken},
		{"a test that is skipped", with(func(m *mutant) { m.test = "TestSkips" }), broken},
	} {
		r.limit = time.Minute
		if test.want == timedOut {
			r.limit = 100 * time.Millisecond
		}
		got, detail := r.run(t.Context(), test.m)
		if got != test.want {
			t.Errorf("%s: %s, want %s\n%s", test.name, got, test.want, detail)
		}
	}
	if text, err := os.ReadFile(filepath.Join(tree, "a.go")); err != nil || !strings.Contains(string(text), "2 * n }") {
		t.Errorf("the file was not restored: %s %v", text, err)
	}
	if err := r.unchanged(t.Context(), []mutant{with(func(m *mutant) { m.test = "TestFails" })}); err == nil {
		t.Error("a test that fails without a mutant was accepted")
	}

	for name, m := range map[string]mutant{
		"0 times":   with(func(m *mutant) { m.old = "4 * n" }),
		"2 times":   with(func(m *mutant) { m.old = "(n int) int" }),
		"no test T": with(func(m *mutant) { m.test = "TestNothing" }),
		"b.go":      with(func(m *mutant) { m.file = "b.go" }),
	} {
		if err := check(tree, []mutant{m}); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("got %v, want %q", err, name)
		}
	}
}
