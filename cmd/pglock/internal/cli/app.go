// Package cli implements the command pglock, with a file for each verb. A verb reads its
// flags and arguments, and returns errors; only exit.go maps them to exit codes. An app
// has what all verbs share: streams, environment, connection, terminal and log. Package
// render has the words and formats of what they show.
package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"github.com/pglock-go/pglock/cmd/pglock/internal/connect"
	"github.com/pglock-go/pglock/cmd/pglock/internal/render"
	"github.com/pglock-go/pglock/cmd/pglock/internal/supervise"
	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/internal/handshake"
	"github.com/pglock-go/pglock/internal/termtext"
	"github.com/pglock-go/pglock/pgxlock"
)

// Streams holds the standard streams of the command.
type Streams struct {
	In  io.Reader
	Out io.Writer
	Err io.Writer
}

// An app is one run of the command. It holds what the verbs share.
type app struct {
	Streams
	env        []string
	connection connect.Flags
	config     settings
}

// Main runs the command with args, including its name, and returns its exit code.
func Main(args []string, streams Streams, env []string) int {
	// args come from the system, so the name may be missing.
	if len(args) == 0 {
		args = []string{"pglock"}
	}
	if filepath.Base(args[0]) == supervise.GuardName {
		return supervise.Guard(args[1:], streams.Err)
	}
	return Run(context.Background(), args[1:], streams, env)
}

// Run runs the command with args, without its name, and returns its exit code. ctx ends
// every wait.
func Run(ctx context.Context, args []string, streams Streams, env []string) int {
	a := &app{Streams: streams, env: env}
	root := a.rootCommand(args)
	if len(args) > 0 && args[0] == cobra.ShellCompRequestCmd {
		stripUsageMarks(root)
	}
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if text := message(err); text != "" {
		fmt.Fprintf(a.Err, "pglock: %s\n", text)
	}
	return exitCode(err)
}

// getenv returns an environment variable, or "" if it is not set.
func (a *app) getenv(name string) string {
	value, _ := a.lookup(name)
	return value
}

// lookup returns an environment variable, and whether it is set.
func (a *app) lookup(name string) (value string, ok bool) {
	for _, kv := range a.env {
		if v, is := strings.CutPrefix(kv, name+"="); is {
			value, ok = v, true // the last one counts, as for os/exec
		}
	}
	return value, ok
}

// logf writes a line to stderr.
func (a *app) logf(format string, args ...any) {
	text := strings.ReplaceAll(fmt.Sprintf(format, args...), ": pglock: ", ": ")
	fmt.Fprintf(a.Err, "pglock: %s\n", termtext.Line(text))
}

// connectionFlags adds psql's connection flags, which may stand before or after the verb.
func (a *app) connectionFlags(flags *pflag.FlagSet) {
	c := &a.connection
	flags.StringVarP(&c.Host, "host", "h", "", "server `host`, or the directory of its socket")
	flags.StringVarP(&c.Port, "port", "p", "", "server `port`")
	flags.StringVarP(&c.User, "username", "U", "", "`user` to connect as")
	flags.StringVarP(&c.Database, "dbname", "d", "", "`database` name, URI or key=value string, or a name from the config file")
	flags.BoolVarP(&c.NeverAsk, "no-password", "w", false, "never prompt for a password")
	flags.BoolVarP(&c.Ask, "password", "W", false, "prompt for a password before connecting")
	flags.StringVar(&a.config.path, "config-file", "", "the config `file`; see 'pglock config'")
	for _, name := range []string{"host", "port", "username", "dbname", "no-password", "password", "config-file"} {
		flags.Lookup(name).Annotations = map[string][]string{connectionFlag: nil}
	}
}

// connectionFlag annotates the flags that the help lists under their own heading.
const connectionFlag = "connection"

// A session is the connection of a verb that inspects locks or ends sessions.
type session struct {
	guarded driver.Querier // made by inspect.Guard
	conn    *pgx.Conn
	user    string   // the role it connected as
	schemas []string // on its search_path, once they are read

	// With several databases:
	name   string  // the name of the database
	server *server // else nil
}

// ownSettings are those of the command's own statements, as [inspect.Guard] has them.
var ownSettings = handshake.Settings{StatementTimeout: 30 * time.Second, LockTimeout: 2 * time.Second, KeepSearchPath: true}

