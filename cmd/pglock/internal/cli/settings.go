package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pglock-go/pglock/config"
)

// settings are what the config file says to this run.
type settings struct {
	path string // --config-file
	file *config.Config
	view *config.View // that -c names, nil for none

	database       config.Database // that was chosen by its name; "" for none
	databaseOrigin string          // who said which database
}

// configure reads the config file before a verb that connects.
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

// chooseDatabase decides what to connect to: what -d says, or the view, or the
// defaults of the config file where the environment does not.
func (a *app) chooseDatabase(said bool) error {
	c := &a.config
	name := a.connection.Database
	switch {
	case said:
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
			// It is the address of a host that -h replaced.
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

// layers are the view and the defaults, in the order of who has the say.
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

// where is the place of a key in the file.
func (c *settings) where(v config.View, key string) string {
	return fmt.Sprintf("%s:%d", c.file.Path, v.LineOf(key))
}
