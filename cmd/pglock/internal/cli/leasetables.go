package cli

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/spf13/pflag"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/cmd/pglock/internal/render"
	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/internal/handshake"
	"github.com/pglock-go/pglock/internal/sqlstate"
	"github.com/pglock-go/pglock/internal/sqltext"
	"github.com/pglock-go/pglock/internal/termtext"
	"github.com/pglock-go/pglock/pgxlock"
)

// What the verbs about leases share: the flag --schema, and what is known about the tables.

var (
	//go:embed leasetables.sql
	leaseTablesSQL string

	//go:embed leasesessions.sql
	leaseSessionsSQL string
)

// schemaFlag is --schema: the schema of the tables of leases.
type schemaFlag struct {
	name string
	set  bool
}

func (f *schemaFlag) register(flags *pflag.FlagSet) {
	f.name = "pglock"
	flags.Var(f, "schema", "the `schema` of leases")
}

func (f *schemaFlag) Type() string   { return "schema" }
func (f *schemaFlag) String() string { return f.name }

func (f *schemaFlag) Set(s string) error {
	if err := checkIdentifier(s); err != nil {
		return err
	}
	f.name, f.set = s, true
	return nil
}

// command returns a command line of pglock that is about this schema.
func (f *schemaFlag) command(line string) string {
	if f.name == "pglock" {
		return line
	}
	return line + " --schema " + shellWord(f.name)
}

