package cli

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pglock-go/pglock/inspect"
)

// A table is never wider than the terminal, and queries are cut before names.
func TestAlignedWidth(t *testing.T) {
	table := &table{}
	for _, name := range []string{"pid", "relation", "application", "query"} {
		a, _ := attributeOf(inspect.Attributes(), name)
		table.columns = append(table.columns, a)
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

func TestWatchFlag(t *testing.T) {
	for _, test := range []struct {
		args, rest string
		every      time.Duration
	}{
		{"4711", "4711", watchDefault},
		{"5s 4711", "4711", 5 * time.Second},
		{"4711 1m30s", "4711", 90 * time.Second},
		{"5 s", "5 s", watchDefault},
		{"1ms", "1ms", watchDefault},
	} {
		f := watchFlag{watchDefault}
		rest := f.fromArgs(strings.Fields(test.args))
		if !slices.Equal(rest, strings.Fields(test.rest)) || f.every != test.every {
			t.Errorf("%s: %v, every %v", test.args, rest, f.every)
		}
	}
	off := watchFlag{}
	if rest := off.fromArgs([]string{"5s"}); len(rest) != 1 || off.every != 0 {
		t.Error("a duration is parsed without --watch")
	}
}

func TestWantsUnicode(t *testing.T) {
	for env, want := range map[string]bool{
		"": true, "LANG=C": false, "LANG=C.UTF-8": true, "LANG=en_US.utf8": true, "LANG=de_DE.ISO-8859-1": false,
		"LC_ALL=POSIX LANG=C.UTF-8": false, "LC_CTYPE=C.UTF-8 LANG=C": true,
	} {
		if got := (&app{env: strings.Fields(env)}).useUnicode(); got != want {
			t.Errorf("%q: %v", env, got)
		}
	}
}
