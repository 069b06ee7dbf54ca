package config_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"unicode"

	"github.com/pglock-go/pglock/cmd/pglock/internal/config"
)

// Invalid input is an error with the file and the line, and parsing takes no more
// memory than a file of its size may. (Extra time would show in the memory too: the
// nodes behind aliases are built before they are thrown away.)
func TestNonsense(t *testing.T) {
	big := func(s string) string { return strings.Repeat(s, (1<<18)/len(s)) }
	laughs := "a: &a [x,x,x,x,x,x,x,x,x]\n"
	for c := 'b'; c < 'l'; c++ {
		laughs += fmt.Sprintf("%c: &%[1]c [*%[2]c,*%[2]c,*%[2]c,*%[2]c,*%[2]c,*%[2]c,*%[2]c,*%[2]c,*%[2]c]\n", c, c-1)
	}
	var views, databases strings.Builder
	views.WriteString("views:\n  v: &v {filters: &f [" + strings.Repeat("pid=1,", 40_000) + "]}\n")
	databases.WriteString("databases:\n  d: &d {" + manySettings(10_000) + "}\n")
	for i := range 20_000 {
		fmt.Fprintf(&views, "  v%d: *v\n", i)
		fmt.Fprintf(&databases, "  d%d: *d\n", i)
	}
	for name, text := range map[string]string{
		"deep lists":      big("["),
		"deep maps":       big("{a: "),
		"deep blocks":     deepBlocks(1400),
		"deep views":      "views: " + big("["),
		"laughs":          laughs,
		"many views":      views.String(),
		"many databases":  databases.String(),
		"a list":          big("- x\n"),
		"a word":          big("x"),
		"one quote":       `"` + big("x"),
		"escapes":         `"` + big(`\x41`) + `"`,
		"keys":            manyKeys(60_000),
		"binary":          big("\x00\x01\xff\x7fELF"),
		"random":          big("\u0085\u2028%&*!|>'\"@`"),
		"anchors":         big("&a "),
		"tags":            big("!a "),
		"questions":       big("? "),
		"colons":          big(": "),
		"dashes":          big("- "),
		"documents":       big("---\n"),
		"directives":      big("%YAML 1.1\n"),
		"folded":          "views: >\n" + big("  x\n"),
		"merges":          "views: {<<: &a {<<: *a}}",
		"circle":          "&a views: *a",
		"circle of lists": "views: &v {a: {filters: &f [*f]}}",
		"ESC":             "views: \x1b[31m",
		"ESC in quotes":   `"\e[31m\u202e": x`,
		"NUL in a table":  `views: {v: {tables: "a\0b"}}`,
		"NUL in a filter": `views: {v: {filters: "user = \0"}}`,
		"no such anchor":  "databases: {a: *hunter2}",
		"UTF-16":          "\xff\xfev\x00i\x00e\x00w\x00",
		"half a UTF-8":    "views: {a: {description: \xc3}}",
		"duplicate":       "views:\n  a: {}\n\n  a: {}",
		"password, list":  "databases: postgres://u:hunter2@h/d",
		"password, key":   "databases: {'postgres://u:hunter2@h/d': x}",
		"password, twice": "databases: {a: {password: hunter2, password: hunter2}}",
		"password, where": "defaults: host=h password=hunter2",
		"password, deep":  "databases: {a: {password: {hunter2: x}}}",
		"password, all":   "postgres://u:hunter2@h/d",
	} {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := config.Parse("x.yaml", []byte(text))
			runtime.ReadMemStats(&after)
			if mb := (after.TotalAlloc - before.TotalAlloc) >> 20; mb > 600 {
				t.Errorf("%d MB", mb)
			}
			var e *config.Error
			if !errors.As(err, &e) || e.Line == 0 || !strings.HasPrefix(err.Error(), "x.yaml:") {
				t.Fatalf("%.300q", fmt.Sprint(err))
			}
			if len(err.Error()) > 1000 || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%d bytes: %.300q", len(err.Error()), err.Error())
			}
			if strings.ContainsFunc(err.Error(), func(r rune) bool { return unicode.IsControl(r) || unicode.Is(unicode.Cf, r) }) {
				t.Errorf("%q", err)
			}
		})
	}
}

func deepBlocks(depth int) string {
	var b strings.Builder
	for i := range depth {
		b.WriteString(strings.Repeat(" ", i) + "a:\n")
	}
	return b.String()
}

func manyKeys(n int) string {
	var b strings.Builder
	b.WriteString("databases:\n")
	for i := range n {
		fmt.Fprintf(&b, "  k%d: x\n", i)
	}
	return b.String()
}

func manySettings(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "k%d: x,", i)
	}
	return b.String()
}

// Files from editors of other systems are valid.
func TestForms(t *testing.T) {
	const text = "views:\n  v:\n    limit: 3\n    tables:\n      - t\n"
	utf16 := "\xff\xfe"
	for _, c := range text {
		utf16 += string([]byte{byte(c), 0})
	}
	for name, data := range map[string]string{
		"plain": text, "BOM": "\ufeff" + text, "CRLF": strings.ReplaceAll(text, "\n", "\r\n"), "UTF-16": utf16, "no end": strings.TrimSpace(text),
	} {
		c, err := config.Parse("x.yaml", []byte(data))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		v, err := c.View("v")
		if err != nil || *v.Limit != 3 || len(v.Tables) != 1 || v.Tables[0] != "t" || v.LineOf("limit") != 3 {
			t.Errorf("%s: %+v, %v", name, v, err)
		}
	}
}

// Something that is not a file of limited size is not read.
func TestLoadNoFile(t *testing.T) {
	dir := t.TempDir()
	below := filepath.Join(dir, "file", "below")
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{dir: "is a directory", below: "not a directory", "": "", "a\x00b": "invalid argument"} {
		if path == "" {
			continue
		}
		if _, err := config.Load(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", path, err)
		}
	}
}
