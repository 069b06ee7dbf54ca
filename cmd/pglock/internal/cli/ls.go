package cli

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/pglock-go/pglock/cmd/pglock/internal/render"
	"github.com/pglock-go/pglock/inspect"
)

const lsHelp = `Lists the locks of the whole server: who holds them, who waits, and for how long.
Locks that are waited for come first, the longest wait on top. With --blocking there
is a row for each pair of a waiting session and one that blocks it.

The locks that each transaction holds on its own transaction IDs are left out, unless a
session waits for them, or a filter is about type, transactionid or virtualxid.

The output is a table on a terminal, else tab-separated lines under a header. -o json
prints an array of objects and -o csv a table, both with all attributes unless -a
selects some. In tsv, csv and json, durations are in seconds and times as in RFC 3339.

A filter is one argument, FIELD OP VALUE. FIELD is an attribute or context.KEY. OP is
one of = != < <= > >= and, for text, ~ and !~ with a regular expression. There are also
FIELD in (VALUE, ...), not in (...), is null and is not null. All filters must match.`

const lsExamples = `  pglock ls
  pglock ls --blocking
  pglock ls --on public.orders
  pglock ls -f 'state in (active, idle in transaction)'
  pglock ls -f granted=false -f 'wait_duration > 5s' -a pid,wait_duration,target,query
  pglock ls -e 4711
  pglock ls -o json | jq '.[] | select(.granted | not)'`

// An lsRequest holds the arguments of pglock ls.
type lsRequest struct {
	selection
	format render.Format
}

func (a *app) lsCommand() *cobra.Command {
	var r lsRequest
	var watch watchFlag
	output := outputFlag{choices: []string{"table", "tsv", "csv", "json"}}
	cmd := &cobra.Command{
		Use:                   "ls [FLAG...] [PID...]",
		Short:                 "List locks, their holders and their waiters",
		Long:                  lsHelp,
		Example:               lsExamples,
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			args = watch.fromArgs(args)
			if err := r.resolve(a, cmd, args); err != nil {
				return err
			}
			r.format = a.format(r.outputOr(output), r.expanded)
			return a.show(cmd.Context(), "ls", watch, r.draw)
		},
	}
	cmd.Flags().SortFlags = false
	r.register(cmd.Flags(), "show pairs of a waiting session and one that blocks it")
	r.registerList(cmd.Flags())
	cmd.Flags().VarP(&output, "output", "o", output.usage()+" (default table on a terminal, else tsv)")
	watch.register(cmd.Flags())
	return cmd
}

// draw writes the selected locks or pairs, and returns notices for stderr.
func (r *lsRequest) draw(ctx context.Context, session *session, out *bytes.Buffer) ([]string, error) {
	f := r.format
	t := &render.Table{Columns: r.listColumns(), Format: f}
	if f.IsMachine() && !r.explicitColumns {
		t.Columns = r.availableAttributes() // even if a config file has defaults
	}
	hidden := map[int32]bool{}
	hide := func(s *inspect.Session) {
		if s.Hidden {
			hidden[s.PID] = true
		}
	}
	count, omitted, what := 0, 0, "locks"
	if r.blocking {
		what = "pairs"
		pairs, err := inspect.Blocked(ctx, session.guarded, r.where...)
		if err != nil {
			return nil, err
		}
		if !f.IsMachine() {
			render.NameKeys(nil, pairs)
		}
		count = len(pairs)
		for i := range r.shown(count) {
			p := &pairs[i]
			t.AddPair(p)
			hide(p.Session)
			hide(p.Blocking)
		}
	} else {
		locks, err := inspect.Locks(ctx, session.guarded, r.where...)
		if err != nil {
			return nil, err
		}
		if locks, omitted, err = r.omitOwnTransactionIDs(ctx, session, locks); err != nil {
			return nil, err
		}
		slices.SortStableFunc(locks, byUrgency)
		if !f.IsMachine() {
			render.NameKeys(locks, nil)
		}
		count = len(locks)
		for i := range r.shown(count) {
			l := &locks[i]
			t.AddLock(l)
			hide(l.Session)
		}
	}
	notices := render.HiddenNotice(len(hidden), session.user)
	if n := r.shown(count); n < count {
		notices = append(notices, fmt.Sprintf("showing %d of %d %s; -l 0 shows all", n, count, what))
	}
	if count == 0 && omitted > 0 {
		notices = append(notices, render.Plural(omitted, "lock", "locks")+" of transactions on their own IDs left out; add -f 'type in (transactionid, virtualxid)' to show them")
	} else if count == 0 {
		lines, err := r.unmatched(ctx, session)
		if err != nil {
			return nil, err
		}
		notices = append(notices, lines...)
	}
	if count == 0 && (f.Name == "table" || f.Expanded) && !f.IsMachine() {
		fmt.Fprintln(out, "no "+what)
		return notices, nil
	}
	return notices, t.Write(out)
}

// shown returns how many of n rows the limit allows.
func (r *lsRequest) shown(n int) int {
	if r.limit > 0 {
		n = min(n, int(r.limit))
	}
	return n
}

// A transactionID is a transaction ID or a virtual one that is locked.
type transactionID struct {
	xid  uint32
	vxid string
}

// isOwnTransactionID reports whether l is a lock that a transaction holds on its own ID.
func isOwnTransactionID(l inspect.Lock) bool {
	return l.Granted && (l.Type == "virtualxid" || l.Type == "transactionid")
}

// omitOwnTransactionIDs leaves out the locks that transactions hold on their own IDs,
// unless a session waits for them or a filter is about them. It returns the other locks
// and how many it has left out.
func (r *lsRequest) omitOwnTransactionIDs(ctx context.Context, session *session, locks []inspect.Lock) ([]inspect.Lock, int, error) {
	if slices.ContainsFunc(r.filters, isAboutTransactionIDs) || !slices.ContainsFunc(locks, isOwnTransactionID) {
		return locks, 0, nil
	}
	all := locks
	if len(r.where) > 0 { // the waits are not among the selected locks
		var err error
		all, err = inspect.Locks(ctx, session.guarded,
			inspect.Where("granted", "=", "false"), inspect.Where("type", "in", "transactionid", "virtualxid"))
		if err != nil {
			return nil, 0, err
		}
	}
	waitedFor := map[transactionID]bool{}
	for _, l := range all {
		if !l.Granted {
			waitedFor[transactionID{l.TransactionID, l.VirtualXID}] = true
		}
	}
	before := len(locks)
	locks = slices.DeleteFunc(locks, func(l inspect.Lock) bool {
		return isOwnTransactionID(l) && !waitedFor[transactionID{l.TransactionID, l.VirtualXID}]
	})
	return locks, before - len(locks), nil
}

// byUrgency orders waiting locks first, longest wait on top, and then by how long their
// sessions have been in their state.
func byUrgency(a, b inspect.Lock) int {
	if a.Granted != b.Granted {
		if a.Granted {
			return 1
		}
		return -1
	}
	return cmp.Or(
		-cmp.Compare(a.WaitDuration, b.WaitDuration),
		-cmp.Compare(a.Duration, b.Duration),
		cmp.Compare(a.PID, b.PID),
		cmp.Compare(a.Target(), b.Target()),
		cmp.Compare(a.Mode, b.Mode),
	)
}
