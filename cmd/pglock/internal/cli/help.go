package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// offline annotates verbs that do not connect.
const offline = "offline"

// printHelp prints the help of a verb.
func printHelp(w io.Writer, cmd *cobra.Command) {
	text := cmd.Long
	if text == "" {
		text = cmd.Short
	}
	fmt.Fprintf(w, "%s\n\n%s", text, usageOf(cmd))
}

func usageOf(cmd *cobra.Command) string {
	var b strings.Builder
	b.WriteString("Usage:\n")
	if cmd.HasParent() {
		fmt.Fprintf(&b, "  %s %s\n", cmd.Parent().CommandPath(), cmd.Use)
	} else {
		b.WriteString("  pglock VERB [FLAG...] [ARGUMENT...]\n\nVerbs:\n")
		for _, verb := range cmd.Commands() {
			if verb.IsAvailableCommand() {
				fmt.Fprintf(&b, "  %-10s %s\n", verb.Name(), verb.Short)
			}
		}
	}
	section := func(title, text string) {
		if text != "" {
			fmt.Fprintf(&b, "\n%s:\n%s\n", title, strings.TrimRight(text, "\n"))
		}
	}
	section("Flags", flagsOf(cmd, false))
	if cmd.Annotations[offline] == "" {
		section("Connection, as in psql (defaults come from the PG* variables)", flagsOf(cmd, true))
	}
	section("Examples", cmd.Example)
	if !cmd.HasParent() {
		b.WriteString("\nRun 'pglock VERB --help' for more about a verb.\n")
	}
	return b.String()
}

// flagsOf lists the connection flags of a verb, or its other flags.
func flagsOf(cmd *cobra.Command, connection bool) string {
	return pickFlags(cmd, connection).FlagUsages()
}

func pickFlags(cmd *cobra.Command, connection bool) *pflag.FlagSet {
	picked := pflag.NewFlagSet("", pflag.ContinueOnError)
	picked.SortFlags = false
	pick := func(f *pflag.Flag) {
		if _, ok := f.Annotations[connectionFlag]; ok == connection && picked.Lookup(f.Name) == nil {
			picked.AddFlag(f)
		}
	}
	cmd.Flags().VisitAll(pick)
	cmd.Root().PersistentFlags().VisitAll(pick)
	return picked
}

func helpCommand() *cobra.Command {
	return &cobra.Command{
		Use:         "help [VERB]",
		Short:       "Show help for a verb",
		Long:        "Shows what a verb does and how to use it.",
		Annotations: map[string]string{offline: "true"},
		RunE: func(cmd *cobra.Command, args []string) error {
			topic := cmd.Root()
			if len(args) > 0 {
				var err error
				if topic, _, err = cmd.Root().Find(args[:1]); err != nil || topic == cmd.Root() {
					return unknownVerb(cmd, args[0])
				}
			}
			printHelp(cmd.OutOrStdout(), topic)
			return nil
		},
	}
}
