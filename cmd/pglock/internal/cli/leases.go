package cli

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/cmd/pglock/internal/render"
	"github.com/pglock-go/pglock/inspect"
)

const leasesHelp = `Lists the leases of the database: which process holds each, for how long, and
how long it lasts if it is not renewed. Those that others wait for come first.
With NAME, only these leases.

A lease that has expired is shown until another process takes it. A lease that
is free is shown if it may not be taken yet. Behind a connection pooler, waiting
processes poll, so that nothing shows that they wait.

Leases are rows of tables, and no locks of Postgres: the conditions of pglock ls
are about sessions of the server, and do not apply. If the tables do not exist,
there are no leases.

The output is a table on a terminal, tab-separated lines under a header
elsewhere, or JSON or CSV. In tsv, csv and json, durations are in seconds and
times as in RFC 3339.`

const leasesExamples = `  pglock leases
  pglock leases nightly-report
  pglock leases --all -o json | jq '.[] | select(.state == "expired")'`

// A leasesRequest holds the arguments of pglock leases.
type leasesRequest struct {
	schema schemaFlag
	keys   []pglock.Key // of the leases to show; none for all
	limit  limitFlag
	format render.Format
}

func (a *app) leasesCommand() *cobra.Command {
	r := leasesRequest{limit: defaultLimit}
	var numbers keysFlag
	var watch watchFlag
	var expanded bool
	output := outputFlag{choices: []string{"table", "tsv", "csv", "json"}}
	cmd := &cobra.Command{
		Use:                   "leases [FLAG...] [NAME...]",
		Short:                 "List leases and their holders",
		Long:                  leasesHelp,
		Example:               leasesExamples,
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			r.keys = slices.Clone(numbers)
			for _, name := range watch.fromArgs(args) {
				key, err := parseName(name)
				if err != nil {
					return usagef(cmd, "%v", err)
				}
				r.keys = append(r.keys, key)
			}
			r.format = a.format(output.value, expanded)
			return a.show(cmd.Context(), cmd.Name(), watch, r.draw)
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	r.schema.register(flags)
	flags.Var(&numbers, "key", "also the lease of this number or pair; repeatable")
	flags.VarP(&r.limit, "limit", "l", "show at most `N`; 0 for all")
	flags.BoolVarP(&expanded, "expanded", "e", false, "show each attribute on its own line")
	severalFlag(cmd)
	flags.VarP(&output, "output", "o", output.usage()+" (default table on a terminal, else tsv)")
	watch.register(flags)
	return cmd
}

// draw writes the leases, and returns notices for stderr.
func (r *leasesRequest) draw(ctx context.Context, f *fleet, out *bytes.Buffer) ([]string, error) {
	n, notices, err := r.write(ctx, f, out)
	if err != nil || n > 0 || r.format.IsMachine() {
		return notices, err
	}
	if r.format.Name == "table" || r.format.Expanded {
		out.Reset()
		fmt.Fprintln(out, "no leases")
	}
	return notices, nil
}

// leasesOf is what was read from one database.
type leasesOf struct {
	leases  []inspect.Lease
	notices []string
}

// write writes a table of the leases of all databases, and returns how many there are.
func (r *leasesRequest) write(ctx context.Context, f *fleet, out *bytes.Buffer) (n int, notices []string, err error) {
	parts, err := readAll(ctx, f, func(ctx context.Context, s *session) (leasesOf, error) {
		leases, notices, err := readLeases(ctx, s, r.schema, r.keys...)
		return leasesOf{leases, notices}, err
	})
	if err != nil {
		return 0, nil, err
	}
	type row struct {
		database string
		*inspect.Lease
	}
	var rows []row
	for _, p := range parts {
		notices = append(notices, p.value.notices...)
		for i := range p.value.leases {
			rows = append(rows, row{p.name, &p.value.leases[i]})
		}
	}
	// Each database's leases are in order already.
	slices.SortStableFunc(rows, func(a, b row) int { return cmp.Compare(order(a.Lease), order(b.Lease)) })
	shown := rows
	if r.limit > 0 {
		shown = rows[:min(len(rows), int(r.limit))]
	}
	table := &render.Table{Columns: render.LeaseColumns(r.format), Format: r.format, Default: true}
	if f.several {
		table.AddDatabaseName()
	}
	for _, row := range shown {
		table.Database = row.database
		table.AddLease(row.Lease)
	}
	if len(shown) < len(rows) {
		notices = append(notices, fmt.Sprintf("showing %d of %d leases; -l 0 shows all", len(shown), len(rows)))
	}
	return len(rows), notices, table.Write(out)
}

// order returns the place of a lease in a list: those that others wait for come first, then
// those that have an owner.
func order(l *inspect.Lease) int {
	switch {
	case l.Wanted:
		return 0
	case l.Owner != "":
		return 1
	}
	return 2
}
