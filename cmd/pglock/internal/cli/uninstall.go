package cli

import (
	"context"
	_ "embed"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pglock-go/pglock/cmd/pglock/internal/render"
	"github.com/pglock-go/pglock/internal/sqlstate"
	"github.com/pglock-go/pglock/internal/sqltext"
)

var (
	//go:embed lockleases.sql
	lockLeasesSQL string

	//go:embed dropleases.sql
	dropLeasesSQL string
)

const uninstallHelp = `Drops the tables of leases and the function fence, and then the schema if
nothing else is in it and it is not public. If nothing is there, that is no
error.

It refuses while a program uses the tables, that is, while a session has not
expired. A program that was killed counts until then.

pglock asks for confirmation at the terminal, unless -y is given. The tokens of
all leases are gone then: new ones are still greater, unless the server's clock
was set back.

Exit codes:

  0  the tables are gone
  1  a program uses them, or another error
  2  wrong usage
  3  the answer was no`

const uninstallExamples = `  pglock uninstall
  pglock uninstall --schema locks -y`

// An uninstallRequest holds the arguments of pglock uninstall.
type uninstallRequest struct {
	schema    schemaFlag
	confirmed bool
}

func (a *app) uninstallCommand() *cobra.Command {
	var r uninstallRequest
	cmd := &cobra.Command{
		Use:                   "uninstall [FLAG...]",
		Short:                 "Drop the tables of leases",
		Long:                  uninstallHelp,
		Example:               uninstallExamples,
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := noArgs(cmd, args); err != nil {
				return err
			}
			if !r.confirmed && !a.canAsk() {
				return usagef(cmd, "%s", noTerminal("-y"))
			}
			s, err := a.open(cmd.Context(), cmd.Name())
			if err != nil {
				return err
			}
			defer s.close()
			return r.run(cmd.Context(), a, s)
		},
	}
	cmd.Flags().SortFlags = false
	r.schema.register(cmd.Flags())
	cmd.Flags().BoolVarP(&r.confirmed, "yes", "y", false, "do not ask for confirmation")
	return cmd
}

// run drops the tables.
func (r *uninstallRequest) run(ctx context.Context, a *app, s *session) error {
	t, err := readLeaseTables(ctx, s, r.schema.name)
	if err != nil {
		return err
	}
	if err := t.check(r.schema.name); err != nil {
		return err
	}
	where := "the tables of leases in schema " + render.Quote(r.schema.name)
	if len(t.Relations) == 0 {
		fmt.Fprintf(a.Out, "there are no tables of leases in schema %s\n", render.Quote(r.schema.name))
		return nil
	}
	if err := r.checkUnused(ctx, s, t); err != nil {
		return err
	}
	if !r.confirmed {
		q := question{text: "Drop " + where + "?", declined: "nothing was dropped", flags: "-y"}
		if err := a.confirm(q, func(*app) error { return nil }); err != nil {
			return err
		}
	}
	sql := sqltext.WithoutComment(dropLeasesSQL)
	if t.exist() {
		sql = sqltext.WithoutComment(lockLeasesSQL) + "\n" + sql
	}
	if _, err := s.change(ctx, sqltext.InSchema(sql, r.schema.name)); err != nil {
		return r.advise(ctx, s, t, err)
	}
	fmt.Fprintf(a.Out, "dropped %s\n", where)
	return r.dropSchema(ctx, a, s)
}

// checkUnused returns an error if a session has not expired.
func (r *uninstallRequest) checkUnused(ctx context.Context, s *session, t leaseTables) error {
	if !t.exist() {
		return nil
	}
	contents, err := readLeaseContents(ctx, s, r.schema.name)
	if err != nil {
		return r.advise(ctx, s, t, err)
	}
	if len(contents.Sessions) == 0 {
		return nil
	}
	const most = 5
	var users []string
	for i, user := range contents.Sessions {
		if i == most {
			users = append(users, fmt.Sprintf("and %d more", len(contents.Sessions)-most))
			break
		}
		users = append(users, user.String())
	}
	return fmt.Errorf("the leases in schema %s are in use, so nothing was dropped: stop these programs first: %s",
		render.Quote(r.schema.name), strings.Join(users, "; "))
}

// advise returns an error of uninstalling, with what to do.
func (r *uninstallRequest) advise(ctx context.Context, s *session, t leaseTables, err error) error {
	schema := render.Quote(r.schema.name)
	switch sqlstate.Of(err) {
	case sqlstate.DivisionByZero: // see lockleases.sql
		if used := r.checkUnused(ctx, s, t); used != nil {
			return used
		}
		return &advisedError{fmt.Sprintf("a program has begun to use the leases in schema %s, so nothing was dropped", schema), err}
	case sqlstate.LockNotAvailable:
		return &advisedError{fmt.Sprintf("a transaction uses the leases in schema %s, so nothing was dropped: pglock ls --on %s shows it",
			schema, shellWord(r.schema.name+".lease")), err}
	case sqlstate.InsufficientPrivilege:
		return t.ownerError(serverMessage(err)+", so nothing was changed", r.schema, "pglock uninstall", err)
	}
	return err
}

// dropSchema drops the schema if nothing is in it any more.
func (r *uninstallRequest) dropSchema(ctx context.Context, a *app, s *session) error {
	t, err := readLeaseTables(ctx, s, r.schema.name)
	switch {
	case err != nil:
		return err
	case t.SchemaOwner == "":
		return nil
	}
	kept := func(why string) error {
		fmt.Fprintf(a.Out, "kept the schema %s: %s\n", render.Quote(r.schema.name), why)
		return nil
	}
	if r.schema.name == "public" {
		return nil
	}
	if !t.SchemaEmpty {
		return kept("there is something else in it")
	}
	_, err = s.change(ctx, "DROP SCHEMA "+sqltext.Identifier(r.schema.name)+";\nSELECT ''")
	switch sqlstate.Of(err) {
	case sqlstate.DependentObjectsExist:
		return kept("there is something else in it")
	case sqlstate.InsufficientPrivilege:
		return kept("it belongs to " + render.Quote(t.SchemaOwner))
	case sqlstate.InvalidSchemaName:
		return nil
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(a.Out, "dropped the schema %s\n", render.Quote(r.schema.name))
	return nil
}
