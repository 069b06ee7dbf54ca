package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// WriteManPages writes a man page for the command and for each verb into dir, from their
// help. It replaces the pages that exist.
func WriteManPages(dir string) error {
	old, err := filepath.Glob(filepath.Join(dir, "pglock*.1"))
	if err != nil {
		return err
	}
	for _, path := range old {
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	root := new(app).rootCommand(nil)
	pages := append([]*cobra.Command{root}, root.Commands()...)
	for _, cmd := range pages {
		if cmd.Hidden || cmd.Name() == "help" {
			continue
		}
		path := filepath.Join(dir, pageName(cmd)+".1")
		if err := os.WriteFile(path, []byte(manPage(cmd)), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func pageName(cmd *cobra.Command) string { return strings.ReplaceAll(cmd.CommandPath(), " ", "-") }

// manPage returns the man page of a verb, in man(7) format.
func manPage(cmd *cobra.Command) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	short := cmd.Short
	if short != "" {
		short = strings.ToLower(short[:1]) + short[1:]
	}
	if !cmd.HasParent() {
		short = "run commands under Postgres locks, and show holders and waiters"
	}
	line(`.\" Generated from the help of pglock by go generate. Do not edit.`)
	line(`.TH %s 1 "" pglock "pglock manual"`, strings.ToUpper(manText(pageName(cmd))))
	line(".SH NAME")
	line(`%s \- %s`, manText(pageName(cmd)), manText(short))
	line(".SH SYNOPSIS")
	if cmd.HasParent() {
		line(`.B %s`, manText(cmd.CommandPath()))
		line("%s", manText(strings.TrimSpace(strings.TrimPrefix(cmd.Use, cmd.Name()))))
	} else {
		line(".B pglock")
		line(`\fIVERB\fR [\fIFLAG\fR...] [\fIARGUMENT\fR...]`)
	}
	line(".SH DESCRIPTION")
	for i, paragraph := range strings.Split(strings.TrimSpace(cmd.Long), "\n\n") {
		if i > 0 {
			line(".PP")
		}
		if strings.HasPrefix(paragraph, "  ") {
			line(".nf\n%s\n.fi", manText(paragraph))
		} else {
			line("%s", manText(paragraph))
		}
	}
	if !cmd.HasParent() {
		line(".SH VERBS")
		for _, verb := range cmd.Commands() {
			if verb.IsAvailableCommand() && verb.Name() != "help" {
				line(".TP\n.B %s\n%s", manText(verb.Name()), manText(verb.Short))
			}
		}
	}
	flags := func(title string, connection bool) {
		picked := pickFlags(cmd, connection)
		if !picked.HasFlags() {
			return
		}
		line(".SH %s", title)
		picked.VisitAll(func(f *pflag.Flag) {
			if f.Hidden {
				return
			}
			value, usage := pflag.UnquoteUsage(f)
			name := `\fB\-\-` + manText(f.Name) + `\fR`
			if f.Shorthand != "" {
				name = `\fB\-` + f.Shorthand + `\fR, ` + name
			}
			switch {
			case value != "" && f.NoOptDefVal != "" && f.Value.Type() != "bool":
				name += `[=\fI` + manText(value) + `\fR]`
			case value != "":
				name += ` \fI` + manText(value) + `\fR`
			}
			line(".TP\n%s\n%s", name, manText(usage))
		})
	}
	flags("FLAGS", false)
	if cmd.Annotations[offline] == "" {
		flags("CONNECTION", true)
	}
	if cmd.Example != "" {
		line(".SH EXAMPLES\n.nf\n%s\n.fi", manText(cmd.Example))
	}
	line(".SH SEE ALSO")
	var also []string
	for _, other := range append([]*cobra.Command{cmd.Root()}, cmd.Root().Commands()...) {
		if other != cmd && other.Name() != "help" && !other.Hidden {
			also = append(also, `.BR `+manText(pageName(other))+` (1)`)
		}
	}
	line("%s", strings.Join(also, "\n"))
	return b.String()
}

// manText escapes text for man(7).
func manText(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, "^", `\(ha`, "~", `\(ti`, "`", `\(ga`).Replace(s)
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		if strings.HasPrefix(l, ".") {
			lines[i] = `\&` + l
		}
	}
	return strings.Join(lines, "\n")
}
