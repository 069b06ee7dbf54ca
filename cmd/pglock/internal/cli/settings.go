package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pglock-go/pglock/cmd/pglock/internal/config"
	"github.com/pglock-go/pglock/cmd/pglock/internal/connect"
	"github.com/pglock-go/pglock/cmd/pglock/internal/render"
	"github.com/pglock-go/pglock/internal/lazyregexp"
)

// settings holds the config file's settings for this run.
type settings struct {
	path string // --config-file
	file *config.Config
	view *config.View // the view of -c, or nil

	database       config.Database // the database chosen by name, if any
	databaseOrigin string          // where the choice is from

	choices []choice // the databases, if several were chosen
}

// A choice is one of several databases.
type choice struct {
	name     string
	flags    connect.Flags
	database config.Database // of the config file, if it is one
}

// readsSeveral annotates verbs that read several databases.
const readsSeveral = "several"

// severalFlag adds --all to a verb that reads several databases.
func severalFlag(cmd *cobra.Command) {
	cmd.Annotations = map[string]string{readsSeveral: "true"}
	cmd.Flags().Bool("all", false, "show all databases of the config file, as -d NAME,NAME shows several")
}

// configure reads the config file, for verbs that connect.
func (a *app) configure(cmd *cobra.Command) error {
	if !cmd.HasParent() || cmd.Annotations[offline] != "" || strings.HasPrefix(cmd.Name(), "__") {
		return nil
	}
	if cmd.Flags().Changed("config-file") && a.config.path == "" {
		return usagef(cmd, "--config-file is empty")
	}
	file, err := config.Load(a.config.path)
	if err != nil {
		return &usageError{text: err.Error()}
	}
	a.config.file = file
	if name := cmd.Flags().Lookup("config"); name != nil && name.Changed {
		view, err := file.View(name.Value.String())
		if err != nil {
			return &usageError{text: strings.TrimPrefix(err.Error(), "config: "), hint: "see 'pglock config'"}
		}
		a.config.view = &view
	}
	return a.chooseDatabase(cmd)
}

// chooseDatabase chooses the database: that of -d, or of the view, or of the config
// file's defaults if the environment names none. It may be several, for verbs that read
// several.
func (a *app) chooseDatabase(cmd *cobra.Command) error {
	c := &a.config
	given := cmd.Flags().Changed("dbname")
	if cmd.Annotations[readsSeveral] != "" {
		if all, err := cmd.Flags().GetBool("all"); err == nil && all {
			return a.chooseAll(cmd, given)
		}
	}
	name := a.connection.Database
	switch {
	case given:
		c.databaseOrigin = "--dbname"
	case c.view != nil && c.view.Database != "":
		name, c.databaseOrigin = c.view.Database, c.where(*c.view, "database")
	case c.file.Defaults.Database != "" && a.getenv("PGDATABASE") == "" && a.getenv("PGHOST") == "" && a.getenv("PGHOSTADDR") == "" && a.getenv("PGSERVICE") == "":
		name, c.databaseOrigin = c.file.Defaults.Database, c.where(c.file.Defaults, "database")
	default:
		return nil
	}
	names, err := databaseNames(name)
	switch {
	case err != nil:
		return usagef(cmd, "%s %s: %v", c.databaseOrigin, render.Quote(name), err)
	case len(names) > 1:
		return a.chooseSeveral(cmd, name, names)
	}
	a.connection, c.database = a.flagsOf(name)
	return nil
}

// chooseAll chooses all databases of the config file.
func (a *app) chooseAll(cmd *cobra.Command, given bool) error {
	file := a.config.file
	switch {
	case given:
		return usagef(cmd, "--all cannot be combined with -d")
	case file.Path == "":
		return &usageError{text: "--all: there is no config file that names databases", hint: "see 'pglock config --help'"}
	case len(file.Databases) == 0:
		return &usageError{text: "--all: " + file.Path + " names no databases"}
	}
	var names []string
	for _, d := range file.Databases {
		names = append(names, d.Name)
	}
	return a.chooseSeveral(cmd, "", names)
}

// chooseSeveral chooses several databases. list is how they were given.
func (a *app) chooseSeveral(cmd *cobra.Command, list string, names []string) error {
	switch {
	case cmd.Annotations[readsSeveral] == "":
		return usagef(cmd, "%s %s: %s takes one database; write one whose name has a comma as -d %s",
			a.config.databaseOrigin, render.Quote(list), cmd.CommandPath(), render.Quote("dbname="+list))
	case a.connection.Ask:
		return usagef(cmd, "-W cannot be combined with several databases: put their passwords into .pgpass")
	}
	for _, name := range names {
		if slices.ContainsFunc(a.config.choices, func(c choice) bool { return c.name == name }) {
			continue
		}
		c := choice{name: name}
		c.flags, c.database = a.flagsOf(name)
		c.flags.NeverAsk = true // a prompt would not show for which database it is
		a.config.choices = append(a.config.choices, c)
	}
	return nil
}

// plainName matches the name of a database in a list with commas. A name with other
// characters may itself have a comma.
var plainName = lazyregexp.New(`^[\pL\pN_][\pL\pN_.$-]*$`)

// databaseNames returns the names in a list with commas, or a single one if it is not a
// list: if it is a connection string, which may have commas, or if not all parts are plain
// names.
func databaseNames(list string) ([]string, error) {
	if !strings.Contains(list, ",") || connect.IsConnString(list) {
		return []string{list}, nil
	}
	var names []string
	missing := false
	for name := range strings.SplitSeq(list, ",") {
		name = strings.TrimSpace(name)
		switch {
		case name == "":
			missing = true
		case !plainName().MatchString(name):
			return []string{list}, nil
		default:
			names = append(names, name)
		}
	}
	if missing {
		return nil, fmt.Errorf("a name in the list is empty; write a database whose name has a comma as -d %s", render.Quote("dbname="+list))
	}
	return names, nil
}

// flagsOf returns the connection flags for a database: a name of the config file, or a
// value of -d.
func (a *app) flagsOf(name string) (connect.Flags, config.Database) {
	flags := a.connection
	flags.Database = name
	database, ok := a.config.file.Database(name)
	if !ok {
		return flags, database
	}
	flags.Database = database.ConnString
	var rest []string
	hostFlag := flags.Host != ""
	for _, s := range database.Settings {
		flag := map[string]*string{"host": &flags.Host, "port": &flags.Port, "user": &flags.User}[s.Name]
		switch {
		case s.Name == "hostaddr" && hostFlag:
			// Skip the address of the host that -h replaces.
		case flag == nil:
			rest = append(rest, s.Name+"="+quoteSetting(s.Value))
		case *flag == "":
			*flag = s.Value
		}
	}
	if len(database.Settings) > 0 {
		flags.Database = strings.Join(rest, " ")
	}
	return flags, database
}

// quoteSetting quotes a value of a key=value string.
func quoteSetting(value string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(value) + "'"
}

// layers returns the view and the defaults, highest priority first.
func (c *settings) layers() []config.View {
	var layers []config.View
	if c.view != nil {
		layers = append(layers, *c.view)
	}
	if c.file != nil {
		layers = append(layers, c.file.Defaults)
	}
	return layers
}

// where returns the place of a key in the config file.
func (c *settings) where(v config.View, key string) string {
	return fmt.Sprintf("%s:%d", c.file.Path, v.LineOf(key))
}
