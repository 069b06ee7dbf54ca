// Package termtext makes text that comes from elsewhere fit to be shown to a person:
// whatever is in it, a terminal that it is written to only prints. What a terminal
// may obey, and what hides text or turns its direction, is written as \x1b or
// \u202e. A backslash stays as it is, so this is for looking at, not for reading
// back.
package termtext

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Line makes one line of s: spaces of all kinds become one space, and there are
// none at its ends.
func Line(s string) string {
	if isPlain(s) {
		return s
	}
	var b strings.Builder
	space := false
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		raw := s[i : i+size]
		i += size
		switch {
		case unicode.IsSpace(r) && r != '\u0085':
			space = b.Len() > 0
			continue
		case space:
			b.WriteByte(' ')
			space = false
		}
		b.WriteString(escape(r, raw))
	}
	return b.String()
}

// isPlain reports whether Line has nothing to do; most text is like that.
func isPlain(s string) bool {
	space := true // as if one came before
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' || s[i] == ' ' && space {
			return false
		}
		space = s[i] == ' '
	}
	return s == "" || !space
}

// Lines keeps the line breaks and tabs of s.
func Lines(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		raw := s[i : i+size]
		i += size
		switch {
		case r == '\n' || r == '\t':
			b.WriteString(raw)
		case r == '\r' && strings.HasPrefix(s[i:], "\n"):
		case r == '\u2028' || r == '\u2029':
			b.WriteByte('\n')
		default:
			b.WriteString(escape(r, raw))
		}
	}
	return b.String()
}

// Shows reports whether r is shown as it is: it is no control character, and no
// format character such as those that turn the direction of text.
func Shows(r rune) bool { return !unicode.IsControl(r) && !unicode.Is(unicode.Cf, r) }

// escape is a character, whose bytes are raw, or what stands for it.
func escape(r rune, raw string) string {
	switch {
	case r == utf8.RuneError && len(raw) == 1:
		return fmt.Sprintf(`\x%02x`, raw[0])
	case r < 0x80 && unicode.IsControl(r):
		return fmt.Sprintf(`\x%02x`, r)
	case r > 0xffff && !Shows(r):
		return fmt.Sprintf(`\U%08x`, r)
	case !Shows(r):
		return fmt.Sprintf(`\u%04x`, r)
	}
	return raw
}
