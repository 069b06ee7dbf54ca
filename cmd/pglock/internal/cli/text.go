package cli

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/term"
)

// printable makes one line of text that comes from elsewhere, which changes
// nothing but the line it is printed on: spaces of all kinds become one space,
// and what a terminal may obey, or what hides or reorders text, is escaped.
func printable(s string) string {
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
		b.WriteString(printableRune(r, raw))
	}
	return b.String()
}

// printableLines is printable for text that keeps its line breaks and tabs.
func printableLines(s string) string {
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
			b.WriteString(printableRune(r, raw))
		}
	}
	return b.String()
}

// printableRune is a character, whose bytes are raw, or what stands for it.
func printableRune(r rune, raw string) string {
	switch {
	case r == utf8.RuneError && len(raw) == 1:
		return fmt.Sprintf(`\x%02x`, raw[0])
	case r < 0x80 && unicode.IsControl(r):
		return fmt.Sprintf(`\x%02x`, r)
	case isUnprintable(r):
		return fmt.Sprintf(`\u%04x`, r)
	}
	return raw
}

// isUnprintable reports control characters, and format characters such as those
// that turn the direction of text.
func isUnprintable(r rune) bool { return unicode.IsControl(r) || unicode.Is(unicode.Cf, r) }

// isTerminal reports whether a stream is a terminal.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// terminalWidth is the width of the terminal that the output goes to, or 0.
func (a *app) terminalWidth() int {
	if !isTerminal(a.Out) && a.getenv("COLUMNS") == "" {
		return 0
	}
	return a.width()
}

// width is how many columns there are to write a table in, 0 when that is not
// known: those of the terminal, or what COLUMNS says.
func (a *app) width() int {
	if f, ok := a.Out.(*os.File); ok {
		if columns, _, err := term.GetSize(int(f.Fd())); err == nil {
			return columns
		}
	}
	columns, err := strconv.Atoi(a.getenv("COLUMNS"))
	if err != nil {
		return 0
	}
	return columns
}

// quoted is s in quotes, cut where it is longer than a person wants to read.
func quoted(s string) string {
	const most = 64
	if utf8.RuneCountInString(s) > most {
		s = string([]rune(s)[:most]) + "…"
	}
	return `"` + printable(s) + `"`
}

// terminal is where a person can be asked, whatever the streams are.
func (a *app) terminal() (in io.Reader, out io.Writer, err error) {
	input, output := "/dev/tty", "/dev/tty"
	if runtime.GOOS == "windows" {
		input, output = "CONIN$", "CONOUT$"
	}
	in, out = a.In, a.Err
	if !isTerminal(in) {
		if in, err = os.OpenFile(input, os.O_RDWR, 0); err != nil {
			return nil, nil, err
		}
	}
	if !isTerminal(out) {
		if out, err = os.OpenFile(output, os.O_WRONLY, 0); err != nil {
			return nil, nil, err
		}
	}
	return in, out, nil
}
