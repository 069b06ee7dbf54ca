package cli

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/pflag"

	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/internal/termtext"
)

// In each format, a table of any text keeps its rows and columns, reproduces the text if
// that is promised, and contains nothing that a terminal interprets.
func FuzzTable(f *testing.F) {
	for _, s := range []string{
		"plain", "", "a\tb", "a\nb", "a\r\nb", `"a","b"`, "=cmd()", "\x1b[31m\u202e\u009b", "\xff", "日本 ", `\n`, "\u2028", "\"\n\"", " ", `\.`,
	} {
		f.Add(s, "x", 80)
		f.Add("x", s, 0)
	}
	f.Fuzz(func(t *testing.T, a, b string, width int) {
		if width < 0 || width > 500 {
			return
		}
		tab := &table{columns: []inspect.Attribute{{Name: "user"}, {Name: "query"}, {Name: "duration"}, {Name: "context"}}}
		rows := [][2]string{{a, b}, {b, a}}
		for _, r := range rows {
			tab.rows = append(tab.rows, row{values: []any{r[0], r[1], 1500 * time.Millisecond, map[string]string{a: b}}})
		}
		write := func(fmt format) string {
			var out bytes.Buffer
			if err := tab.write(&out, fmt); err != nil {
				t.Fatal(err)
			}
			text := out.String()
			if !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool {
				return r != '\n' && r != '\t' && (unicode.IsControl(r) || unicode.Is(unicode.Cf, r))
			}) {
				t.Errorf("%s: %q", fmt.name, text)
			}
			return text
		}
		for _, line := range strings.Split(strings.TrimSuffix(write(format{name: "tsv"}), "\n"), "\n") {
			if strings.Count(line, "\t") != 3 {
				t.Errorf("tsv: %q", line)
			}
		}
		for _, name := range []string{"tsv", "table"} {
			if n := strings.Count(write(format{name: name, width: width}), "\n"); n != 3 {
				t.Errorf("%s: %d lines", name, n)
			}
		}
		write(format{name: "table", expanded: true})
		records, err := csv.NewReader(strings.NewReader(write(format{name: "csv"}))).ReadAll()
		if err != nil || len(records) != 3 {
			t.Fatalf("csv: %q, %v", records, err)
		}
		for i, r := range rows {
			for j := range r {
				if records[i+1][j] != termtext.Lines(r[j]) {
					t.Errorf("csv: %q is %q", r[j], records[i+1][j])
				}
			}
		}
		var objects []map[string]any
		if err := json.Unmarshal([]byte(write(format{name: "json"})), &objects); err != nil || len(objects) != 2 {
			t.Fatalf("json: %v", err)
		}
		for i, r := range rows {
			for j, name := range []string{"user", "query"} {
				if got := objects[i][name]; got != strings.ToValidUTF8(r[j], "\ufffd") && utf8.ValidString(r[j]) {
					t.Errorf("json: %q is %q", r[j], got)
				}
			}
		}
	})
}

// A flag either rejects a value with an error, or formats it so that it is parsed as the
// same value again.
func FuzzFlags(f *testing.F) {
	flags := map[string]func() pflag.Value{
		"duration":   func() pflag.Value { return &durationFlag{min: time.Millisecond, what: "too short"} },
		"code":       func() pflag.Value { return new(codeFlag) },
		"limit":      func() pflag.Value { return new(limitFlag) },
		"count":      func() pflag.Value { return new(countFlag) },
		"pid":        func() pflag.Value { return new(pidFlag) },
		"key":        func() pflag.Value { return new(keyFlag) },
		"pg_locks":   func() pflag.Value { return new(pgLocksFlag) },
		"kind":       func() pflag.Value { return new(kindFlag) },
		"allow":      func() pflag.Value { return new(allowFlag) },
		"attributes": func() pflag.Value { return new(attributeFlag) },
		"filter":     func() pflag.Value { return new(filterFlag) },
		"watch":      func() pflag.Value { return new(watchFlag) },
		"output":     func() pflag.Value { return &outputFlag{choices: []string{"table", "json"}} },
	}
	for name := range flags {
		for _, s := range []string{
			"", "0", "1", "-1", "255", "256", "7,42", "-7, -42", "1,2,3", "9223372036854775808", "1s", "1h30m", "1.5", "1e300h", "NaN", "Inf", "0x10", "1_000",
			"superusers", "walsender,self", "pid,mode", "pid = 1", "table", "\x00", "\xff", " 1 ", "²", "2147483648",
		} {
			f.Add(name, s)
		}
	}
	f.Fuzz(func(t *testing.T, name, s string) {
		make, ok := flags[name]
		if !ok {
			return
		}
		flag := make()
		if err := flag.Set(s); err != nil {
			if err.Error() == "" {
				t.Errorf("%s %q: an error without text", name, s)
			}
			return
		}
		if name == "pg_locks" {
			return // it is formatted for another flag
		}
		again := make()
		if err := again.Set(flag.String()); err != nil || again.String() != flag.String() {
			t.Errorf("%s %q is %q, which is %q, %v", name, s, flag, again, err)
		}
	})
}
