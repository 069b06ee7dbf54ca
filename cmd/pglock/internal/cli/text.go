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

// printable makes one line of text that comes from elsewhere. See package plain.
func printable(s string) string { return termtext.Line(s) }

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
