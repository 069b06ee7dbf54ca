package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/cmd/pglock/internal/render"
)

const modesHelp = `Prints the modes of table locks, from the weakest to the strongest, and which of them
conflict: an X means that two sessions cannot hold the two modes on one table at the
same time. With MODE, only the modes that conflict with it are printed. MODE is
written as in SQL or as in pg_locks.`

const modesExamples = `  pglock modes
  pglock modes share row exclusive
  pglock modes AccessShareLock
  pglock modes -o json | jq '.[] | select(.mode == "SHARE") | .conflicts'`

func (a *app) modesCommand() *cobra.Command {
	output := outputFlag{value: "table", choices: []string{"table", "json"}}
	cmd := &cobra.Command{
		Use:                   "modes [-o FORMAT] [MODE]",
		Short:                 "Print the modes of table locks and their conflicts",
		Long:                  modesHelp,
		Example:               modesExamples,
		Annotations:           map[string]string{offline: "true"},
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			modes := pglock.Modes()
			if len(args) > 0 {
				mode, err := pglock.ParseMode(strings.Join(args, " "))
				if err != nil {
					return usagef(cmd, "%s", strings.TrimPrefix(err.Error(), "pglock: "))
				}
				modes = []pglock.Mode{mode}
			}
			switch {
			case output.value == "json":
				return writeModesJSON(a.Out, modes)
			case len(args) > 0:
				return writeConflicts(a.Out, modes[0])
			}
			return writeModes(a.Out)
		},
	}
	cmd.Flags().VarP(&output, "output", "o", output.usage())
	return cmd
}

// conflictsOf returns the modes that conflict with m.
func conflictsOf(m pglock.Mode) []pglock.Mode {
	var conflicts []pglock.Mode
	for _, other := range pglock.Modes() {
		if m.Conflicts(other) {
			conflicts = append(conflicts, other)
		}
	}
	return conflicts
}

// writeModes writes the table of all modes. Its columns are numbered like its rows.
func writeModes(out io.Writer) error {
	const name = "%d  %-24s%-26s"
	var b strings.Builder
	fmt.Fprintf(&b, "   %-24s%-26s", "mode", "in pg_locks")
	for i := range pglock.Modes() {
		fmt.Fprintf(&b, "%-3d", i+1)
	}
	for i, m := range pglock.Modes() {
		fmt.Fprintf(&b, "\n"+name, i+1, m, m.PgLocks())
		for _, other := range pglock.Modes() {
			mark := "."
			if m.Conflicts(other) {
				mark = "X"
			}
			fmt.Fprintf(&b, "%-3s", mark)
		}
	}
	for line := range strings.SplitSeq(b.String(), "\n") {
		if _, err := fmt.Fprintln(out, strings.TrimRight(line, " ")); err != nil {
			return err
		}
	}
	return nil
}

func writeConflicts(out io.Writer, m pglock.Mode) error {
	for _, other := range conflictsOf(m) {
		if _, err := fmt.Fprintf(out, "%-24s%s\n", other, other.PgLocks()); err != nil {
			return err
		}
	}
	return nil
}

func writeModesJSON(out io.Writer, modes []pglock.Mode) error {
	var objects []render.Object
	for _, m := range modes {
		var names []string
		for _, other := range conflictsOf(m) {
			names = append(names, other.String())
		}
		var o render.Object
		o.Add("mode", m.String())
		o.Add("pg_locks", m.PgLocks())
		o.Add("conflicts", names)
		objects = append(objects, o)
	}
	return render.WriteObjects(out, objects)
}
