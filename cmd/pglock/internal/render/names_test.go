package render

import (
	"strings"
	"testing"
)

func TestApplicationName(t *testing.T) {
	for detail, want := range map[string]string{
		"":  "pglock run",
		"x": "pglock run x",
		"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa": "pglock run aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
		"café\n":                "pglock run caf??",
		"\xff":                  "pglock run ?",
		strings.Repeat("ä", 60): "pglock run " + strings.Repeat("?", 52),
	} {
		if got := ApplicationName("run", detail); got != want {
			t.Errorf("%q: %q, not %q", detail, got, want)
		}
	}
}
