package top

import (
	"context"
	"io"
	"sync"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/pglock-go/pglock/inspect"
)

// Options are what Run needs.
type Options struct {
	Style
	In  io.Reader // a terminal
	Out io.Writer // a terminal
	Env []string

	Every    time.Duration
	Filters  []inspect.Filter
	Describe func(error) string // describes an error in a line
}

// Run shows databases until the user quits or ctx is done. It returns a line for each
// session that was ended, or was to be.
func Run(ctx context.Context, databases []Database, o Options) (done []string, err error) {
	ctx, cancel := context.WithCancel(ctx)
	m := newModel(ctx, databases, o)
	var reading sync.WaitGroup
	for _, d := range m.databases {
		reading.Go(func() { _ = d.feed.Run(ctx) })
	}
	program := tea.NewProgram(m, tea.WithContext(ctx), tea.WithInput(o.In), tea.WithOutput(o.Out), tea.WithEnvironment(o.Env))
	_, err = program.Run()
	cancel()
	reading.Wait()
	for _, d := range m.databases {
		d.source.Close()
	}
	for _, e := range m.log {
		done = append(done, e.at.Local().Format("15:04:05")+"  "+e.text)
	}
	return done, err
}

// newModel returns the state at the beginning.
func newModel(ctx context.Context, databases []Database, o Options) *model {
	m := &model{Style: o.Style, ctx: ctx, describe: o.Describe, now: time.Now(), every: o.Every}
	for _, d := range databases {
		db := newDatabase(d, o.Every)
		if len(o.Filters) > 0 {
			db.filters.Store(&o.Filters)
		}
		m.databases = append(m.databases, db)
	}
	return m
}
