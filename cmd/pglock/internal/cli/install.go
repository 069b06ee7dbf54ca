package cli

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/cmd/pglock/internal/render"
	"github.com/pglock-go/pglock/internal/sqlstate"
	"github.com/pglock-go/pglock/internal/sqltext"
)

//go:embed leasegrants.sql
var leaseGrantsSQL string

const installHelp = `Creates the tables of leases in a schema of the database, and the schema if it
does not exist. pglock run --lease and programs with pglock.Leases need them. It
may be repeated: it changes nothing that is up to date, and updates tables of an
older version.

The role must own the schema or the database, or have CREATE on it. --grant
gives a role what it needs to use leases: USAGE on the schema, and SELECT,
INSERT, UPDATE and DELETE on the two tables.

--print prints the statements and does not connect, for a migration tool or
another role. It is what LeaseSQL returns in Go, followed by the grants.`

const installExamples = `  pglock install --grant app
  pglock install --schema locks --grant app --grant worker
  pglock install --print --grant app > migrations/0042_leases.sql`

// An installRequest holds the arguments of pglock install.
type installRequest struct {
	schema schemaFlag
	grants rolesFlag
}

func (a *app) installCommand() *cobra.Command {
	var r installRequest
	var onlyPrint bool
	cmd := &cobra.Command{
		Use:                   "install [FLAG...]",
		Short:                 "Create the tables of leases",
		Long:                  installHelp,
		Example:               installExamples,
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := noArgs(cmd, args); err != nil {
				return err
			}
			if onlyPrint {
				return r.print(a)
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
	cmd.Flags().Var(&r.grants, "grant", "let this `ROLE` use leases; repeat for more roles")
	cmd.Flags().BoolVar(&onlyPrint, "print", false, "print the statements and do not connect")
	return cmd
}

// print prints the statements.
func (r *installRequest) print(a *app) error {
	text := pglock.LeaseSQL(r.schema.name)
	if grants := r.grantSQL(); grants != "" {
		text += "\n" + grants
	}
	_, err := fmt.Fprint(a.Out, text)
	return err
}

// grantSQL returns the statements of --grant, each on its own line.
func (r *installRequest) grantSQL() string {
	schema := sqltext.Identifier(r.schema.name)
	var b strings.Builder
	for _, role := range r.grants {
		role = sqltext.Identifier(role)
		fmt.Fprintf(&b, "GRANT USAGE ON SCHEMA %s TO %s;\n", schema, role)
		fmt.Fprintf(&b, "GRANT SELECT, INSERT, UPDATE, DELETE ON %s.session, %[1]s.lease TO %s;\n", schema, role)
	}
	return b.String()
}

// run creates or updates the tables, and grants their use.
func (r *installRequest) run(ctx context.Context, a *app, s *session) error {
	before, err := readLeaseTables(ctx, s, r.schema.name)
	if err != nil {
		return err
	}
	if err := before.check(r.schema.name); err != nil {
		return err
	}
	version := int64(0)
	if before.exist() {
		contents, err := readLeaseContents(ctx, s, r.schema.name)
		if err != nil {
			return r.adviseInstall(err, before)
		}
		version = contents.Version
	}
	current := version >= installedVersion() && before.Fence
	if !current || len(r.grants) > 0 {
		if err := r.change(ctx, s, before, current); err != nil {
			return r.adviseInstall(err, before)
		}
	}
	where := "the tables of leases in schema " + render.Quote(r.schema.name)
	switch {
	case current:
		fmt.Fprintf(a.Out, "%s are up to date\n", where)
	case before.exist():
		fmt.Fprintf(a.Out, "updated %s from version %d to %d\n", where, version, installedVersion())
	default:
		fmt.Fprintf(a.Out, "created %s\n", where)
	}
	for _, role := range r.grants {
		fmt.Fprintf(a.Out, "granted the use of leases to %s\n", render.Quote(role))
	}
	return nil
}

// change creates or updates the tables unless they are current, and grants their use.
func (r *installRequest) change(ctx context.Context, s *session, before leaseTables, current bool) error {
	create := ""
	if !current {
		create = pglock.LeaseSQL(r.schema.name)
		if before.SchemaOwner != "" {
			create = withoutSchema(create)
		}
	}
	grants := []string{}
	grants = append(grants, r.grants...)
	roles, err := json.Marshal(grants)
	if err != nil {
		return err
	}
	// The transaction-level lock lets several installations run one after the other.
	text, err := s.change(ctx, fmt.Sprintf("SELECT FROM pg_catalog.pg_advisory_xact_lock(%d);\n%s\n%s%s",
		pglock.Name("pglock install").ID(), create, r.grantSQL(),
		sqltext.Inline(sqltext.WithoutComment(leaseGrantsSQL), r.schema.name, string(roles))))
	if err != nil {
		return err
	}
	var without []string
	if err := json.Unmarshal([]byte(text), &without); err != nil {
		return err
	}
	if len(without) > 0 {
		return before.ownerError(fmt.Sprintf("role %s may not grant the use of leases to %s", render.Quote(before.Role), render.Quote(without[0])),
			r.schema, "pglock install", nil)
	}
	return nil
}

// withoutSchema returns the statements of LeaseSQL without the one that creates the schema.
// Postgres refuses that to a role without CREATE on the database, even if the schema
// exists.
func withoutSchema(sql string) string {
	before, rest, found := strings.Cut(sql, "CREATE SCHEMA IF NOT EXISTS ")
	if !found {
		return sql
	}
	if _, after, found := strings.Cut(rest, ";\n"); found {
		return before + after
	}
	return sql
}

// installedVersion returns the version of the tables that LeaseSQL creates.
func installedVersion() int64 {
	_, after, _ := strings.Cut(pglock.LeaseSQL("pglock"), "VALUES ('#version', ")
	number, _, _ := strings.Cut(after, ")")
	version, _ := strconv.ParseInt(number, 10, 64) // install.txtar checks it
	return version
}

// adviseInstall returns an error of installing, with who can do what the role may not.
func (r *installRequest) adviseInstall(err error, t leaseTables) error {
	switch sqlstate.Of(err) {
	case sqlstate.InsufficientPrivilege:
		return t.ownerError(serverMessage(err)+", so nothing was changed", r.schema, "pglock install", err)
	case sqlstate.UndefinedObject:
		return &advisedError{serverMessage(err) + ", so nothing was changed", err}
	}
	return err
}
