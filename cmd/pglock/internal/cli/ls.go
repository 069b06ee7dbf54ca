package cli

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/pgxlock"
)

const lsHelp = `Lists the advisory locks and the locks on tables and the like, of the whole
server: who holds them, and who waits for them and for how long. Of other kinds
of locks it lists those that somebody waits for. What is waited for comes first,
the longest wait on top.

On a terminal it is a table. In a pipe it is lines with tabs, under a line of
names; -o json is an array of objects with the same names and more of them.
Durations are seconds there, and times are as in RFC 3339.`

const lsExamples = `  pglock ls
  pglock -h db.example.com -d app ls
  pglock ls -o json | jq '.[] | select(.granted | not)'`

func (a *app) lsCommand() *cobra.Command {
	output := outputFlag{choices: []string{"table", "tsv", "json"}}
	cmd := &cobra.Command{
		Use:                   "ls [-o FORMAT]",
		Short:                 "List locks: who holds, who waits",
		Long:                  lsHelp,
		Example:               lsExamples,
		DisableFlagsInUseLine: true,
		Args:                  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.ls(cmd.Context(), output.value)
		},
	}
	cmd.Flags().VarP(&output, "output", "o", output.usage()+" (default table on a terminal, else tsv)")
	return cmd
}

func (a *app) ls(ctx context.Context, output string) error {
	config, err := a.connection.Config(a.getenv, applicationName("ls", ""))
	if err != nil {
		return err
	}
	var locks []inspect.Lock
	err = a.connection.WithPassword(ctx, config, func(config *pgx.ConnConfig) error {
		var err error
		locks, err = readLocks(ctx, config)
		return err
	})
	if err != nil {
		return err
	}
	locks = slices.DeleteFunc(locks, func(l inspect.Lock) bool {
		return l.Granted && l.Type != "advisory" && l.Type != "relation"
	})
	slices.SortStableFunc(locks, byUrgency)

	terminal := isTerminal(a.Out)
	if output == "" {
		output = "tsv"
		if terminal {
			output = "table"
		}
	}
	attributes := inspect.Attributes()
	if output == "json" {
		return writeJSON(a.Out, attributes, locks)
	}
	columns := []string{"pid", "granted", "mode", "target", "database", "wait_duration", "application", "state", "query"}
	elsewhere := func(l inspect.Lock) bool { return l.Database != "" && l.Database != config.Database }
	if output == "table" && !slices.ContainsFunc(locks, elsewhere) {
		// The same key in another database is another lock, but there is none.
		columns = slices.DeleteFunc(columns, func(name string) bool { return name == "database" })
	}
	nameKeys(locks)
	t := newTable(attributes, columns)
	for i := range locks {
		t.add(&locks[i])
	}
	if output == "tsv" {
		return t.writeTSV(a.Out)
	}
	if len(locks) == 0 {
		_, err := fmt.Fprintln(a.Out, "no locks")
		return err
	}
	return t.writeAligned(a.Out, a.width(), terminal && a.wantsColor())
}

// readLocks opens a session for as long as the reading takes.
func readLocks(ctx context.Context, config *pgx.ConnConfig) ([]inspect.Lock, error) {
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = conn.Close(ctx)
	}()
	return inspect.Locks(ctx, pgxlock.Conn(conn))
}

// byUrgency puts what is waited for first, the longest wait on top.
func byUrgency(a, b inspect.Lock) int {
	if a.Granted != b.Granted {
		if a.Granted {
			return 1
		}
		return -1
	}
	return cmp.Or(
		-cmp.Compare(a.WaitDuration, b.WaitDuration),
		cmp.Compare(a.Target(), b.Target()),
		cmp.Compare(a.PID, b.PID),
		cmp.Compare(a.Mode, b.Mode),
	)
}

// nameKeys gives advisory locks their names, where a pglock run that holds or
// waits for one says its name, and the name proves true.
func nameKeys(locks []inspect.Lock) {
	names := map[pglock.Key]pglock.Key{}
	for _, l := range locks {
		if name, ok := strings.CutPrefix(l.Application, applicationName("run", "")+" "); ok && l.HasKey {
			if key := pglock.Name(name); !l.Key.IsPair() && key.ID() == l.Key.ID() {
				names[l.Key] = key
			}
		}
	}
	for i, l := range locks {
		if key, ok := names[l.Key]; ok && l.HasKey {
			locks[i].Key = key
		}
	}
}

// wantsColor obeys https://no-color.org and terminals that say they are dumb.
func (a *app) wantsColor() bool {
	return a.getenv("NO_COLOR") == "" && a.getenv("TERM") != "dumb"
}

// shortDuration is d for a person: two units at the most.
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
