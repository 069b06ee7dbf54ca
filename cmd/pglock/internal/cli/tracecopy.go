package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/pglock-go/pglock/cmd/pglock/internal/connect"
	"github.com/pglock-go/pglock/cmd/pglock/internal/render"
	"github.com/pglock-go/pglock/internal/pgserver"
	"github.com/pglock-go/pglock/internal/sqltext"
	"github.com/pglock-go/pglock/pgxlock"
	"github.com/pglock-go/pglock/trace"
)

// An origin is the database that a copy is made of, as far as the copy needs it.
type origin struct {
	Version  string   `json:"version"` // its server_version_num
	Roles    []string `json:"roles"`
	Path     string   `json:"path"` // the search_path of the role
	Timeout  string   `json:"timeout"`
	User     string   `json:"user"`
	Database string   `json:"database"`
}

// The settings are those of the role, without what inspecting sessions set.
const originSQL = `SELECT CAST(pg_catalog.json_build_object(
	'version', pg_catalog.current_setting('server_version_num'), 'user', current_user, 'database', pg_catalog.current_database(),
	'path', (SELECT s.reset_val FROM pg_catalog.pg_settings AS s WHERE s.name OPERATOR(pg_catalog.=) 'search_path'),
	'timeout', (SELECT s.reset_val FROM pg_catalog.pg_settings AS s WHERE s.name OPERATOR(pg_catalog.=) 'lock_timeout'),
	'roles', (SELECT pg_catalog.json_agg(r.rolname) FROM pg_catalog.pg_roles AS r
		WHERE NOT pg_catalog.starts_with(CAST(r.rolname AS pg_catalog.text), 'pg_'))) AS pg_catalog.text)`

// traceCopy runs the scripts on a copy of the schema, on a throwaway server.
func (a *app) traceCopy(ctx context.Context, r *traceRequest, scripts []*trace.Script) (place string, reports []*trace.Report, err error) {
	var from *origin
	var target *connect.Target
	dumps := len(r.schemas) == 0 && r.migrations == ""
	switch {
	case dumps:
		if target, err = a.target(render.ApplicationName("trace", "")); err != nil {
			return "", nil, err
		}
		if from, err = a.originOf(ctx, a.connection, target); err != nil {
			return "", nil, err
		}
	case r.against != "" && r.major == 0:
		flags, target, err := a.againstTarget(r)
		if err != nil {
			return "", nil, err
		}
		if from, err = a.originOf(ctx, flags, target); err != nil {
			return "", nil, err
		}
	}
	earlier, err := r.earlier(scripts)
	if err != nil {
		return "", nil, err
	}
	server, err := a.copyServer(ctx, r, from)
	if err != nil {
		return "", nil, err
	}
	defer func() { err = errors.Join(err, server.Stop()) }()
	database, err := server.CreateDatabase(ctx)
	if err != nil {
		return "", nil, err
	}
	source := pgxlock.ConnString(server.ConnString(database))
	if dumps {
		dump, err := a.dump(ctx, target, server)
		if err != nil {
			return "", nil, err
		}
		earlier = append(earlier, dump)
	}
	if err := from.prepare(ctx, source, database); err != nil {
		return "", nil, err
	}
	for _, s := range earlier {
		skipped, err := trace.Load(ctx, source, s)
		if err != nil {
			return "", nil, fmt.Errorf("making the copy of the schema: %w; give --schema a file without that statement, or use --here on a copy", err)
		}
		if skipped > 0 {
			a.logf("%s: left out %s that only set owners or privileges of roles that the copy does not have", s.Name, render.Plural(skipped, "statement", "statements"))
		}
	}
	for _, s := range scripts {
		report, err := trace.Run(ctx, source, s)
		if err != nil {
			return "", nil, err
		}
		reports = append(reports, report)
	}
	place = "on a copy of the schema"
	if dumps {
		place = "on a copy of the schema of " + from.Database
	}
	return place, reports, nil
}

// originOf reads the database that the copy is made of.
func (a *app) originOf(ctx context.Context, flags connect.Flags, target *connect.Target) (*origin, error) {
	s, err := openOn(ctx, flags, target)
	if err != nil {
		return nil, err
	}
	defer s.close()
	text, err := s.text(ctx, originSQL)
	if err != nil {
		return nil, err
	}
	o := new(origin)
	return o, json.Unmarshal([]byte(text), o)
}

// copyServer starts the throwaway server.
func (a *app) copyServer(ctx context.Context, r *traceRequest, from *origin) (*pgserver.Server, error) {
	options, err := pgserver.FromEnv()
	if err != nil {
		return nil, err
	}
	options.Database = ""
	options.Log = a.Err
	options.Settings = map[string]string{
		"autovacuum":                "off",
		"max_prepared_transactions": "1000",
		"max_locks_per_transaction": "256",
	}
	major := r.major
	if major == 0 && from != nil {
		number, err := strconv.Atoi(from.Version)
		if err != nil {
			return nil, err
		}
		major = number / 10000
	}
	if major != 0 {
		options.Major, options.BinDir = major, ""
	}
	return pgserver.Start(ctx, options)
}

