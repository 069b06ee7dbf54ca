package render

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

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
		tab := &Table{Columns: []inspect.Attribute{{Name: "user"}, {Name: "query"}, {Name: "duration"}, {Name: "context"}}}
		rows := [][2]string{{a, b}, {b, a}}
		context, err := json.Marshal(map[string]string{a: b})
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range rows {
			tab.rows = append(tab.rows, row{values: []any{r[0], r[1], 1500 * time.Millisecond, inspect.Context(context)}})
		}
		write := func(f Format) string {
			tab.Format = f
			var out bytes.Buffer
			if err := tab.Write(&out); err != nil {
				t.Fatal(err)
			}
			text := out.String()
			if !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool {
				return r != '\n' && r != '\t' && (unicode.IsControl(r) || unicode.Is(unicode.Cf, r))
			}) {
				t.Errorf("%s: %q", f.Name, text)
			}
			return text
		}
		for _, line := range strings.Split(strings.TrimSuffix(write(Format{Name: "tsv"}), "\n"), "\n") {
			if strings.Count(line, "\t") != 3 {
				t.Errorf("tsv: %q", line)
			}
		}
		for _, name := range []string{"tsv", "table"} {
			if n := strings.Count(write(Format{Name: name, Width: width}), "\n"); n != 3 {
				t.Errorf("%s: %d lines", name, n)
			}
		}
		write(Format{Name: "table", Expanded: true})
		records, err := csv.NewReader(strings.NewReader(write(Format{Name: "csv"}))).ReadAll()
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
		if err := json.Unmarshal([]byte(write(Format{Name: "json"})), &objects); err != nil || len(objects) != 2 {
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