// text runs one of the command's own statements, whose result is a single text. It works
// like those of package inspect on a session that a pooler shares, and with a role whose
// defaults would make a statement wait.
func (s *session) text(ctx context.Context, sql string) (string, error) {
	conn, ok := pgxlock.Conn(s.conn).(handshake.Conn)
	if !ok {
		return "", errors.ErrUnsupported
	}
	return handshake.Read(ctx, conn, ownSettings, sql)
}

// searchPath returns the schemas on the session's search_path.
func (s *session) searchPath(ctx context.Context) ([]string, error) {
	text, err := s.text(ctx, "SELECT CAST(pg_catalog.array_to_json(pg_catalog.current_schemas(true)) AS pg_catalog.text)")
	if err != nil {
		return nil, err
	}
	var schemas []string
	return schemas, json.Unmarshal([]byte(text), &schemas)
}

// open opens a session for a verb.
func (a *app) open(ctx context.Context, verb string) (*session, error) {
	target, err := a.target(render.ApplicationName(verb, ""))
	if err != nil {
		return nil, err
	}
	return openOn(ctx, a.connection, target)
}

// openOn opens a session on a target.
func openOn(ctx context.Context, flags connect.Flags, target *connect.Target) (s *session, err error) {
	err = flags.WithPassword(ctx, target, func() error {
		conn, err := target.Connect(ctx)
		if err != nil {
			return err
		}
		guarded, _, err := inspect.Guard(ctx, pgxlock.Conn(conn))
		s = &session{guarded: guarded, conn: conn, user: target.User}
		if err != nil {
			s.close()
		}
		return err
	})
	return s, err
}

// target returns the target of the connection flags, and prints warnings.
func (a *app) target(application string) (*connect.Target, error) {
	return a.targetOf(choice{flags: a.connection}, application)
}

// targetOf returns the target of a chosen database, and prints warnings.
func (a *app) targetOf(c choice, application string) (*connect.Target, error) {
	target, err := c.flags.Target(a.lookup, application)
	if err != nil {
		return nil, err
	}
	for _, warning := range target.Warnings {
		if c.name != "" {
			warning = c.name + ": " + warning
		}
		a.logf("%s", warning)
	}
	return target, nil
}

// close closes the connection.
func (s *session) close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = s.conn.Close(ctx)
}

// isTerminal reports whether a stream is a terminal.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// width returns the width of the terminal, or else COLUMNS, or 0 if neither is known.
func (a *app) width() int {
	if f, ok := a.Out.(*os.File); ok {
		if columns, _, err := term.GetSize(int(f.Fd())); err == nil {
			return columns
		}
	}
	columns, err := strconv.Atoi(a.getenv("COLUMNS"))
	if err != nil {
		return 0
	}
	return columns
}

// format returns the format called name. If name is "", it is a table on a terminal, and
// tsv elsewhere.
func (a *app) format(name string, expanded bool) render.Format {
	f := render.Format{Name: name, Expanded: expanded, Width: a.width(), Color: a.useColor()}
	switch {
	case name != "":
	case isTerminal(a.Out):
		f.Name = "table"
	default:
		f.Name = "tsv"
	}
	return f
}

// useColor reports whether to use color: at a terminal, unless NO_COLOR
// (https://no-color.org) or TERM forbids it.
func (a *app) useColor() bool {
	return isTerminal(a.Out) && a.getenv("NO_COLOR") == "" && a.getenv("TERM") != "dumb"
}

// useUnicode reports whether to draw with line characters, which it does unless the
// locale is not UTF-8. No locale at all is common in containers, and means nothing.
func (a *app) useUnicode() bool {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if locale := strings.ToLower(a.getenv(name)); locale != "" {
			return slices.ContainsFunc([]string{"utf-8", "utf8"}, func(s string) bool { return strings.Contains(locale, s) })
		}
	}
	return true
}

// canAsk reports whether there is a terminal to ask at.
func (a *app) canAsk() bool { return isTerminal(a.In) || isTerminal(a.Err) }

// terminal returns the terminal to ask at, even if the streams are redirected.
func (a *app) terminal() (in io.Reader, out io.Writer, err error) {
	input, output := "/dev/tty", "/dev/tty"
	if runtime.GOOS == "windows" {
		input, output = "CONIN$", "CONOUT$"
	}
	in, out = a.In, a.Err
	if !isTerminal(in) {
		if in, err = os.OpenFile(input, os.O_RDWR, 0); err != nil {
			return nil, nil, err
		}
	}
	if !isTerminal(out) {
		if out, err = os.OpenFile(output, os.O_WRONLY, 0); err != nil {
			return nil, nil, err
		}
	}
	return in, out, nil
}
