package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// A question asks for confirmation at the terminal.
type question struct {
	text     string
	declined string // the message for a no
	flags    string // what to use if there is no terminal
}

// noTerminal returns the message if there is no terminal to ask at.
func noTerminal(flags string) string {
	return "no terminal to ask for confirmation: use " + flags
}

// confirm shows what is about to happen and asks for confirmation. The app that show gets
// writes to the terminal. It returns a declinedError for a no.
func (a *app) confirm(q question, show func(*app) error) error {
	in, out, err := a.terminal()
	if err != nil {
		return &usageError{text: noTerminal(q.flags)}
	}
	shown := *a
	shown.Out = out
	if err := show(&shown); err != nil {
		return err
	}
	fmt.Fprintf(out, "%s [y/N] ", q.text)
	answer, err := readLine(in)
	if err != nil {
		fmt.Fprintln(out)
	}
	if !slices.Contains([]string{"y", "yes"}, strings.ToLower(strings.TrimSpace(answer))) {
		return &declinedError{q.declined}
	}
	return nil
}

// readLine reads a line and nothing beyond it.
func readLine(in io.Reader) (string, error) {
	var line []byte
	b := make([]byte, 1)
	for {
		n, err := in.Read(b)
		switch {
		case n > 0 && b[0] == '\n':
			return string(line), nil
		case n > 0 && len(line) < 100:
			line = append(line, b[0])
		}
		if err != nil {
			return "", err
		}
	}
}
