package trace_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pglock-go/pglock/trace"
)

// statements returns the statements of a text.
func statements(t *testing.T, name, text string, options ...trace.ParseOption) []string {
	t.Helper()
	script, err := trace.Parse(name, text, options...)
	if err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	var all []string
	for _, p := range script.Pieces {
		all = append(all, p.SQL)
	}
	return all
}

// splits are texts, and the statements in them.
func splits() map[string][]string {
	return map[string][]string{
		"":                                      nil,
		"  \n-- nothing\n/* at /* all */ */ ;;": nil,
		"SELECT 1; SELECT 2":                    {"SELECT 1", "SELECT 2"},
		"\ufeffSELECT 1;":                       {"SELECT 1"},
		"SELECT ';', \"a;b\", 'it''s;';SELECT 2;":         {`SELECT ';', "a;b", 'it''s;'`, "SELECT 2"},
		`SELECT E'\';', e'\\';SELECT 2`:                   {`SELECT E'\';', e'\\'`, "SELECT 2"},
		`SELECT '\'; SELECT '2'`:                          {`SELECT '\'`, `SELECT '2'`},
		"SELECT E'a'\n  '\\';'; SELECT 2":                 {"SELECT E'a'\n  '\\';'", "SELECT 2"},
		"SELECT E'a' -- more;\n '\\';'; SELECT 2":         {"SELECT E'a' -- more;\n '\\';'", "SELECT 2"},
		`SELECT typee'\'; SELECT 2`:                       {`SELECT typee'\'`, "SELECT 2"},
		`SELECT U&'\0061;', B'1', x'1F', N'a;'; SELECT 2`: {`SELECT U&'\0061;', B'1', x'1F', N'a;'`, "SELECT 2"},
		"SELECT 1 -- one; two\n+ 1; SELECT 3":             {"SELECT 1 -- one; two\n+ 1", "SELECT 3"},
		"SELECT 1 /* ; /* ; */ ; */ + 1; SELECT 3":        {"SELECT 1 /* ; /* ; */ ; */ + 1", "SELECT 3"},
		"DO $$BEGIN; END$$; SELECT 2":                     {"DO $$BEGIN; END$$", "SELECT 2"},
		"DO $a$ $$;$b$ $a$; SELECT 2":                     {"DO $a$ $$;$b$ $a$", "SELECT 2"},
		"DO $ä$;$ä$; SELECT 2":                            {"DO $ä$;$ä$", "SELECT 2"},
		"SELECT a$b$ FROM c; SELECT $1; SELECT d$b$":      {"SELECT a$b$ FROM c", "SELECT $1", "SELECT d$b$"},
		"CREATE RULE r AS ON INSERT TO t DO (SELECT 1; SELECT 2); SELECT 3": {
			"CREATE RULE r AS ON INSERT TO t DO (SELECT 1; SELECT 2)", "SELECT 3",
		},
		"CREATE OR REPLACE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; SELECT 2; END; SELECT 3": {
			"CREATE OR REPLACE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; SELECT 2; END", "SELECT 3",
		},
		"CREATE PROCEDURE p() BEGIN ATOMIC SELECT 1 AS end; SELECT 2; END; SELECT 3": {
			"CREATE PROCEDURE p() BEGIN ATOMIC SELECT 1 AS end; SELECT 2; END", "SELECT 3",
		},
		"BEGIN; SELECT CASE WHEN a THEN 1 END; END; SELECT 1": {"BEGIN", "SELECT CASE WHEN a THEN 1 END", "END", "SELECT 1"},
		"SELECT a[1:2], b::int, 1 @-- ;\n 2; SELECT 3":        {"SELECT a[1:2], b::int, 1 @-- ;\n 2", "SELECT 3"},
		"SELECT '; SELECT 2":                                  {"SELECT '; SELECT 2"},
		"SELECT $$; SELECT 2":                                 {"SELECT $$; SELECT 2"},
		"/* ; SELECT 2":                                       {"/* ; SELECT 2"},
		"\\set v 'a b'\n\\set t orders\n\\echo done;\nSELECT :'v', :\"t\", x::int, :w FROM :t; SELECT 2": {
			`SELECT 'a b', "orders", x::int, :w FROM orders`, "SELECT 2",
		},
		"\\restrict abc\nSELECT 1;\n\\unrestrict abc\n": {"SELECT 1"},
		"COPY t FROM stdin;\n1\t;\n\\.\nSELECT 2;":      {"COPY t FROM stdin", "SELECT 2"},
		"COPY t (a) FROM STDIN WITH (FORMAT csv);\r\n1;2\r\n\\.\r\nSELECT 2;": {
			"COPY t (a) FROM STDIN WITH (FORMAT csv)", "SELECT 2",
		},
		"COPY t TO stdout; SELECT 2":                      {"COPY t TO stdout", "SELECT 2"},
		"SET standard_conforming_strings = on; SELECT 1;": {"SET standard_conforming_strings = on", "SELECT 1"},
	}
}

