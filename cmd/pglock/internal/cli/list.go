package cli

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/spf13/cobra"

	"github.com/pglock-go/pglock/cmd/pglock/internal/render"
	"github.com/pglock-go/pglock/inspect"
)

// A listRequest holds the arguments of a verb that lists rows: ls or ps.
type listRequest struct {
	selection
	format render.Format
}

// listCommand completes the command of a verb that draws a list. blocking is the usage
// of --blocking, or "" if the verb does not have it.
func (a *app) listCommand(r *listRequest, draw drawFunc, cmd *cobra.Command, blocking string) *cobra.Command {
	var watch watchFlag
	output := outputFlag{choices: []string{"table", "tsv", "csv", "json"}}
	cmd.DisableFlagsInUseLine = true
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		args = watch.fromArgs(args)
		if err := r.resolve(a, cmd, args); err != nil {
			return err
		}
		r.format = a.format(r.outputOr(output), r.expanded)
		return a.show(cmd.Context(), cmd.Name(), watch, draw)
	}
	cmd.Flags().SortFlags = false
	r.register(cmd.Flags(), blocking)
	r.registerList(cmd.Flags())
	severalFlag(cmd)
	cmd.Flags().VarP(&output, "output", "o", output.usage()+" (default table on a terminal, else tsv)")
	watch.register(cmd.Flags())
	return cmd
}

// A rows is what a list shows of one database.
type rows[T any] struct {
	rows    []*T
	more    int // how many were not selected, because of the limit
	omitted int // locks that transactions hold on their own IDs
}

// pointers returns pointers to the elements of s.
func pointers[T any](s []T) []*T {
	p := make([]*T, len(s))
	for i := range s {
		p[i] = &s[i]
	}
	return p
}

// A list is what a verb lists.
type list[T any] struct {
	what    string                                                        // the rows, in the plural
	read    func(ctx context.Context, s *session, n int) (rows[T], error) // selects at most n rows
	owns    func(*session, *T) bool                                       // whether a session shows a row: see session.owns
	compare func(a, b *T) int                                             // the order of rows from several databases
	add     func(*render.Table, *T)                                       // adds a row to the table
	of      func(*T) []*inspect.Session
}

// newTable returns a table without rows, with the selected columns.
func (r *listRequest) newTable() *render.Table {
	t := &render.Table{Columns: r.listColumns(), Format: r.format, Default: len(r.attributes) == 0}
	if r.format.IsMachine() && !r.explicitColumns {
		t.Columns = r.availableAttributes() // even if a config file has defaults
	}
	return t
}

// drawList writes the rows of all databases, and returns notices for stderr.
func drawList[T any](ctx context.Context, r *listRequest, f *fleet, out *bytes.Buffer, l list[T]) ([]string, error) {
	n := math.MaxInt
	if r.limit > 0 && !f.several { // of several databases, one may show another's rows
		n = int(r.limit)
	}
	parts, err := readAll(ctx, f, func(ctx context.Context, s *session) (rows[T], error) { return l.read(ctx, s, n) })
	if err != nil {
		return nil, err
	}
	notices := f.notes
	type row struct {
		from  *session
		value *T
	}
	var all []row
	more, omitted := 0, 0
	for _, p := range parts {
		more += p.value.more
		if p.isFirst() {
			omitted += p.value.omitted
		}
		for _, value := range p.value.rows {
			if l.owns(p.session, value) && !p.isOurs(l.of(value)[0].PID) {
				all = append(all, row{p.session, value})
			}
		}
	}
	if f.several {
		slices.SortStableFunc(all, func(a, b row) int { return l.compare(a.value, b.value) })
	}
	shown := all
	if r.limit > 0 {
		shown = all[:min(len(all), int(r.limit))]
	}
	table := r.newTable()
	if f.several {
		table.AddDatabaseName()
	}
	hidden := hiddenSessions{}
	for _, row := range shown {
		table.Database, table.SearchPath = row.from.name, row.from.schemas
		l.add(table, row.value)
		for _, s := range l.of(row.value) {
			hidden.note(row.from, s)
		}
	}
	notices = append(notices, hidden.notices(f.sessions())...)
	switch {
	case len(shown) < len(all)+more:
		notices = append(notices, fmt.Sprintf("showing %d of %d %s; -l 0 shows all", len(shown), len(all)+more, l.what))
	case len(all) == 0 && omitted > 0:
		notices = append(notices, render.Plural(omitted, "lock", "locks")+" of transactions on their own IDs left out; add -f 'type in (transactionid, virtualxid)' to show them")
	case len(all) == 0:
		lines, err := r.unmatchedAnywhere(ctx, f)
		if err != nil {
			return nil, err
		}
		notices = append(notices, lines...)
	}
	if len(all) == 0 && (r.format.Name == "table" || r.format.Expanded) && !r.format.IsMachine() {
		fmt.Fprintln(out, "no "+l.what)
		return notices, nil
	}
	return notices, table.Write(out)
}

// unmatchedAnywhere returns the lines of unmatched that are true of every database.
func (r *listRequest) unmatchedAnywhere(ctx context.Context, f *fleet) ([]string, error) {
	parts, err := readAll(ctx, f, r.unmatched)
	if err != nil {
		return nil, err
	}
	lines := parts[0].value
	for _, p := range parts[1:] {
		lines = slices.DeleteFunc(lines, func(line string) bool { return !slices.Contains(p.value, line) })
	}
	return lines, nil
}

// hiddenSessions are the PIDs of sessions whose activity is hidden, by the session that
// read them.
type hiddenSessions map[*session]map[int32]bool

// note records that a session is shown.
func (h hiddenSessions) note(from *session, s *inspect.Session) {
	if !s.Hidden {
		return
	}
	if h[from] == nil {
		h[from] = map[int32]bool{}
	}
	h[from][s.PID] = true
}

// notices returns a notice for each database with hidden sessions.
func (h hiddenSessions) notices(from []*session) []string {
	var notices []string
	for _, s := range from {
		for _, line := range render.HiddenNotice(len(h[s]), s.user) {
			notices = append(notices, s.label(line))
		}
	}
	return notices
}
