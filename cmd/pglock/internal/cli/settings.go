package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pglock-go/pglock/cmd/pglock/internal/config"
)

// settings holds the config file's settings for this run.
type settings struct {
	path string // --config-file
	file *config.Config
	view *config.View // the view of -c, or nil

	database       config.Database // the database chosen by name, if any
	databaseOrigin string          // where the choice is from
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
	return a.chooseDatabase(cmd.Flags().Changed("dbname"))
}

// chooseDatabase chooses the database: that of -d, or of the view, or of the config
// file's defaults if the environment names none.
func (a *app) chooseDatabase(given bool) error {
	c := &a.config
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
	database, ok := c.file.Database(name)
	if !ok {
		a.connection.Database = name
		return nil
	}
	c.database = database
	a.connection.Database = database.ConnString
	var rest []string
	hostFlag := a.connection.Host != ""
	for _, s := range database.Settings {
		flag := map[string]*string{"host": &a.connection.Host, "port": &a.connection.Port, "user": &a.connection.User}[s.Name]
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
		a.connection.Database = strings.Join(rest, " ")
	}
	return nil
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
