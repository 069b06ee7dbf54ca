// Package termtext makes text from elsewhere safe and short enough to show. Characters that
// a terminal might obey, and characters that hide text or change its direction, are
// escaped as \x1b or \u202e. Backslashes are not escaped, so the result is for people and
// cannot be parsed back. It also has the words that the library and the command share.
package termtext

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Line returns s as one line: each run of white space becomes one space, and white space
// at both ends is removed.
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

// isPlain reports whether Line returns s unchanged, as it does most text.
func isPlain(s string) bool {
	space := true // as if a space came before
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' || s[i] == ' ' && space {
			return false
		}
		space = s[i] == ' '
	}
	return s == "" || !space
}

// Lines returns s with its line breaks, tabs and spaces, and escapes the rest like Line.
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

// Session describes a session on one line: its PID and, in parentheses, its application,
// its role, and more about it.
func Session(pid int32, application, user string, more ...string) string {
	var parts []string
	if application != "" {
		parts = append(parts, fmt.Sprintf("%q", application))
	}
	if user != "" {
		parts = append(parts, "user "+user)
	}
	return Line(fmt.Sprintf("pid %d (%s)", pid, strings.Join(append(parts, more...), ", ")))
}

// Lease describes the holder of a lease on one line: its process and, in parentheses, its
// program, its machine and its note.
func Lease(pid int32, program, host, note string) string {
	var parts []string
	if program != "" {
		parts = append(parts, fmt.Sprintf("%q", program))
	}
	if host != "" {
		parts = append(parts, "on "+host)
	}
	if note != "" {
		parts = append(parts, fmt.Sprintf("note %q", note))
	}
	return Line(fmt.Sprintf("process %d (%s)", pid, strings.Join(parts, ", ")))
}

// Duration formats d for people, with at most two units.
func Duration(d time.Duration) string {
	day := 24 * time.Hour
	switch {
	case d < time.Second:
		return fmt.Sprintf("%dms", d.Milliseconds())
	case d < time.Minute:
		return strconv.FormatFloat(d.Truncate(100*time.Millisecond).Seconds(), 'f', 1, 64) + "s"
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", d/time.Minute, d%time.Minute/time.Second)
	case d < day:
		return fmt.Sprintf("%dh%02dm", d/time.Hour, d%time.Hour/time.Minute)
	}
	return fmt.Sprintf("%dd%02dh", d/day, d%day/time.Hour)
}

// maxShort is how many characters Short returns at most.
const maxShort = 100

// Short returns s, cut to 100 characters, for use in a message.
func Short(s string) string { return Cut(s, maxShort) }

// Cut returns s if it has at most width characters, which must be 1 or more. Otherwise it
// returns the beginning of s, with an ellipsis as the last character.
func Cut(s string, width int) string {
	end, n := 0, 0 // the first n characters end there
	for i := 0; i < len(s); n++ {
		if n == width-1 {
			end = i
		}
		if n == width {
			return s[:end] + "…"
		}
		_, size := utf8.DecodeRuneInString(s[i:])
		i += size
	}
	return s
}

// ASCII returns s with a ? in place of each character that is not printable ASCII.
func ASCII(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
}

// Shows reports whether r is shown unescaped. Control characters and format characters,
// such as those that change the text direction, are not.
func Shows(r rune) bool { return !unicode.IsControl(r) && !unicode.Is(unicode.Cf, r) }

// escape returns the character, whose bytes are raw, or its escape sequence.
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