// prepare makes the roles and the settings of the origin, if there is one.
func (o *origin) prepare(ctx context.Context, source *pgxlock.Database, database string) error {
	if o == nil {
		return nil
	}
	session, err := source.Open(ctx)
	if err != nil {
		return err
	}
	defer session.Close()
	for _, role := range o.Roles {
		if role == "postgres" { // the copy's own
			continue
		}
		if err := session.Exec(ctx, "CREATE ROLE "+sqltext.Identifier(role)); err != nil {
			return err
		}
	}
	alter := "ALTER DATABASE " + sqltext.Identifier(database) + " SET "
	path := strings.ReplaceAll(o.Path, `"$user"`, sqltext.Identifier(o.User))
	if path == "" {
		path = "''"
	}
	if err := session.Exec(ctx, alter+"search_path TO "+path); err != nil {
		return err
	}
	return session.Exec(ctx, alter+"lock_timeout TO "+sqltext.Literal(o.Timeout))
}

// dump returns the schema of a database.
func (a *app) dump(ctx context.Context, target *connect.Target, server *pgserver.Server) (*trace.Script, error) {
	program := filepath.Join(server.Binaries().Dir, "pg_dump")
	if _, err := os.Stat(program); err != nil {
		if program, err = exec.LookPath("pg_dump"); err != nil {
			return nil, errors.New("pg_dump is missing: install it (Debian's package postgresql-client), or give the schema with --schema")
		}
	}
	cmd := exec.CommandContext(ctx, program, "--schema-only", "--no-owner", "--no-privileges", "--no-publications", "--no-subscriptions", "--lock-wait-timeout=2000")
	cmd.Env = target.Env(a.env)
	out, err := outputOf(cmd)
	if err != nil {
		return nil, fmt.Errorf("pg_dump: %w; or give the schema with --schema", err)
	}
	return trace.Parse("pg_dump", out, trace.As(trace.Plain), trace.Wrapped(trace.WrapNone))
}

// earlier returns the files that the copy is made of.
func (r *traceRequest) earlier(scripts []*trace.Script) ([]*trace.Script, error) {
	files := slices.Clone(r.schemas)
	if r.migrations != "" {
		entries, err := os.ReadDir(r.migrations)
		if err != nil {
			return nil, fmt.Errorf("--migrations: %w", err)
		}
		var before []string
		for _, e := range entries {
			path := filepath.Join(r.migrations, e.Name())
			if !e.IsDir() && strings.HasSuffix(path, ".sql") && !isBackward(path) && r.precedes(path, scripts) {
				before = append(before, path)
			}
		}
		slices.SortFunc(before, compareNames)
		files = append(files, before...)
	}
	var earlier []*trace.Script
	for _, file := range files {
		s, err := trace.Read(file, trace.As(trace.Format(r.format.value)))
		if err != nil {
			return nil, fileError(err)
		}
		earlier = append(earlier, s)
	}
	return earlier, nil
}

// precedes reports whether a migration comes before those that are traced: before the
// first of them in the same directory, or any if none is in it.
func (r *traceRequest) precedes(path string, scripts []*trace.Script) bool {
	for _, s := range scripts {
		if filepath.Clean(filepath.Dir(s.Name)) == filepath.Clean(filepath.Dir(path)) && compareNames(path, s.Name) >= 0 {
			return false
		}
	}
	return true
}

// isBackward reports whether a file undoes a migration, by the names of golang-migrate and
// Flyway.
func isBackward(path string) bool {
	base := filepath.Base(path)
	return strings.HasSuffix(base, ".down.sql") || strings.HasPrefix(base, "U") && strings.Contains(base, "__")
}

// compareNames orders files as migration tools do: numbers in names by their value, and
// Flyway's repeatable migrations last.
func compareNames(a, b string) int {
	repeatable := func(path string) int {
		if strings.HasPrefix(filepath.Base(path), "R__") {
			return 1
		}
		return 0
	}
	if order := repeatable(a) - repeatable(b); order != 0 {
		return order
	}
	for a != "" && b != "" {
		x, y := digits(a), digits(b)
		if x != "" && y != "" {
			m, n := strings.TrimLeft(x, "0"), strings.TrimLeft(y, "0")
			if len(m) != len(n) {
				return len(m) - len(n)
			}
			if order := strings.Compare(m, n); order != 0 {
				return order
			}
			a, b = a[len(x):], b[len(y):]
			continue
		}
		if a[0] != b[0] {
			return int(a[0]) - int(b[0])
		}
		a, b = a[1:], b[1:]
	}
	return len(a) - len(b)
}

// digits returns the digits that s begins with.
func digits(s string) string {
	n := 0
	for n < len(s) && s[n] >= '0' && s[n] <= '9' {
		n++
	}
	return s[:n]
}
