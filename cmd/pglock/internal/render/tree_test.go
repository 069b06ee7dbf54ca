package render

import (
	"bytes"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"
)

// Wrapped text loses no word, and no line is wider than the terminal.
func TestWrap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		prefix := rapid.StringMatching(`[│ ]{0,12}`).Draw(t, "prefix")
		width := rapid.IntRange(utf8.RuneCountInString(prefix)+22, 120).Draw(t, "width")
		var spans []span
		var all strings.Builder
		for range rapid.IntRange(1, 5).Draw(t, "spans") {
			text := rapid.StringMatching(` {1,2}([a-zü.]{1,19} {1,2}){0,9}[a-z]{0,5}`).Draw(t, "text")
			spans = append(spans, span{Bold, text})
			all.WriteString(text)
		}
		var out bytes.Buffer
		Forest{Width: width}.wrap(&out, prefix, prefix, spans)
		var words []string
		for line := range strings.Lines(out.String()) {
			line = strings.TrimSuffix(line, "\n")
			if utf8.RuneCountInString(line) > width {
				t.Fatalf("a line of %d columns in a width of %d: %q", utf8.RuneCountInString(line), width, line)
			}
			rest, ok := strings.CutPrefix(line+" ", prefix)
			if !ok && strings.TrimSpace(line) != strings.TrimSpace(prefix) {
				t.Fatalf("%q does not begin with %q", line, prefix)
			}
			words = append(words, strings.Fields(rest)...)
		}
		if got, want := strings.Join(words, " "), strings.Join(strings.Fields(all.String()), " "); got != want {
			t.Fatalf("got %q\nwant %q", got, want)
		}
	})
}

// Without room for words, a deep session takes one line.
func TestWrapWithoutRoom(t *testing.T) {
	var out bytes.Buffer
	prefix := strings.Repeat("│  ", 20)
	Forest{Width: 70}.wrap(&out, prefix, prefix, []span{{"", "pid 1  waits for a lock on orders"}})
	if got := strings.Count(out.String(), "\n"); got != 1 {
		t.Errorf("got %d lines:\n%s", got, out.String())
	}
}
