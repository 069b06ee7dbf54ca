package cli

import (
	"fmt"
	"io"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/pglock-go/pglock/cmd/pglock/internal/config"
	"github.com/pglock-go/pglock/cmd/pglock/internal/connect"
	"github.com/pglock-go/pglock/cmd/pglock/internal/render"
	"github.com/pglock-go/pglock/internal/redact"
	"github.com/pglock-go/pglock/internal/termtext"
)

const configHelp = `Prints the settings in effect and where each comes from: the config file, the
connection, how locks are listed, and the file's databases and views. Passwords are
not shown. With -c or flags of ls, prints the settings that these result in.

The config file is the first of these: --config-file, PGLOCK_CONFIG, pglock.yaml in
the current directory, pglock/config.yaml in the user's config directory. Flags
override the view, and the view overrides the file's defaults.`

const configExamples = `  pglock config
  pglock config -c stuck
  PGLOCK_CONFIG=team.yaml pglock config -o json`

func (a *app) configCommand() *cobra.Command {
	var s selection
	output := outputFlag{value: "table", choices: []string{"table", "json"}}
	cmd := &cobra.Command{
		Use:                   "config [-c VIEW]",
		Short:                 "Print the settings in effect and their origins",
		Long:                  configHelp,
		Example:               configExamples,
		Annotations:           map[string]string{readsSeveral: "true"},
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := noArgs(cmd, args); err != nil {
				return err
			}
			if err := s.resolve(a, cmd, nil); err != nil {
				return err
			}
			report, err := a.effectiveConfig(cmd, &s)
			if err != nil {
				return err
			}
			if output.value == "json" {
				return render.WriteJSON(a.Out, report)
			}
			return report.write(a.Out)
		},
	}
	cmd.Flags().SortFlags = false
	s.register(cmd.Flags(), "as for ls")
	s.registerList(cmd.Flags())
	cmd.Flags().VarP(&output, "output", "o", output.usage())
	return cmd
}

// A configReport is the output of pglock config.
type configReport struct {
	File      *string          `json:"file"`
	From      string           `json:"from,omitempty"`
	Looked    []string         `json:"looked_for,omitempty"`
	Settings  []configSetting  `json:"settings"`
	Databases []configDatabase `json:"databases"`
	Views     []configView     `json:"views"`
	Names     []string         `json:"names"` // of advisory locks
}

type configSetting struct {
	Name  string `json:"name"`
	Value string `json:"value"`
	From  string `json:"from"`
}

type configDatabase struct {
	Name  string `json:"name"`
	Value string `json:"value"`
	Line  int    `json:"line"`
}

type configView struct {
	Name        string `json:"name"`
	Description string `json:"description,omitempty"`
	Line        int    `json:"line"`
}

// builtIn is the origin of built-in defaults.
const builtIn = "built in"

func (a *app) effectiveConfig(cmd *cobra.Command, s *selection) (*configReport, error) {
	file := a.config.file
	r := &configReport{Settings: []configSetting{}, Databases: []configDatabase{}, Views: []configView{}, Names: []string{}}
	if file.Path != "" {
		r.File, r.From = &file.Path, file.From
		if file.From == "named" {
			r.From = "--config-file"
		}
	} else {
		r.Looked = config.Places()
	}
	add := func(name, value, from string) {
		if from == "" {
			from = builtIn
		}
		r.Settings = append(r.Settings, configSetting{name, termtext.Line(value), termtext.Line(from)})
	}
	if err := a.addConnection(cmd, add); err != nil {
		return nil, err
	}

	var filters []string
	for _, f := range s.filters {
		if !strings.HasPrefix(f.String(), "on ") { // a view's tables, listed below
			filters = append(filters, f.String())
		}
	}
	tables := []string(s.tables)
	if v := a.config.view; v != nil {
		tables = append(tables, v.Tables...)
	}
	if len(filters) > 0 {
		add("filters", strings.Join(filters, "; "), s.origins["filters"])
	}
	if len(tables) > 0 {
		add("tables", strings.Join(tables, ", "), s.origins["tables"])
	}
	var columns []string
	for _, c := range s.listColumns() {
		columns = append(columns, c.Name)
	}
	add("blocking", strconv.FormatBool(s.blocking), s.origins["blocking"])
	add("attributes", strings.Join(columns, ","), s.origins["attributes"])
	for _, v := range a.config.layers() {
		if names := v.SessionAttributes; len(names) > 0 {
			add("session_attributes", strings.Join(names, ","), a.config.where(v, "session_attributes"))
			break
		}
	}
	add("limit", s.limit.String(), s.origins["limit"])
	add("expanded", strconv.FormatBool(s.expanded), s.origins["expanded"])
	if s.output != "" && s.origins["output"] != "--output" {
		add("output", s.output, s.origins["output"])
	} else {
		add("output", "table on a terminal, else tsv", "")
	}
	if s.yes {
		add("yes", "true", s.origins["yes"])
	}
	for _, d := range file.Databases {
		r.Databases = append(r.Databases, configDatabase{d.Name, termtext.Line(redacted(d)), d.Line})
	}
	for _, v := range file.Views {
		r.Views = append(r.Views, configView{v.Name, termtext.Line(v.Description), v.Line})
	}
	for _, p := range file.Names {
		r.Names = append(r.Names, termtext.Line(p.String()))
	}
	return r, nil
}

