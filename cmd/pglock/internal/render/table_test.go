package render

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/pglock-go/pglock/inspect"
)

// A table is never wider than the terminal, and queries are cut before names.
func TestAlignedWidth(t *testing.T) {
	table := &Table{}
	for _, name := range []string{"pid", "relation", "application", "query"} {
		a, _ := FindAttribute(inspect.Attributes(), name)
		table.Columns = append(table.Columns, a)
	}
	values := map[string]any{
		"pid": int64(4711), "relation": strings.Repeat("r", 30), "application": strings.Repeat("a", 20), "query": strings.Repeat("q", 200),
	}
	table.add(true, func(a inspect.Attribute) any { return values[a.Name] })
	for width := 2; width < 300; width++ {
		var out bytes.Buffer
		if err := table.writeAligned(&out, width, false); err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(out.String()) {
			if n := len([]rune(strings.TrimSuffix(line, "\n"))); n > width {
				t.Fatalf("a line of %d columns in a width of %d: %s", n, width, line)
			}
		}
		if width >= 86 && !strings.Contains(out.String(), values["relation"].(string)) {
			t.Errorf("width %d cuts the relation: %s", width, out.String())
		}
	}
}

// The defaults fit a terminal of 80 columns: columns without text are left out, kind and
// context give way to the query, and relations have their schema where people need it.
func TestDefaultColumns(t *testing.T) {
	for _, test := range []struct {
		name, context, schema string
		isDefault             bool
		want                  []string // of the header
		relation              string
	}{
		{"no context", "", "public", true, []string{"pid", "mode", "kind", "relation", "query"}, " order_line_items "},
		{"a context", `{"job":"checkout"}`, "public", true, []string{"pid", "mode", "kind", "relation", "context", "query"}, " order_line_items "},
		{"another schema", "", "sales", true, []string{"pid", "mode", "kind", "relation", "query"}, " sales.order_line_items "},
		{"chosen", "", "public", false, []string{"pid", "mode", "kind", "relation", "context", "query"}, " order_line_items "},
	} {
		t.Run(test.name, func(t *testing.T) {
			table := &Table{Format: Format{Name: "table"}, Default: test.isDefault, SearchPath: []string{"pg_catalog", "public"}}
			for _, name := range []string{"pid", "mode", "kind", "relation", "context", "query"} {
				a, _ := FindAttribute(inspect.Attributes(), name)
				table.Columns = append(table.Columns, a)
			}
			table.AddLock(&inspect.Lock{
				Session: &inspect.Session{PID: 4711, Context: inspect.Context(test.context), Query: strings.Repeat("q", 200)},
				Type:    "relation", Kind: "TABLE", Mode: "AccessExclusiveLock", Granted: true,
				Relation: "order_line_items", Schema: test.schema,
			})
			for _, width := range []int{0, 120, 80, 56} {
				var out bytes.Buffer
				if err := table.writeAligned(&out, width, false); err != nil {
					t.Fatal(err)
				}
				header, _, _ := strings.Cut(out.String(), "\n")
				want := test.want
				if width == 56 && test.isDefault { // the query would get less than 12 columns
					want = []string{"pid", "mode", "relation", "query"}
				} else if width == 56 {
					want = []string{"pid", "mode", "kind", "relation", "context", "qu…"}
				}
				if got := strings.Fields(header); !slices.Equal(got, want) {
					t.Errorf("width %d: the columns are %v, want %v", width, got, want)
				}
				if width != 56 && !strings.Contains(out.String(), test.relation) {
					t.Errorf("width %d: %q is missing:\n%s", width, test.relation, out.String())
				}
				if query := strings.Count(out.String(), "q"); query < 12 && test.isDefault {
					t.Errorf("width %d: %d characters of the query are left:\n%s", width, query, out.String())
				}
			}
		})
	}
}