func TestSplit(t *testing.T) {
	for text, want := range splits() {
		if strings.HasPrefix(text, "\\set a 1\n\\set b") {
			continue // refused
		}
		if got := statements(t, "f.sql", text); !slices.Equal(got, want) {
			t.Errorf("%q:\ngot  %q\nwant %q", text, got, want)
		}
	}
}

func TestCopyData(t *testing.T) {
	script, err := trace.Parse("f.sql", "COPY a FROM stdin; -- rows\n1\n2\n\\.\n\nCOPY b FROM stdin;\n\\.\nCOPY c FROM stdin;\nlast")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range script.Pieces {
		if !p.Copy {
			t.Errorf("%q is no COPY", p.SQL)
		}
		got = append(got, p.Data)
	}
	if want := []string{"1\n2\n", "", "last\n"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// What would be a guess is refused, with its line.
func TestRefused(t *testing.T) {
	for text, want := range map[string]string{
		"SELECT 1;\n\\gexec\n":                          `f.sql:2: \gexec is psql's`,
		"SELECT 1\n\\gset x\n":                          `f.sql:2: \gset in a statement`,
		"SELECT 1 \\; SELECT 2;":                        `f.sql:1: \ in a statement`,
		"\\set a `date`\n":                              `f.sql:1: \set: these arguments`,
		"\\set a :b\n":                                  `f.sql:1: \set: these arguments`,
		"\\set b it's\n":                                `f.sql:1: \set: these arguments`,
		"\\set AUTOCOMMIT off\n":                        `f.sql:1: \set AUTOCOMMIT`,
		"\\set v '; DROP TABLE t'\nSELECT :v;":          "f.sql:2: the variable v",
		"\n\\if true\n":                                 `f.sql:2: \if is psql's`,
		"\\i missing.sql\n":                             "f.sql:1: open missing.sql",
		"\\i\n":                                         `f.sql:1: \i takes`,
		"SELECT 1;\nSELECT '\x00';":                     "f.sql:2: a NUL byte",
		"COPY t FROM stdin; SELECT 1;\n1\n\\.\n":        "f.sql:1: COPY with something behind",
		"\nSET standard_conforming_strings TO off;":     "f.sql:2: standard_conforming_strings",
		"SET LOCAL standard_conforming_strings = 'no';": "f.sql:1: standard_conforming_strings",
		"-- migrate:up\nSELECT 1;\n-- migrate:down\n":   "f.sql:1: a mark of another migration tool",

		"SELECT 1;\n---- create above / drop below ----\nSELECT 2;": "f.sql:2: a mark of another",
		"-- +goose Up\n-- +goose ENVSUB ON\nSELECT 1;":              "f.sql:2: goose's annotation ENVSUB ON",
	} {
		_, err := trace.Parse("f.sql", text)
		syntax := new(trace.SyntaxError)
		if !errors.As(err, &syntax) || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: %v, want %s...", text, err, want)
		}
	}
	if _, err := trace.Parse("V2__a.sql", "SELECT 1;\nSELECT ${x};"); err == nil || !strings.HasPrefix(err.Error(), "V2__a.sql:2: a placeholder") {
		t.Error(err)
	}
}

func TestFormats(t *testing.T) {
	goose := "-- a file\n-- +goose Up\nSELECT 1;\n-- +goose StatementBegin\nDO $$BEGIN; END$$;\n-- +goose StatementEnd\n-- +goose Down\nSELECT 2;\n"
	django := "BEGIN;\n--\n-- Alter field a on b\n--\nALTER TABLE b ALTER a DROP NOT NULL;\n--\n-- Raw Python operation\n--\n-- THIS OPERATION CANNOT BE WRITTEN AS SQL\nCOMMIT;\n"
	for _, test := range []struct {
		name, text string
		format     trace.Format
		wrap       trace.Wrap
		want       string
	}{
		{"a.sql", "SELECT 1; SELECT 2", trace.Plain, trace.WrapFile, "SELECT 1;SELECT 2"},
		{"a.sql", "BEGIN; SELECT 1; COMMIT", trace.Plain, trace.WrapNone, "BEGIN;SELECT 1;COMMIT"},
		{"00001_a.sql", goose, trace.Goose, trace.WrapFile, "SELECT 1;DO $$BEGIN; END$$"},
		{"00001_a.sql", "-- +goose NO TRANSACTION\n" + goose, trace.Goose, trace.WrapNone, "SELECT 1;DO $$BEGIN; END$$"},
		{"000001_a.up.sql", "SELECT 1; SELECT 2", trace.GolangMigrate, trace.WrapFile, "SELECT 1;SELECT 2"},
		{"000001_a.up.sql", "SELECT 1;", trace.GolangMigrate, trace.WrapNone, "SELECT 1"},
		{"000001_a.up.sql", "BEGIN; SELECT 1; COMMIT;", trace.GolangMigrate, trace.WrapNone, "BEGIN;SELECT 1;COMMIT"},
		{"V1.2__a.sql", "SELECT 1;", trace.Flyway, trace.WrapFile, "SELECT 1"},
		{"0001.sql", django, trace.Django, trace.WrapNone, "BEGIN;ALTER TABLE b ALTER a DROP NOT NULL;COMMIT"},
	} {
		script, err := trace.Parse(test.name, test.text)
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
			continue
		}
		if script.Format != test.format || script.Wrap != test.wrap {
			t.Errorf("%s: %s, wrapped as %s", test.name, script.Format, script.Wrap)
		}
		if got := strings.Join(statements(t, test.name, test.text), ";"); got != test.want {
			t.Errorf("%s: %q", test.name, got)
		}
	}
	script, err := trace.Parse("0001.sql", django)
	if err != nil || len(script.Notes) != 1 || !strings.HasSuffix(script.Notes[0], ": Raw Python operation") {
		t.Errorf("%v, %v", script, err)
	}
	script, err = trace.Parse("a.sql", goose, trace.As(trace.Goose), trace.Wrapped(trace.WrapStatement))
	if err != nil || script.Wrap != trace.WrapStatement || script.Pieces[0].Line != 3 {
		t.Errorf("%v, %v", script, err)
	}
}

