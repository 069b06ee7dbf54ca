package cli

import (
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/pglock-go/pglock/cmd/pglock/internal/config"
	"github.com/pglock-go/pglock/cmd/pglock/internal/render"
)

// readOnlyVariable forbids to end sessions, unless it is empty or says no.
const readOnlyVariable = "PGLOCK_READ_ONLY"

// whyReadOnly returns what forbids to end sessions of a database, or "". flag is
// --read-only.
func (a *app) whyReadOnly(database config.Database, flag bool) string {
	switch {
	case flag:
		return "--read-only is given"
	case !slices.Contains([]string{"", "0", "false", "no", "off"}, a.getenv(readOnlyVariable)):
		return readOnlyVariable + " is set"
	case database.ReadOnly:
		return fmt.Sprintf("%s:%d has read_only: true for %s", a.config.file.Path, database.Line, render.Quote(database.Name))
	}
	return ""
}

// checkEnds returns an error if the verb may end no session of the chosen database.
func (a *app) checkEnds(cmd *cobra.Command) error {
	if why := a.whyReadOnly(a.config.database, false); why != "" {
		return &usageError{text: fmt.Sprintf("pglock %s ends nothing here: %s", cmd.Name(), why), hint: seeHelp(cmd)}
	}
	return nil
}
