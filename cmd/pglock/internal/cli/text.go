package cli

import (
	"io"
	"os"
	"runtime"
	"strconv"
	"unicode/utf8"

	"golang.org/x/term"

	"github.com/pglock-go/pglock/internal/termtext"
)

// printable makes untrusted text safe to show on one line. See package termtext.
func printable(s string) string { return termtext.Line(s) }

// isTerminal reports whether a stream is a terminal.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// terminalWidth returns the width of the terminal or of COLUMNS, or 0 if there is neither.
func (a *app) terminalWidth() int {
	if !isTerminal(a.Out) && a.getenv("COLUMNS") == "" {
		return 0
	}
	return a.width()
}

// width returns the width of the terminal, or else COLUMNS, or 0 if neither is known.
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

// quoted returns s in quotes, made printable and cut to a readable length.
func quoted(s string) string {
	const maxRunes = 64
	if utf8.RuneCountInString(s) > maxRunes {
		s = string([]rune(s)[:maxRunes]) + "…"
	}
	return `"` + printable(s) + `"`
}

// terminal returns the terminal to ask at, even if the streams are redirected.
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
