package cli

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/pglock-go/pglock/cmd/pglock/internal/render"
)

const rootHelp = `pglock runs commands under Postgres locks, and shows who holds locks and who waits.

A lock has a name and is held by a database session. It is the same lock on every
machine that connects to the database, and Postgres releases it when its holder
ends, however that happens.`

const rootExamples = `  Run a job on one machine at a time, and skip it if another machine runs it:
    pglock run --no-wait -E 0 nightly-report -- ./report.sh

  See who holds what, and who waits for whom:
    pglock ls
    pglock tree

  End the sessions that block a table, after confirmation:
    pglock terminate --blocking --roots --on orders

  Try it without a database:
    pglock demo`

// A verb is a verb of the command, and what makes it.
type verb struct {
	name    string
	command func() *cobra.Command
}

// verbs returns all verbs, in the order in which the help lists them.
func (a *app) verbs() []verb {
	return []verb{
		{"run", a.runCommand},
		{"prioritize", a.prioritizeCommand},
		{"ls", a.lsCommand},
		{"ps", a.psCommand},
		{"tree", a.treeCommand},
		{"top", a.topCommand},
		{"who", a.whoCommand},
		{"leases", a.leasesCommand},
		{"cancel", a.cancelCommand},
		{"terminate", a.terminateCommand},
		{"break", a.breakCommand},
		{"trace", a.traceCommand},
		{"doctor", a.doctorCommand},
		{"install", a.installCommand},
		{"uninstall", a.uninstallCommand},
		{"config", a.configCommand},
		{"modes", a.modesCommand},
		{"completion", a.completionCommand},
		{"key", a.keyCommand},
		{"demo", a.demoCommand},
		{"version", a.versionCommand},
	}
}

// rootCommand returns the pglock command that runs args. It has only the verb that args
// begin with, because making all of them takes longer than most of them run. It has all
// of them, and what completes them, if args begin with anything else.
func (a *app) rootCommand(args []string) *cobra.Command {
	var version bool
	root := &cobra.Command{
		Use:           "pglock",
		Long:          rootHelp,
		Example:       rootExamples,
		Args:          cobra.ArbitraryArgs,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case version:
				return a.printVersion("table")
			case len(args) == 0:
				return &usageError{text: "no verb given", hint: "see 'pglock --help'"}
			}
			return unknownVerb(cmd, args[0])
		},
	}
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error { return a.configure(cmd) }
	root.SuggestionsMinimumDistance = 2
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetIn(a.In)
	root.SetOut(a.Out)
	root.SetErr(a.Err)
	root.SetFlagErrorFunc(flagError)
	root.SetHelpFunc(func(cmd *cobra.Command, _ []string) { printHelp(a.Out, cmd) })

	root.PersistentFlags().SortFlags = false
	root.Flags().BoolVarP(&version, "version", "V", false, "print the version and exit")
	a.connectionFlags(root.PersistentFlags())
	// No shorthand: -h is the host, as in psql.
	root.PersistentFlags().Bool("help", false, "print this help and exit")

	root.SetHelpCommand(helpCommand())
	if len(args) > 0 && args[0] != "completion" {
		for _, v := range a.verbs() {
			if v.name == args[0] {
				root.AddCommand(v.command())
				return root
			}
		}
	}
	for _, v := range a.verbs() {
		root.AddCommand(v.command())
	}
	a.complete(root)
	return root
}

func unknownVerb(cmd *cobra.Command, name string) error {
	hint := "see 'pglock --help'"
	if near := cmd.Root().SuggestionsFor(name); len(near) > 0 {
		hint = "did you mean " + strings.Join(near, " or ") + "?"
	}
	return &usageError{text: "unknown verb " + render.Quote(name), hint: hint}
}

// flagError returns a usage error for err, an error of pflag, on one line.
func flagError(cmd *cobra.Command, err error) error {
	text := err.Error()
	var unknown *pflag.NotExistError
	var invalid *pflag.InvalidValueError
	var bare *pflag.ValueRequiredError
	switch {
	case errors.As(err, &unknown) && unknown.GetSpecifiedShortnames() != "":
		text = "unknown flag -" + unknown.GetSpecifiedName()
	case errors.As(err, &unknown):
		text = "unknown flag --" + unknown.GetSpecifiedName()
	case errors.As(err, &bare):
		text = flagName(bare.GetFlag()) + " needs a value"
	case errors.As(err, &invalid):
		text = fmt.Sprintf("%s %s: %v", flagName(invalid.GetFlag()), render.Quote(invalid.GetValue()), invalid.Unwrap())
	}
	return &usageError{text: text, hint: seeHelp(cmd)}
}

func flagName(f *pflag.Flag) string { return "--" + f.Name }

func seeHelp(cmd *cobra.Command) string { return "see '" + cmd.CommandPath() + " --help'" }

// usagef returns a usage error with a hint at the verb's help.
func usagef(cmd *cobra.Command, format string, args ...any) error {
	return &usageError{text: fmt.Sprintf(format, args...), hint: seeHelp(cmd)}
}

// noArgs returns an error if there are arguments.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usagef(cmd, "%s takes no arguments, but got %s", cmd.Name(), render.Quote(args[0]))
	}
	return nil
}