// addConnection adds the settings of the connection.
func (a *app) addConnection(cmd *cobra.Command, add func(name, value, from string)) error {
	if choices := a.config.choices; len(choices) > 0 {
		var names []string
		for _, c := range choices {
			names = append(names, c.name)
		}
		add("databases", strings.Join(names, ", "), a.config.databaseOrigin)
		return nil
	}
	target, err := a.connection.Target(a.lookup, render.ApplicationName("config", ""))
	if err != nil {
		return err
	}
	hosts, addresses, ports := target.Hosts()
	add("host", hosts, a.connectionSource(cmd, target, "host", "PGHOST", "host"))
	if addresses != "" {
		add("hostaddr", addresses, a.connectionSource(cmd, target, "", "PGHOSTADDR", "hostaddr"))
	}
	add("port", ports, a.connectionSource(cmd, target, "port", "PGPORT", "port"))
	add("user", target.User, a.connectionSource(cmd, target, "username", "PGUSER", "user"))
	add("dbname", target.ShownDatabase(), a.connectionSource(cmd, target, "dbname", "PGDATABASE", "dbname"))
	if target.HasPassword() {
		add("password", "(not shown)", a.connectionSource(cmd, target, "", "PGPASSWORD", "password"))
	}
	return nil
}

// connectionSource returns where a connection setting is from, or "" for the default.
func (a *app) connectionSource(cmd *cobra.Command, target *connect.Target, flag, variable, setting string) string {
	c := &a.config
	switch {
	case flag != "dbname" && flag != "" && cmd.Flags().Changed(flag) && !hasSetting(a.connection.Database, setting):
		return "--" + flag
	case c.database.Name != "":
		for _, s := range c.database.Settings {
			if s.Name == setting {
				return fmt.Sprintf("%s:%d (%s)", c.file.Path, c.database.Line, c.database.Name)
			}
		}
		if hasSetting(c.database.ConnString, setting) || setting == "dbname" && c.database.ConnString != "" && !strings.Contains(c.database.ConnString, "=") {
			return fmt.Sprintf("%s:%d (%s)", c.file.Path, c.database.Line, c.database.Name)
		}
	case hasSetting(a.connection.Database, setting), setting == "dbname" && a.connection.Database != "":
		return c.databaseOrigin
	}
	if origin := target.Origin(setting); origin != "" {
		return origin
	}
	if a.getenv(variable) != "" {
		return variable
	}
	return ""
}

// hasSetting reports whether a connection string seems to contain a setting. It does not
// fully parse the string.
func hasSetting(connString, setting string) bool {
	if u, err := url.Parse(connString); err == nil && strings.HasPrefix(u.Scheme, "postgres") {
		_, hasPassword := u.User.Password()
		return u.Query().Has(setting) ||
			setting == "host" && u.Hostname() != "" || setting == "port" && u.Port() != "" ||
			setting == "user" && u.User.Username() != "" || setting == "password" && hasPassword ||
			setting == "dbname" && strings.Trim(u.Path, "/") != ""
	}
	return regexp.MustCompile(`(^|\s)` + setting + `\s*=`).MatchString(connString)
}

// redacted returns a database's connection string without its password.
func redacted(d config.Database) string {
	text := d.ConnString
	for _, s := range d.Settings {
		text += " " + s.Name + "=" + quoteIfNeeded(s.Value)
	}
	return redact.Redact(strings.TrimSpace(text))
}

func quoteIfNeeded(s string) string {
	if strings.ContainsAny(s, ` '\`) {
		return quoteSetting(s)
	}
	return s
}

func (r *configReport) write(out io.Writer) error {
	if r.File != nil {
		fmt.Fprintf(out, "config file: %s (%s)\n", termtext.Line(*r.File), r.From)
	} else {
		fmt.Fprintf(out, "config file: none; looked for %s\n", termtext.Line(strings.Join(r.Looked, ", ")))
	}
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t)
	for _, s := range r.Settings {
		fmt.Fprintf(t, "%s\t%s\t%s\n", s.Name, s.Value, s.From)
	}
	if len(r.Databases) > 0 {
		fmt.Fprintln(t, "\ndatabases")
		for _, d := range r.Databases {
			fmt.Fprintf(t, "  %s\t%s\tline %d\n", d.Name, d.Value, d.Line)
		}
	}
	if len(r.Views) > 0 {
		fmt.Fprintln(t, "\nviews")
		for _, v := range r.Views {
			fmt.Fprintf(t, "  %s\t%s\tline %d\n", v.Name, v.Description, v.Line)
		}
	}
	if len(r.Names) > 0 {
		fmt.Fprintln(t, "\nnames of advisory locks")
		for _, name := range r.Names {
			fmt.Fprintf(t, "  %s\n", name)
		}
	}
	return t.Flush()
}
