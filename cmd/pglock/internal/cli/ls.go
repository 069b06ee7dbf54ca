package cli

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/pglock-go/pglock/inspect"
)

const lsHelp = `Lists the locks of the whole server: who holds them, who waits, and for how long.
Locks that are waited for come first, the longest wait on top. With --blocking there
is a row for each pair of a waiting session and one that blocks it.

Without PIDs, filters or tables, the locks that each transaction holds on its own
transaction IDs are left out, unless a session waits for them.

The output is a table on a terminal, else tab-separated lines under a header. -o json
prints an array of objects and -o csv a table, both with all attributes unless -a
selects some. In tsv, csv and json, durations are in seconds and times as in RFC 3339.

A filter is one argument, FIELD OP VALUE. FIELD is an attribute or context.KEY. OP is
one of = != < <= > >= and, for text, ~ and !~ with a regular expression.`

const lsExamples = `  pglock ls
  pglock ls --blocking
  pglock ls --on public.orders
  pglock ls -f granted=false -f 'wait_duration > 5s' -a pid,wait_duration,target,query
  pglock ls -e 4711
  pglock ls -o json | jq '.[] | select(.granted | not)'`

func (a *app) lsCommand() *cobra.Command {
	var s selection
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
			if err := s.resolve(a, cmd, args); err != nil {
				return err
			}
			f := a.format(s.outputOr(output), s.expanded)
			return a.show(cmd.Context(), "ls", watch, func(ctx context.Context, session *session, out *bytes.Buffer) ([]string, error) {
				return s.list(ctx, session, out, f)
			})
		},
	}
	cmd.Flags().SortFlags = false
	s.register(cmd.Flags(), "show pairs of a waiting session and one that blocks it")
	s.registerList(cmd.Flags())
	cmd.Flags().VarP(&output, "output", "o", output.usage()+" (default table on a terminal, else tsv)")
	watch.register(cmd.Flags())
	return cmd
}

// format returns the format called name. If name is "", it is a table on a terminal, and
// tsv elsewhere.
func (a *app) format(name string, expanded bool) format {
	terminal := isTerminal(a.Out)
	f := format{name: name, expanded: expanded, width: a.width(), color: terminal && a.useColor()}
	if name == "" {
		f.name = "tsv"
		if terminal {
			f.name = "table"
		}
	}
	return f
}

// isMachine reports whether the format is only for programs.
func (f format) isMachine() bool { return f.name == "json" || f.name == "csv" }

// list writes the selected locks or pairs, and returns notices for stderr.
func (s *selection) list(ctx context.Context, session *session, out *bytes.Buffer, f format) ([]string, error) {
	defaults := defaultColumns
	if s.blocking {
		defaults = defaultPairColumns
	}
	t := &table{columns: s.columns(defaults...)}
	if f.isMachine() && !s.explicitColumns {
		t.columns = s.availableAttributes() // even if a config file has defaults
	}
	hidden := map[int32]bool{}
	hide := func(s *inspect.Session) {
		if s.Hidden {
			hidden[s.PID] = true
		}
	}
	count, what := 0, "locks"
	if s.blocking {
		what = "pairs"
		pairs, err := inspect.Blocked(ctx, session.guarded, s.all()...)
		if err != nil {
			return nil, err
		}
		if !f.isMachine() {
			nameKeys(locksOf(nil, pairs))
		}
		count = len(pairs)
		for i := range s.shown(count) {
			p := &pairs[i]
			t.add(true, func(a inspect.Attribute) any {
				switch {
				case f.isMachine():
				case a.Name == "application":
					return applicationOf(p.Session)
				case a.Name == "blocking_application":
					return applicationOf(p.Blocking)
				}
				return a.PairValue(p)
			})
			hide(p.Session)
			hide(p.Blocking)
		}
	} else {
		locks, err := inspect.Locks(ctx, session.guarded, s.all()...)
		if err != nil {
			return nil, err
		}
		if s.isEmpty() {
			locks = omitOwnTransactionIDs(locks)
		}
		slices.SortStableFunc(locks, byUrgency)
		if !f.isMachine() {
			nameKeys(locksOf(locks, nil))
		}
		count = len(locks)
		for i := range s.shown(count) {
			l := &locks[i]
			t.add(!l.Granted, func(a inspect.Attribute) any {
				switch {
				case f.isMachine():
				case a.Name == "relation" && l.Relation == "":
					return l.Target() // always show people what is locked
				case a.Name == "application":
					return applicationOf(l.Session)
				}
				return a.Value(l)
			})
			hide(l.Session)
		}
	}
	notices := hiddenNotice(session, len(hidden))
	if n := s.shown(count); n < count {
		notices = append(notices, fmt.Sprintf("showing %d of %d %s; -l 0 shows all", n, count, what))
	}
	if count == 0 {
		lines, err := s.unmatched(ctx, session)
		if err != nil {
			return nil, err
		}
		notices = append(notices, lines...)
	}
	if count == 0 && (f.name == "table" || f.expanded) && !f.isMachine() {
		fmt.Fprintln(out, "no "+what)
		return notices, nil
	}
	return notices, t.write(out, f)
}

// shown returns how many of n rows the limit allows.
func (s *selection) shown(n int) int {
	if s.limit > 0 {
		n = min(n, int(s.limit))
	}
	return n
}

// omitOwnTransactionIDs leaves out the locks that transactions hold on their own transaction IDs,
// unless a session waits for them.
func omitOwnTransactionIDs(locks []inspect.Lock) []inspect.Lock {
	type transaction struct {
		xid  uint32
		vxid string
	}
	waitedFor := map[transaction]bool{}
	for _, l := range locks {
		if !l.Granted {
			waitedFor[transaction{l.TransactionID, l.VirtualXID}] = true
		}
	}
	return slices.DeleteFunc(locks, func(l inspect.Lock) bool {
		return l.Granted && (l.Type == "virtualxid" || l.Type == "transactionid") && !waitedFor[transaction{l.TransactionID, l.VirtualXID}]
	})
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

// locksOf returns all locks in locks and pairs.
func locksOf(locks []inspect.Lock, pairs []inspect.Pair) []*inspect.Lock {
	var all []*inspect.Lock
	for i := range locks {
		all = append(all, &locks[i])
	}
	for _, p := range pairs {
		all = append(all, p.Lock)
		if p.Held != nil {
			all = append(all, p.Held)
		}
	}
	return all
}

// useColor reports whether NO_COLOR (https://no-color.org) and TERM allow color.
func (a *app) useColor() bool {
	return a.getenv("NO_COLOR") == "" && a.getenv("TERM") != "dumb"
}

// shortDuration formats d for people, with at most two units.
func shortDuration(d time.Duration) string {
	day := 24 * time.Hour
	switch {
	case d < time.Second:
		return fmt.Sprintf("%dms", d.Milliseconds())
	case d < time.Minute:
		return strconv.FormatFloat(d.Truncate(100*time.Millisecond).Seconds(), 'f', 1, 64) + "s"
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", d/time.Minute, d%time.Minute/time.Second)
	case d < day:
		return fmt.Sprintf("%dh%02dm", d/time.Hour, d%time.Hour/time.Minute)
	}
	return fmt.Sprintf("%dd%02dh", d/day, d%day/time.Hour)
}
