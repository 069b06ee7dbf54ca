package config_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pglock-go/pglock/cmd/pglock/internal/config"
)

const example = `# What the team looks at.
defaults:
  database: prod
  limit: 50
  blocking_attributes: [pid, blocking_pid, target]
databases:
  prod: postgres://app@db.example.com/shop
  stage:
    host: stage.example.com
    port: 5433
    dbname: shop
views:
  stuck:
    description: waits of more than five seconds
    filters:
      - wait_duration > 5s
      - application ~ ^web
    tables: orders
    attributes: [pid, wait_duration, query]
    limit: 0
    expanded: yes please
`

func TestParse(t *testing.T) {
	text := strings.ReplaceAll(example, "yes please", "true")
	c, err := config.Parse("x.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	v, err := c.View("stuck")
	if err != nil {
		t.Fatal(err)
	}
	if got := len(v.Filters()); got != 3 {
		t.Errorf("%d filters: %v", got, v.Filters())
	}
	if v.Limit == nil || *v.Limit != 0 || v.Expanded == nil || !*v.Expanded || v.Blocking != nil || v.IsBlocking() ||
		strings.Join(v.Attributes, " ") != "pid wait_duration query" || v.LineOf("limit") != 20 || v.LineOf("yes") != 0 {
		t.Errorf("%+v", v)
	}
	if c.Defaults.Database != "prod" || *c.Defaults.Limit != 50 || len(c.Defaults.BlockingAttributes) != 3 {
		t.Errorf("%+v", c.Defaults)
	}
	if d, ok := c.Database("stage"); !ok || len(d.Settings) != 3 || d.Settings[1] != (config.Setting{Name: "port", Value: "5433"}) {
		t.Errorf("%+v", d)
	}
	if d, ok := c.Database("prod"); !ok || d.ConnString != "postgres://app@db.example.com/shop" || d.Line != 7 {
		t.Errorf("%+v", d)
	}
	if _, err := c.View("no"); err == nil || !strings.Contains(err.Error(), "x.yaml has stuck") {
		t.Error(err)
	}
}

// An alias has the value of its anchor.
func TestAliases(t *testing.T) {
	c, err := config.Parse("x", []byte("views:\n  a: {filters: &f [pid = 1]}\n  b: {filters: *f}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if v, _ := c.View("b"); len(v.Filters()) != 1 {
		t.Errorf("%+v", v)
	}
}

func TestErrors(t *testing.T) {
	for text, want := range map[string]string{
		"viewz: {}":                            `x.yaml:1: a config file has no key "viewz": there are defaults, databases, views`,
		"- a":                                  "x.yaml:1: a config file must be a mapping, not a list",
		"nonsense":                             `x.yaml:1: a config file must be a mapping, not "nonsense"`,
		"a: b: c":                              "x.yaml:1: not YAML: mapping values are not allowed",
		"views:\n\ta: 1":                       "x.yaml:2: not YAML: ",
		"\x00":                                 "x.yaml:1: not YAML: ",
		"# a\n# \x07":                          "x.yaml:2: not YAML: ",
		"views:\n  a:\n    filter: x":          `x.yaml:3: a view has no key "filter": there are database, attributes,`,
		"views:\n  a:\n    filters: [pid = x]": `x.yaml:3: the filter "pid = x": pid: "x" is not a whole number`,
		"views:\n  a:\n    filters:\n    - pid=1\n    - color=red": `x.yaml:5: the filter "color = red": there is no field "color": there are pid, type`,
		"views: {a: {filters: [block = hard]}}":                    "only pairs have that",
		"views: {a: {filters: [blocking_pid=1]}}":                  "only pairs have that",
		"views: {a: {filters: {pid: 1}}}":                          "each of the filters must be text, not a mapping",
		"views: {a: {filters: ['']}}":                              "each of the filters is empty",
		"views: {a: {attributes: [size]}}":                         `attributes: there is no attribute "size": there are pid`,
		"views: {a: {attributes: [blocking_pid]}}":                 "move it to blocking_attributes",
		"defaults:\n  attributes: block":                           "x.yaml:2: attributes: only pairs have block",
		"views: {a: {limit: -1}}":                                  `limit must be a number (0 for all), not "-1"`,
		"views: {a: {limit: many}}":                                `not "many"`,
		"views: {a: {limit: 1.5}}":                                 `not "1.5"`,
		"views: {a: {limit: 99999999999999999999}}":                "limit must be a number",
		"views: {a: {blocking: 1}}":                                `blocking must be true or false, not "1"`,
		"views: {a: {expanded: }}":                                 "expanded must be true or false, not null",
		"views: {a: {output: yaml}}":                               `the formats are table, tsv, csv, json, not "yaml"`,
		"views: {a: {tables: [[x]]}}":                              "each of the tables must be text, not a list",
		"views: {'a b': {}}":                                       `"a b" is not a name for a view`,
		"views:\n  a: {}\n  b: {}\n  a: {}":                        `x.yaml:4: "a" is already on line 2`,
		"views: {[a]: {}}":                                         "a key must be a word, not a list",
		"views: [a]":                                               "views must be a mapping, not a list",
		"databases: {a=b: x}":                                      "is not a name for a database",
		"databases: {a: [x]}":                                      "a database must be text, not a list",
		"databases: {a: {Host: x}}":                                `"Host" is not a connection setting`,
		"databases: {a: {host: {b: c}}}":                           "host must be text, not a mapping",
		"databases: {a: }":                                         "a database must be text, not null",
		"defaults: {filters: [pid = 1]}":                           `defaults has no key "filters"`,
		"a: 1\n---\nb: 2":                                          "x.yaml:2: a second YAML document",
		"views: &v {a: *v}":                                        "x.yaml",
		"views: {<<: {a: {}}}":                                     `"<<" is not a name for a view`,
		"views: {" + strings.Repeat("x", 500) + ": {l: 1}}":        "…",
	} {
		_, err := config.Parse("x.yaml", []byte(text))
		var e *config.Error
		if !errors.As(err, &e) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		} else if strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: several lines: %v", text, err)
		}
	}
	for _, text := range []string{"", "# nothing", "views:", "views: {a: }", "defaults: ~", "{}"} {
		if _, err := config.Parse("x.yaml", []byte(text)); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	t.Setenv("PGLOCK_CONFIG", "")
	t.Setenv("HOME", dir)
	t.Setenv("XDG_CONFIG_HOME", filepath.Join(dir, "home"))
	write := func(path, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	load := func(path, wantPath, wantFrom string) {
		t.Helper()
		c, err := config.Load(path)
		if err != nil || c.Path != wantPath || c.From != wantFrom {
			t.Errorf("%+v, %v, want %s", c, err, wantPath)
		}
	}
	load("", "", "")
	places := config.Places()
	write(places[1], "")
	load("", places[1], "user's config folder")
	write("pglock.yaml", "")
	load("", "pglock.yaml", "current folder")
	write("mine.yaml", "")
	t.Setenv("PGLOCK_CONFIG", "mine.yaml")
	load("", "mine.yaml", "PGLOCK_CONFIG")
	load(os.DevNull, os.DevNull, "named")

	write("large.yaml", strings.Repeat("# a comment\n", 1<<20))
	for path, want := range map[string]string{
		"none.yaml":  "none.yaml: the config file cannot be read: no such file or directory",
		dir:          "is a directory",
		"large.yaml": "larger than 1 MiB",
	} {
		if _, err := config.Load(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", path, err)
		}
	}
	t.Setenv("PGLOCK_CONFIG", "none.yaml")
	if _, err := config.Load(""); err == nil {
		t.Error("a file that is named and not there is no error")
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		example, "views: {a: {filters: [block = hard], blocking: true}}", "views: &v {a: *v}", "a: 1\n---\nb: 2",
		"databases: {a: {host: x}, b: 'k=v'}", "defaults: {limit: 3, output: csv}", "? [a]\n: b", "!!binary x", "{[[[[[[", "<<: *a", "views: {a: &x [*x]}",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := config.Parse("x.yaml", data)
		if err != nil {
			var e *config.Error
			if c != nil || !errors.As(err, &e) || e.Text == "" {
				t.Fatalf("%v, %v", c, err)
			}
			return
		}
		for _, v := range c.Views {
			for _, f := range v.Filters() {
				if f.Err() != nil {
					t.Fatal(f.Err())
				}
			}
		}
	})
}

// The file in the guide is valid.
func TestGuide(t *testing.T) {
	guide, err := os.ReadFile("../../../../docs/config.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(guide), "```yaml\n")
	text, _, ok := strings.Cut(rest, "```")
	if !ok {
		t.Fatal("the guide shows no file")
	}
	c, err := config.Parse("docs/config.md", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Views) != 3 || len(c.Databases) != 2 {
		t.Errorf("%+v", c)
	}
}