// shellWord returns s as a word of a shell.
func shellWord(s string) string {
	if plainName().MatchString(s) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// maxIdentifier is how many bytes of an identifier Postgres keeps (NAMEDATALEN - 1).
const maxIdentifier = 63

// checkIdentifier checks the name of a schema or of a role.
func checkIdentifier(name string) error {
	switch {
	case name == "":
		return errors.New("must not be empty")
	case strings.ContainsFunc(name, unicode.IsControl) || !utf8.ValidString(name):
		return errors.New("must not contain control characters or invalid UTF-8")
	case len(name) > maxIdentifier:
		return fmt.Errorf("must have at most %d bytes", maxIdentifier)
	}
	return nil
}

// rolesFlag is --grant, repeated.
type rolesFlag []string

func (f *rolesFlag) Type() string   { return "role" }
func (f *rolesFlag) String() string { return strings.Join(*f, ", ") }

func (f *rolesFlag) Set(s string) error {
	if err := checkIdentifier(s); err != nil {
		return err
	}
	*f = append(*f, s)
	return nil
}

// changeSettings are those of statements that change the tables of leases. No statement of
// theirs depends on search_path.
var changeSettings = handshake.Settings{StatementTimeout: 30 * time.Second, LockTimeout: 3 * time.Second, Write: true}

// change runs statements of which the last returns a single text, in one transaction. It
// works like text, and also if transactions are read-only by default.
func (s *session) change(ctx context.Context, sql string) (string, error) {
	return s.changeWith(ctx, changeSettings, sql)
}

// changeWith is change with other settings.
func (s *session) changeWith(ctx context.Context, settings handshake.Settings, sql string) (string, error) {
	conn, ok := pgxlock.Conn(s.conn).(handshake.Conn)
	if !ok {
		return "", errors.ErrUnsupported
	}
	return handshake.Read(ctx, conn, settings, sql)
}

// leaseTables is what the catalogs report about the tables of leases in a schema.
type leaseTables struct {
	Standby       bool   `json:"standby"`
	Role          string `json:"role"` // the role that asks
	Database      string `json:"database"`
	DatabaseOwner string `json:"database_owner"`
	SchemaOwner   string `json:"schema_owner"` // "" if there is no schema
	SchemaEmpty   bool   `json:"schema_empty"`
	Relations     map[string]struct {
		Owner   string   `json:"owner"`
		Columns []string `json:"columns"`
	} `json:"relations"` // called session or lease
	Fence bool `json:"fence"` // the function exists
}

// readLeaseTables reads the catalogs.
func readLeaseTables(ctx context.Context, s *session, schema string) (t leaseTables, err error) {
	text, err := s.text(ctx, sqltext.Inline(sqltext.WithoutComment(leaseTablesSQL), schema))
	if err == nil {
		err = json.Unmarshal([]byte(text), &t)
	}
	return t, err
}

// exist reports whether there are both tables.
func (t leaseTables) exist() bool { return len(t.Relations) == 2 }

// foreign returns the name of a relation that is in the place of a table of leases, or "".
func (t leaseTables) foreign() string {
	for name, columns := range map[string][]string{
		"session": {"id", "until", "since", "app", "host", "pid", "broken"},
		"lease":   {"name", "slot", "token", "owner", "since", "free_at", "wanted", "note"},
	} {
		r, ok := t.Relations[name]
		if ok && slices.ContainsFunc(columns, func(c string) bool { return !slices.Contains(r.Columns, c) }) {
			return name
		}
	}
	return ""
}

// check returns an error if the tables cannot be changed, because of what is there.
func (t leaseTables) check(schema string) error {
	if t.Standby {
		return errors.New("the server is a standby: connect to the primary; with several hosts, use target_session_attrs=read-write")
	}
	if name := t.foreign(); name != "" {
		return fmt.Errorf("the relation %s in schema %s is not one of pglock's leases: choose another schema with --schema",
			name, render.Quote(schema))
	}
	return nil
}

// tableOwner returns the owner of the tables, or "" if there are none.
func (t leaseTables) tableOwner() string {
	for _, name := range []string{"lease", "session"} {
		if r, ok := t.Relations[name]; ok {
			return r.Owner
		}
	}
	return ""
}

// ownerError returns the error for a missing privilege, with the role that has it: text is
// what failed, and err the server's error or nil.
func (t leaseTables) ownerError(text string, schema schemaFlag, command string, err error) error {
	of, owner := "the tables", t.tableOwner()
	switch {
	case t.SchemaOwner == "":
		of, owner = "database "+render.Quote(t.Database), t.DatabaseOwner
	case owner == "" || owner == t.Role:
		of, owner = "schema "+render.Quote(schema.name), t.SchemaOwner
	}
	return &advisedError{fmt.Sprintf("%s: run %s as role %s, the owner of %s, or as a superuser",
		text, schema.command(command), render.Quote(owner), of), err}
}

// serverMessage returns the message of an error that the server sent, without its severity
// and code.
func serverMessage(err error) string {
	var refused *pgconn.PgError
	if errors.As(err, &refused) {
		return refused.Message
	}
	return err.Error()
}

// A leaseSession is a session of leases that has not expired.
type leaseSession struct {
	Program string  `json:"program"`
	Host    string  `json:"host"`
	Process int32   `json:"process"`
	Left    float64 `json:"left"` // seconds
	Leases  int     `json:"leases"`
}

// String describes the session on one line.
func (s leaseSession) String() string {
	return fmt.Sprintf("%s, %s, for %s", termtext.Lease(s.Process, s.Program, s.Host, ""),
		render.Plural(s.Leases, "lease", "leases"), render.Duration(time.Duration(s.Left*float64(time.Second))))
}

// leaseContents is what is in the tables of leases.
type leaseContents struct {
	Version  int64          `json:"version"`
	Sessions []leaseSession `json:"sessions"`
}

// readLeaseContents reads the tables, which must exist.
func readLeaseContents(ctx context.Context, s *session, schema string) (c leaseContents, err error) {
	text, err := s.text(ctx, sqltext.InSchema(sqltext.WithoutComment(leaseSessionsSQL), schema))
	if err == nil {
		err = json.Unmarshal([]byte(text), &c)
	}
	return c, err
}

// An advisedError is an error with other words for its reason, and what to do.
type advisedError struct {
	text string
	err  error
}

func (e *advisedError) Error() string { return e.text }
func (e *advisedError) Unwrap() error { return e.err }

// adviseUse returns an error of a statement that uses the tables of leases, with what to do
// if they do not exist, or if the role may not use them.
func adviseUse(err error, schema schemaFlag) error {
	switch sqlstate.Of(err) {
	case sqlstate.UndefinedTable, sqlstate.InvalidSchemaName, sqlstate.UndefinedColumn:
		return &advisedError{notInstalled(schema), err}
	case sqlstate.InsufficientPrivilege:
		return &advisedError{fmt.Sprintf("this role may not use the leases in schema %s: their owner can allow it with %s",
			render.Quote(schema.name), schema.command("pglock install --grant ROLE")), err}
	}
	return err
}

// notInstalled returns the message for missing tables.
func notInstalled(schema schemaFlag) string {
	return fmt.Sprintf("there are no tables of leases in schema %s: create them with %s",
		render.Quote(schema.name), schema.command("pglock install"))
}

// readLeases returns the leases of keys, or all without keys: none if there are no tables. If
// the role may not read them, that is an error if the schema was given, and else a notice.
func readLeases(ctx context.Context, s *session, schema schemaFlag, keys ...pglock.Key) (leases []inspect.Lease, notices []string, err error) {
	leases, err = inspect.Leases(ctx, s.guarded, schema.name, keys...)
	switch {
	case errors.Is(err, pglock.ErrNotInstalled):
		return nil, nil, nil
	case sqlstate.Of(err) == sqlstate.InsufficientPrivilege && !schema.set:
		return nil, []string{s.label("leases are not shown: " + adviseUse(err, schema).Error())}, nil
	case err != nil:
		return nil, nil, adviseUse(err, schema)
	}
	return leases, nil, nil
}
