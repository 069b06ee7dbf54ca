package cli

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/cmd/pglock/internal/config"
	"github.com/pglock-go/pglock/cmd/pglock/internal/render"
	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/internal/termtext"
)

const completionHelp = `Prints a script that completes verbs, flags and their values: the fields and operators
of filters, attributes, formats, and the views and databases of the config file.

SHELL is bash, zsh, fish or powershell.`

const completionExamples = `  source <(pglock completion bash)
  pglock completion zsh > "${fpath[1]}/_pglock"
  pglock completion fish > ~/.config/fish/completions/pglock.fish`

var shells = []string{"bash", "zsh", "fish", "powershell"}

func (a *app) completionCommand() *cobra.Command {
	return &cobra.Command{
		Use:                   "completion SHELL",
		Short:                 "Print the completion script for a shell",
		Long:                  completionHelp,
		Example:               completionExamples,
		Annotations:           map[string]string{offline: "true"},
		DisableFlagsInUseLine: true,
		ValidArgs:             shells,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usagef(cmd, "no shell given: the shells are %s", strings.Join(shells, ", "))
			}
			if !slices.Contains(shells, args[0]) {
				return usagef(cmd, "unknown shell %s: the shells are %s", render.Quote(args[0]), strings.Join(shells, ", "))
			}
			script, err := completionScript(cmd.Root(), args[0])
			if err != nil {
				return err
			}
			_, err = io.WriteString(a.Out, script)
			return err
		},
	}
}

// completionScript returns cobra's script for a shell, with a fix: in zsh and fish it
// takes everything up to the last = as the flag, and would repeat mode= in
// --filter=mode=.
func completionScript(root *cobra.Command, shell string) (string, error) {
	var b strings.Builder
	var err error
	switch shell {
	case "bash":
		err = root.GenBashCompletionV2(&b, true)
	case "zsh":
		err = root.GenZshCompletion(&b)
	case "fish":
		err = root.GenFishCompletion(&b, true)
	case "powershell":
		err = root.GenPowerShellCompletionWithDesc(&b)
	}
	return strings.ReplaceAll(b.String(), `'-.*='`, `'^-[^=]*='`), err
}

// stripUsageMarks removes the marks around value names from the flags' usages, which shells
// would show.
func stripUsageMarks(root *cobra.Command) {
	plain := func(f *pflag.Flag) { f.Usage = strings.NewReplacer("`", "", `"`, "").Replace(f.Usage) }
	root.PersistentFlags().VisitAll(plain)
	for _, cmd := range root.Commands() {
		cmd.Flags().VisitAll(plain)
	}
}

