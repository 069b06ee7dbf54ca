package sqltext

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// The name of a prepared transaction, quoted in the statement that ends it, ends
// where it should, and has no control characters for a terminal.
func FuzzLiteral(f *testing.F) {
	for _, s := range []string{"", "'", `\`, `\'`, "\x1b[31m", "\u009b", "\u202e", "\U000e0001", "a\nb", "é"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if !utf8.ValidString(s) || strings.Contains(s, "\x00") {
			return
		}
		text := Literal(s)
		if strings.ContainsFunc(text, func(r rune) bool { return unicode.IsControl(r) || unicode.Is(unicode.Cf, r) }) {
			t.Errorf("%q", text)
		}
		body, isEscaped := strings.CutPrefix(text, "E'")
		if !isEscaped {
			body = text[1:]
		}
		body = strings.TrimSuffix(body, "'")
		for rest := body; rest != ""; {
			switch {
			case strings.HasPrefix(rest, "''"), isEscaped && strings.HasPrefix(rest, `\`):
				rest = rest[2:]
			case rest[0] == '\'', rest[0] == '\\':
				t.Fatalf("%q ends before its end", text)
			default:
				rest = rest[1:]
			}
		}
	})
}