func TestIgnored(t *testing.T) {
	script, err := trace.Parse("f.sql", "-- pglock: ignore rewrite, scan\nSELECT 1; -- pglock: ignore fk\nSELECT /* pglock: ignore a */ 2;\n-- ignore b\nSELECT 3;")
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"rewrite scan fk", "a", ""} {
		if got := strings.Join(script.Pieces[i].Ignored, " "); got != want {
			t.Errorf("statement %d: %q", i+1, got)
		}
	}
}

func TestInclude(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"a.sql":     "SELECT 1;\n\\ir sub/b.sql\nSELECT 4;",
		"sub/b.sql": "\\set x 2\nSELECT :x;\n\\ir c.sql\n",
		"sub/c.sql": "SELECT 3, :x",
		"loop.sql":  "\\ir loop.sql\n",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	script, err := trace.Read(filepath.Join(dir, "a.sql"))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range script.Pieces {
		got = append(got, filepath.Base(p.File)+" "+p.SQL)
	}
	if want := []string{"a.sql SELECT 1", "b.sql SELECT 2", "c.sql SELECT 3, 2", "a.sql SELECT 4"}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	if _, err := trace.Read(filepath.Join(dir, "loop.sql")); err == nil || !strings.Contains(err.Error(), "include each other") {
		t.Error(err)
	}
	if _, err := trace.Read(filepath.Join(dir, "none.sql")); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}