// completeCommand completes what follows --: a command in PATH, and then files.
func (a *app) completeCommand(first int) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
		switch {
		case len(args) < first:
			return nil, cobra.ShellCompDirectiveNoFileComp
		case len(args) > first || word == "" || strings.ContainsAny(word, `/\`):
			return nil, cobra.ShellCompDirectiveDefault
		}
		var names []string
		for _, dir := range filepath.SplitList(a.getenv("PATH")) {
			entries, _ := os.ReadDir(dir)
			for _, entry := range entries {
				if strings.HasPrefix(entry.Name(), word) && !entry.IsDir() {
					names = append(names, entry.Name())
				}
			}
		}
		slices.Sort(names)
		return slices.Compact(names), cobra.ShellCompDirectiveDefault
	}
}

// complete registers the completions of the flags and arguments of all verbs.
func (a *app) complete(root *cobra.Command) {
	const alone = cobra.ShellCompDirectiveNoFileComp
	for _, cmd := range root.Commands() {
		for name, complete := range map[string]cobra.CompletionFunc{
			"filter":    completeFilter,
			"attribute": completeAttributes,
			"output":    completeChoices("output"),
			"config":    a.completeView,
			"allow":     completeChoices("allow"),
			"only":      completeChoices("only"),
			"on":        cobra.NoFileCompletions,
			"limit":     cobra.NoFileCompletions,
			"watch":     cobra.FixedCompletions([]string{"1s", "2s", "5s", "10s"}, alone),
			"wait":      cobra.NoFileCompletions,
			"grace":     cobra.NoFileCompletions,
			"key":       cobra.NoFileCompletions,
			"lease":     cobra.FixedCompletions([]string{"10s", "30s", "1m", "5m"}, alone),
			"schema":    cobra.NoFileCompletions,
			"grant":     cobra.NoFileCompletions,
			"slot":      cobra.NoFileCompletions,
			"pg-locks":  cobra.NoFileCompletions,
		} {
			if cmd.Flags().Lookup(name) != nil {
				_ = cmd.RegisterFlagCompletionFunc(name, complete)
			}
		}
		switch {
		case cmd.Name() == "run":
			cmd.ValidArgsFunction = a.completeCommand(1)
		case cmd.Name() == "prioritize":
			cmd.ValidArgsFunction = a.completeCommand(0)
		case cmd.ValidArgsFunction == nil && cmd.ValidArgs == nil:
			cmd.ValidArgsFunction = cobra.NoFileCompletions
		}
	}
	_ = root.RegisterFlagCompletionFunc("dbname", a.completeDatabase)
	for _, name := range []string{"host", "port", "username"} {
		_ = root.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions)
	}
}

// isPairs reports whether the command line so far is about pairs.
func isPairs(cmd *cobra.Command) bool {
	blocking, err := cmd.Flags().GetBool("blocking")
	return err == nil && blocking || cmd.Name() == "prioritize"
}

func completable(cmd *cobra.Command) []inspect.Attribute {
	switch {
	case isPairs(cmd):
		return inspect.PairAttributes()
	case cmd.Name() == "ps":
		return inspect.SessionAttributes()
	}
	return inspect.Attributes()
}

// completeFilter completes FIELD, then OP, and VALUE if the field has only a few values.
func completeFilter(cmd *cobra.Command, _ []string, word string) ([]string, cobra.ShellCompDirective) {
	const more = cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
	var choices []string
	if field, _, ok := strings.Cut(word, "="); ok {
		for _, value := range valuesOf(strings.TrimSpace(field)) {
			choices = append(choices, field+"="+value)
		}
		return choices, cobra.ShellCompDirectiveNoFileComp
	}
	for _, a := range completable(cmd) {
		choices = append(choices, a.Name+"=\t"+a.Doc)
		if a.Name == word {
			for _, op := range []string{"!=", "<", "<=", ">", ">=", "~", "!~"} {
				if _, err := inspect.ParseFilter(word + op + sample(a)); err == nil {
					choices = append(choices, word+op)
				}
			}
		}
	}
	return choices, more
}

// sample returns a valid value of an attribute.
func sample(a inspect.Attribute) string {
	switch a.Type {
	case reflect.TypeFor[int64](), reflect.TypeFor[time.Duration]():
		return "1"
	case reflect.TypeFor[time.Time]():
		return "-1s"
	}
	if values := valuesOf(a.Name); values != nil {
		return values[0]
	}
	return "x"
}

// valuesOf returns the values of a field that has only a few, or nil.
func valuesOf(field string) []string {
	switch strings.TrimPrefix(field, "blocking_") {
	case "granted", "fastpath":
		return []string{"true", "false"}
	case "block":
		return []string{"hard", "soft"}
	case "state":
		return []string{"active", "idle", "idle in transaction", "idle in transaction (aborted)"}
	case "type":
		return []string{"relation", "advisory", "transactionid", "tuple", "virtualxid", "object", "extend", "page"}
	case "kind":
		return []string{"TABLE", "INDEX", "SEQUENCE", "TOAST", "VIEW", "MATERIALIZED_VIEW", "FOREIGN_TABLE", "PARTITIONED_TABLE", "PARTITIONED_INDEX"}
	case "mode":
		var modes []string
		for _, m := range pglock.Modes() {
			modes = append(modes, m.PgLocks())
		}
		return modes
	}
	return nil
}

// completeAttributes completes the last attribute of a list with commas.
func completeAttributes(cmd *cobra.Command, _ []string, word string) ([]string, cobra.ShellCompDirective) {
	before := word[:strings.LastIndex(word, ",")+1]
	var choices []string
	for _, a := range completable(cmd) {
		if !slices.Contains(strings.Split(before, ","), a.Name) {
			choices = append(choices, before+a.Name+"\t"+a.Doc)
		}
	}
	return choices, cobra.ShellCompDirectiveNoFileComp
}

// completeChoices completes a flag that has a few values.
func completeChoices(flag string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		f, ok := cmd.Flags().Lookup(flag).Value.(interface{ names() []string })
		if !ok {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return f.names(), cobra.ShellCompDirectiveNoFileComp
	}
}

// completionFile returns the config file, or an empty one if there is an error.
func (a *app) completionFile() *config.Config {
	file, err := config.Load(a.config.path)
	if err != nil {
		return &config.Config{}
	}
	return file
}

func (a *app) completeView(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	var choices []string
	for _, v := range a.completionFile().Views {
		choices = append(choices, fmt.Sprintf("%s\t%s", v.Name, termtext.Line(v.Description)))
	}
	return choices, cobra.ShellCompDirectiveNoFileComp
}

// completeDatabase completes the last name of a list with commas.
func (a *app) completeDatabase(_ *cobra.Command, _ []string, word string) ([]string, cobra.ShellCompDirective) {
	before := word[:strings.LastIndex(word, ",")+1]
	var choices []string
	for _, d := range a.completionFile().Databases {
		if !slices.Contains(strings.Split(before, ","), d.Name) {
			choices = append(choices, fmt.Sprintf("%s%s\t%s", before, d.Name, termtext.Line(redacted(d))))
		}
	}
	return choices, cobra.ShellCompDirectiveNoFileComp
}
