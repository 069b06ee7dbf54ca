package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pglock-go/pglock/cmd/pglock/internal/config"
	"github.com/pglock-go/pglock/cmd/pglock/internal/connect"
	"github.com/pglock-go/pglock/cmd/pglock/internal/render"
	"github.com/pglock-go/pglock/cmd/pglock/internal/top"
	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/feed"
)

const topHelp = `Shows live who waits for whom, and ends what blocks the others. The keys that do
something are at the bottom of the screen; ? lists all of them.

Views, with tab: the tree of waiting sessions, pairs of a waiting session and one that
blocks it, all locks, all sessions, and what blocked whom in the last 15 minutes. If
nobody waits, the first view shows the longest transactions, those that are idle, and
those that hold VACUUM back.

t terminates the selected session and c cancels its statement. Both show first what
would happen, who it frees and what else could be done, and then ask. Where ending is
grave, the PID must be typed: a transaction that has written or is 10 minutes old, or
several sessions. A session that has ended or no longer blocks is spared, also if its
PID was reused. What was ended is printed at the end.

Reading takes at most 5 % of one backend's time: if it takes long, the interval grows.

--read-only, PGLOCK_READ_ONLY in the environment, and read_only: true for a database in
the config file take away the keys that end sessions.

-d NAME,NAME and --all show several databases, of which d selects one.

top needs a terminal. Elsewhere, use pglock tree --watch.`

const topExamples = `  pglock top
  pglock top --on orders
  pglock top -d prod --read-only
  pglock top --all --every 5s`

// A topRequest holds the arguments of pglock top.
type topRequest struct {
	selection
	every    durationFlag
	readOnly bool
	ascii    bool
}

func (a *app) topCommand() *cobra.Command {
	r := topRequest{every: durationFlag{value: time.Second, min: 200 * time.Millisecond, what: "must be 200ms or longer"}}
	cmd := &cobra.Command{
		Use:                   "top [FLAG...] [PID...]",
		Short:                 "Watch who waits for whom, and end what blocks",
		Long:                  topHelp,
		Example:               topExamples,
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := r.resolve(a, cmd, args); err != nil {
				return err
			}
			if r.blocking {
				return usagef(cmd, "--config %s: this view is about pairs, and top filters locks", render.Quote(r.view))
			}
			if !isTerminal(a.In) || !isTerminal(a.Out) || a.getenv("TERM") == "dumb" {
				return &usageError{text: "top needs a terminal; use pglock tree --watch", hint: seeHelp(cmd)}
			}
			return a.top(cmd.Context(), &r)
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.VarP(&r.filters, "filter", "f", "only what matches `\"FIELD OP VALUE\"`; repeat to require all")
	flags.Var(&r.tables, "on", "only locks on this `table`; repeat for more tables")
	flags.StringVarP(&r.view, "config", "c", "", "also apply this `VIEW` of the config file")
	severalFlag(cmd)
	flags.Var(&r.every, "every", "read every `DURATION`, 1s by default")
	flags.BoolVar(&r.readOnly, "read-only", false, "end no session")
	flags.BoolVar(&r.ascii, "ascii", false, "draw with ASCII characters")
	return cmd
}

// top runs the live view until the user quits, and prints what was ended.
func (a *app) top(ctx context.Context, r *topRequest) error {
	databases, closeFirst, err := a.topDatabases(ctx, r)
	if err != nil {
		return err
	}
	defer closeFirst()
	done, err := top.Run(ctx, databases, top.Options{
		Style:    top.Style{Color: a.useColor(), ASCII: r.ascii || !a.useUnicode()},
		In:       a.In,
		Out:      a.Out,
		Env:      a.env,
		Every:    r.every.value,
		Filters:  r.where,
		Describe: message,
	})
	for _, line := range done {
		fmt.Fprintln(a.Out, line)
	}
	return err
}

// topDatabases returns the chosen databases. If there is only one, it is connected first:
// what is wrong with its settings, or its password, is a matter of the command line.
func (a *app) topDatabases(ctx context.Context, r *topRequest) (databases []top.Database, closeFirst func(), err error) {
	application := render.ApplicationName("top", "")
	add := func(name string, flags connect.Flags, target *connect.Target, database config.Database) *top.Database {
		flags.NeverAsk, flags.Ask = true, false // there is a view on the terminal by then
		databases = append(databases, top.Database{
			Name:      name,
			Where:     where(target),
			ReadOnly:  a.whyReadOnly(database, r.readOnly),
			LockNames: r.lockNames,
			Open: func(ctx context.Context) (driver.Querier, func(), error) {
				s, err := openOn(ctx, flags, target)
				if err != nil {
					return nil, nil, err
				}
				return s.guarded, s.close, nil
			},
		})
		return &databases[len(databases)-1]
	}
	for _, c := range a.config.choices {
		target, err := a.targetOf(c, application)
		if err != nil {
			return nil, nil, err
		}
		target.LimitConnect(connectLimit)
		add(c.name, c.flags, target, c.database)
	}
	if len(databases) > 0 {
		return databases, func() {}, nil
	}
	target, err := a.target(application)
	if err != nil {
		return nil, nil, err
	}
	first, err := openOn(ctx, a.connection, target)
	if err != nil {
		return nil, nil, err
	}
	d := add("", a.connection, target, a.config.database)
	d.Open, closeFirst = openFirst(first, d.Open)
	return databases, closeFirst, nil
}

// openFirst returns a function that returns the first session once, and then opens others.
// closeFirst closes the first one if it was not used.
func openFirst(first *session, open feed.OpenFunc) (next feed.OpenFunc, closeFirst func()) {
	next = func(ctx context.Context) (driver.Querier, func(), error) {
		if first == nil {
			return open(ctx)
		}
		s := first
		first = nil
		return s.guarded, s.close, nil
	}
	return next, func() {
		if first != nil {
			first.close()
		}
	}
}

// where describes a target as psql's prompt does.
func where(target *connect.Target) string {
	host, _, port := target.Hosts()
	if strings.HasPrefix(host, "/") || strings.HasPrefix(host, "@") {
		host = "[local]"
	}
	return fmt.Sprintf("%s@%s:%s/%s", target.User, host, port, target.ShownDatabase())
}
