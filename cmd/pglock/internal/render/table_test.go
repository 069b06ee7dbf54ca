package render

import (
	"bytes"
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
		if width >= 80 && !strings.Contains(out.String(), values["relation"].(string)) {
			t.Errorf("width %d cuts the relation: %s", width, out.String())
		}
	}
}
