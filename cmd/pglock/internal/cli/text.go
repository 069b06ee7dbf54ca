package cli

import (
	"io"
	"os"
	"runtime"
	"strconv"

	"golang.org/x/term"
)

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
