package cli

import (
	"bytes"
	"context"
	"fmt"

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
	cmd.Flags().VarP(&output, "output", "o", output.usage()+" (default table on a terminal, else tsv)")
	watch.register(cmd.Flags())
	return cmd
}

// A list is the rows that a verb has read, and the table of those that it shows.
type list struct {
	table   *render.Table
	what    string // what the rows are, in the plural
	count   int    // of all rows
	omitted int    // locks that transactions hold on their own IDs
	hidden  map[int32]bool
}

// newList returns a list without rows, with the selected columns.
func (r *listRequest) newList(what string) *list {
	l := &list{what: what, table: &render.Table{Columns: r.listColumns(), Format: r.format, Default: len(r.attributes) == 0}, hidden: map[int32]bool{}}
	if r.format.IsMachine() && !r.explicitColumns {
		l.table.Columns = r.availableAttributes() // even if a config file has defaults
	}
	return l
}

// note records that a session is shown.
func (l *list) note(s *inspect.Session) {
	if s.Hidden {
		l.hidden[s.PID] = true
	}
}

// shown returns how many of n rows the limit allows.
func (r *listRequest) shown(n int) int {
	if r.limit > 0 {
		n = min(n, int(r.limit))
	}
	return n
}

// write writes the list, and returns notices for stderr.
func (r *listRequest) write(ctx context.Context, session *session, out *bytes.Buffer, l *list) ([]string, error) {
	notices := render.HiddenNotice(len(l.hidden), session.user)
	if n := r.shown(l.count); n < l.count {
		notices = append(notices, fmt.Sprintf("showing %d of %d %s; -l 0 shows all", n, l.count, l.what))
	}
	if l.count == 0 && l.omitted > 0 {
		notices = append(notices, render.Plural(l.omitted, "lock", "locks")+" of transactions on their own IDs left out; add -f 'type in (transactionid, virtualxid)' to show them")
	} else if l.count == 0 {
		lines, err := r.unmatched(ctx, session)
		if err != nil {
			return nil, err
		}
		notices = append(notices, lines...)
	}
	if f := r.format; l.count == 0 && (f.Name == "table" || f.Expanded) && !f.IsMachine() {
		fmt.Fprintln(out, "no "+l.what)
		return notices, nil
	}
	return notices, l.table.Write(out)
}
