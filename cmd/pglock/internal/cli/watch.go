package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/term"

	"github.com/pglock-go/pglock/cmd/pglock/internal/render"
	"github.com/pglock-go/pglock/feed"
	"github.com/pglock-go/pglock/internal/termtext"
)

// watchFlag is --watch, with or without an interval.
type watchFlag struct{ every time.Duration }

const watchDefault = 2 * time.Second

func (f *watchFlag) register(flags *pflag.FlagSet) {
	flags.Var(f, "watch", "refresh every 2s, or every `DURATION`, until Ctrl-C")
	flags.Lookup("watch").NoOptDefVal = watchDefault.String()
}

func (f *watchFlag) Type() string { return "duration" }

func (f *watchFlag) String() string {
	if f.every == 0 {
		return ""
	}
	return f.every.String()
}

func (f *watchFlag) Set(s string) error {
	d := durationFlag{min: 100 * time.Millisecond, what: "must be 100ms or longer"}
	if err := d.Set(s); err != nil {
		return err
	}
	f.every = d.value
	return nil
}

// fromArgs takes the interval from the arguments, since people write --watch 5s. pflag
// accepts an optional value only after =.
func (f *watchFlag) fromArgs(args []string) []string {
	if f.every == 0 {
		return args
	}
	return slices.DeleteFunc(slices.Clone(args), func(arg string) bool {
		return strings.ContainsAny(arg, "smh") && f.Set(arg) == nil
	})
}

// A drawFunc writes the output of a verb once, and returns notices for stderr. The fleet
// is connected.
type drawFunc func(ctx context.Context, f *fleet, out *bytes.Buffer) (notices []string, err error)

// show draws once, or repeatedly with --watch.
func (a *app) show(ctx context.Context, verb string, watch watchFlag, draw drawFunc) error {
	if watch.every == 0 {
		return a.showOnce(ctx, verb, draw)
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt)
	defer stop()
	err := a.watch(ctx, verb, watch.every, draw)
	if ctx.Err() != nil {
		return nil // Ctrl-C is the normal end
	}
	return err
}

// showOnce draws once. Of several databases, it shows those that can be read, and a line
// for each other one.
func (a *app) showOnce(ctx context.Context, verb string, draw drawFunc) error {
	f := a.newFleet(ctx, verb)
	defer f.close()
	var out bytes.Buffer
	var notices []string
	err := f.connectAll(ctx, false)
	if err == nil {
		notices, err = draw(ctx, f, &out)
	}
	for _, n := range append(f.failures(), notices...) {
		a.logf("%s", n)
	}
	if err != nil {
		return err
	}
	if _, err := a.Out.Write(out.Bytes()); err != nil {
		return err
	}
	return f.err()
}

// A drawing is a frame of --watch.
type drawing struct {
	text              []byte
	failures, notices []string

	end error // ends the verb, if it is not nil
}

// watch draws until ctx is done. Only the first drawing must succeed: a server that is
// gone may come back.
func (a *app) watch(ctx context.Context, verb string, every time.Duration, draw drawFunc) error {
	write := a.pipeFrame
	if isTerminal(a.Out) {
		write = a.terminalFrame
	}
	fleet := a.newFleet(ctx, verb)
	defer fleet.close()
	drawings := feed.New((&watcher{fleet: fleet, drawOnce: draw}).draw, every)
	ctx, cancel := context.WithCancel(ctx)
	var reading sync.WaitGroup
	defer reading.Wait() // before fleet.close
	defer cancel()
	reading.Go(func() { _ = drawings.Run(ctx) })
	printed := map[string]bool{}
	n := 0
	for frame := range drawings.Frames(ctx) {
		d := frame.Value
		if d.end != nil {
			for _, line := range d.failures {
				a.logf("%s", line)
			}
			return d.end
		}
		if err := write(n, every, d.text, d.failures, d.notices, printed); err != nil {
			return err
		}
		n++
	}
	return ctx.Err()
}

// A watcher makes the drawings of --watch.
type watcher struct {
	fleet    *fleet
	drawOnce drawFunc
	drawn    bool    // once
	end      drawing // the one that ended the verb
}

// draw connects to the databases that are not connected and draws once. It is a ReadFunc
// whose errors are in the drawing.
func (w *watcher) draw(ctx context.Context) (drawing, time.Duration, error) {
	if w.end.end != nil { // for a reader that is slow
		return w.end, 0, nil
	}
	var out bytes.Buffer
	var notices []string
	err := w.fleet.connectAll(ctx, true)
	began := time.Now()
	if err == nil {
		notices, err = w.drawOnce(ctx, w.fleet, &out)
	}
	cost := time.Since(began)
	if w.fleet.several {
		cost = w.fleet.cost
	}
	d := drawing{text: out.Bytes(), failures: w.fleet.failures(), notices: notices}
	if err != nil {
		var usage *usageError
		if !w.drawn || errors.As(err, &usage) {
			w.end = drawing{failures: d.failures, end: err}
			return w.end, 0, nil
		}
		d.text, d.notices, cost = nil, nil, 0
		if text := message(err); text != "" {
			d.notices = []string{text}
		}
		w.fleet.disconnect()
	}
	w.drawn = true
	return d, cost, nil
}

// pipeFrame writes a frame below the previous one.
func (a *app) pipeFrame(n int, _ time.Duration, text []byte, failures, notices []string, printed map[string]bool) error {
	for _, notice := range append(failures, notices...) {
		if !printed[notice] {
			a.logf("%s", notice)
			printed[notice] = true
		}
	}
	if n > 0 {
		if _, err := fmt.Fprintln(a.Out); err != nil {
			return err
		}
	}
	_, err := a.Out.Write(text)
	return err
}

// terminalFrame writes a frame over the previous one, cut to the terminal's height. The
// failures are above it, so that a long list does not hide them.
func (a *app) terminalFrame(n int, every time.Duration, text []byte, failures, notices []string, _ map[string]bool) error {
	head := fmt.Sprintf("%s, every %s; Ctrl-C to stop", time.Now().Format("15:04:05"), every)
	lines := []string{head}
	add := func(notices []string) {
		for _, notice := range notices {
			line := "pglock: " + termtext.Line(notice)
			if width := a.width(); width > 1 {
				line = termtext.Cut(line, width)
			}
			lines = append(lines, line)
		}
	}
	add(failures)
	lines = append(lines, "")
	lines = append(lines, strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")...)
	add(notices)
	if f, ok := a.Out.(*os.File); ok {
		if _, height, err := term.GetSize(int(f.Fd())); err == nil && height > 2 && len(lines) > height-1 {
			more := len(lines) - (height - 2)
			lines = append(lines[:height-2], fmt.Sprintf("(%s more)", render.Plural(more, "line", "lines")))
		}
	}
	var b strings.Builder
	if n == 0 {
		b.WriteString("\x1b[2J")
	}
	b.WriteString("\x1b[H")
	for _, line := range lines {
		// Erase the line before writing it. Erasing after a line as wide as the
		// terminal would erase its last character.
		b.WriteString("\x1b[2K" + line + "\r\n")
	}
	b.WriteString("\x1b[J")
	_, err := a.Out.Write([]byte(b.String()))
	return err
}
