package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"github.com/pglock-go/pglock/cmd/pglock/internal/connect"
	"github.com/pglock-go/pglock/cmd/pglock/internal/render"
	"github.com/pglock-go/pglock/doctor"
)

const doctorHelp = `Checks whether a database is set up well for work with locks: the connection and
poolers in it, what the role may see and end, the server's settings, the room for locks
and connections, forgotten transactions, the config file and the terminal. Each
finding comes with the exact statement that mends it.

It only reads. It changes nothing, and never runs its own advice.

-d NAME,NAME and --all check several databases. What is about a server that two of them
share is in the report of the first.

--only takes these IDs, of checks and of their findings:

%s

Exit codes:

  0  no problem
  1  a problem; with --strict, also a warning
  2  wrong usage`

const doctorExamples = `  pglock doctor
  pglock doctor -d prod --only sees,ends
  pglock doctor --all
  pglock doctor --strict --only settings -o json | jq -r '.[].advice[]'`

// The checks of the command itself. The others are those of package doctor.
const (
	configCheck   = "config"
	terminalCheck = "terminal"
)

// onlyFlag is --only: names of checks and findings.
type onlyFlag []string

func (f *onlyFlag) Type() string    { return "ID" }
func (f *onlyFlag) String() string  { return strings.Join(*f, ",") }
func (f *onlyFlag) names() []string { return append(doctor.Names(), configCheck, terminalCheck) }

func (f *onlyFlag) Set(s string) error {
	for id := range strings.SplitSeq(s, ",") {
		id = strings.TrimSpace(id)
		if !slices.Contains(f.names(), id) {
			return fmt.Errorf("the IDs are %s", strings.Join(f.names(), ", "))
		}
		*f = append(*f, id)
	}
	return nil
}

// listIDs returns IDs as indented lines.
func listIDs(ids []string) string {
	const width = 80
	var b strings.Builder
	column := 0
	for i, id := range ids {
		switch {
		case i == 0:
			b.WriteString("  ")
		case column+len(id)+2 > width:
			b.WriteString(",\n  ")
			column = 0
		default:
			b.WriteString(", ")
		}
		b.WriteString(id)
		column += len(id) + 2
	}
	return b.String()
}

// wants reports whether a check was asked for.
func (f *onlyFlag) wants(id string) bool { return len(*f) == 0 || slices.Contains(*f, id) }

// ofDatabase returns those names that package doctor knows.
func (f *onlyFlag) ofDatabase() []string {
	return slices.DeleteFunc(slices.Clone(*f), func(id string) bool { return id == configCheck || id == terminalCheck })
}

// A doctorRequest holds the arguments of pglock doctor.
type doctorRequest struct {
	only   onlyFlag
	older  durationFlag
	strict bool
}

func (a *app) doctorCommand() *cobra.Command {
	r := doctorRequest{older: durationFlag{what: "must not be negative"}}
	output := outputFlag{value: "table", choices: []string{"table", "json"}}
	cmd := &cobra.Command{
		Use:                   "doctor [--only ID[,ID]...] [--strict] [-o FORMAT]",
		Short:                 "Check a database's setup for work with locks",
		Long:                  fmt.Sprintf(doctorHelp, listIDs(r.only.names())),
		Example:               doctorExamples,
		Args:                  noArgs,
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			reports, err := a.diagnoseAll(cmd.Context(), &r)
			if err != nil {
				return err
			}
			reports = append(reports, render.Report{Findings: a.ownFindings(&r.only)})
			several := len(a.config.choices) > 0
			if output.value == "json" {
				err = render.WriteFindingsJSON(a.Out, reports, several)
			} else {
				err = a.writeFindings(reports)
			}
			if err != nil {
				return err
			}
			return r.verdict(reports)
		},
	}
	cmd.Flags().SortFlags = false
	cmd.Flags().Var(&r.only, "only", "run only these checks, or show only these findings")
	cmd.Flags().Var(&r.older, "older-than", "report transactions that are idle or prepared for longer (default 1m)")
	cmd.Flags().BoolVar(&r.strict, "strict", false, "exit with 1 for warnings, too")
	severalFlag(cmd)
	cmd.Flags().VarP(&output, "output", "o", output.usage())
	return cmd
}

// diagnoseAll returns a report about each database.
func (a *app) diagnoseAll(ctx context.Context, r *doctorRequest) ([]render.Report, error) {
	if len(r.only) > 0 && len(r.only.ofDatabase()) == 0 {
		return nil, nil // only what needs no database
	}
	if len(a.config.choices) == 0 {
		target, err := a.target(render.ApplicationName("doctor", ""))
		if err != nil {
			return nil, err
		}
		findings, err := r.diagnose(ctx, a.connection, target)
		return []render.Report{{Findings: findings}}, err
	}
	f := a.newFleet(ctx, "doctor")
	defer f.close()
	if err := f.connectAll(ctx, false); err != nil && ctx.Err() != nil {
		return nil, err
	}
	f.disconnect() // these sessions would count for the room for connections
	reports, errs := make([]render.Report, len(f.members)), make([]error, len(f.members))
	var wait sync.WaitGroup
	busy := make(chan struct{}, maxConnecting)
	for i, m := range f.members {
		reports[i] = render.Report{Database: m.name, Title: m.name}
		if m.err != nil {
			reports[i].Findings = []doctor.Finding{unreachable(m.err)}
			continue
		}
		wait.Go(func() {
			busy <- struct{}{}
			defer func() { <-busy }()
			reports[i].Findings, errs[i] = within(ctx, readLimit, func(ctx context.Context) ([]doctor.Finding, error) {
				return r.diagnose(ctx, m.flags, m.target)
			})
		})
	}
	wait.Wait()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	first := map[string]int{}
	for i, m := range f.members {
		if errs[i] != nil {
			reports[i].Findings = []doctor.Finding{unreachable(errs[i])}
		}
		if m.server == nil {
			continue
		}
		if j, ok := first[m.server.id]; ok {
			reports[i].Title += ", on the server of " + f.members[j].name
			reports[i].Findings = without(reports[i].Findings, reports[j].Findings)
		} else {
			first[m.server.id] = i
		}
	}
	return reports, nil
}

// without returns those findings about a database that a report about another one on the
// same server does not have. What is about the server, with numbers that change from one
// moment to the next, is in the first report only.
func without(findings, reported []doctor.Finding) []doctor.Finding {
	return slices.DeleteFunc(findings, func(f doctor.Finding) bool {
		ofServer := f.Check == "now" || f.ID == "clock" || f.ID == "lock_table"
		return slices.ContainsFunc(reported, func(r doctor.Finding) bool {
			return f.Check == r.Check && ofServer ||
				f.ID == r.ID && f.Level == r.Level && f.Text == r.Text && f.Note == r.Note && slices.Equal(f.Advice, r.Advice)
		})
	})
}

// unreachable returns the finding about a server that cannot be reached.
func unreachable(err error) doctor.Finding {
	return doctor.Finding{
		Check: "connection", ID: "reachable", Level: doctor.Problem,
		Text: strings.TrimPrefix(message(err), "doctor: "),
	}
}

// diagnose returns the findings of one database. A server that cannot be reached is a
// finding.
func (r *doctorRequest) diagnose(ctx context.Context, flags connect.Flags, target *connect.Target) ([]doctor.Finding, error) {
	options := []doctor.Option{doctor.Only(r.only.ofDatabase()...)}
	if r.older.set {
		options = append(options, doctor.OlderThan(r.older.value))
	}
	var report doctor.Report
	err := flags.WithPassword(ctx, target, func() (err error) {
		report, err = doctor.Run(ctx, target, options...)
		return err
	})
	switch settings := new(connect.SettingsError); {
	case err == nil:
		return report.Findings, nil
	case errors.As(err, &settings) || ctx.Err() != nil:
		return nil, err
	}
	return []doctor.Finding{unreachable(err)}, nil
}

// ownFindings returns the findings about the command's surroundings.
func (a *app) ownFindings(only *onlyFlag) []doctor.Finding {
	var findings []doctor.Finding
	if only.wants(configCheck) {
		findings = append(findings, a.configFinding())
	}
	if only.wants(terminalCheck) {
		findings = append(findings, a.terminalFinding())
	}
	return findings
}

// configFinding reports which config file is used, and whether others can read the
// passwords in it. A file with errors ends the command earlier.
func (a *app) configFinding() doctor.Finding {
	f := doctor.Finding{Check: configCheck, ID: configCheck, Level: doctor.OK, Text: "no config file"}
	file := a.config.file
	if file.Path == "" {
		return f
	}
	f.Text = fmt.Sprintf("%s: %s, %s", file.Path,
		render.Plural(len(file.Databases), "database", "databases"), render.Plural(len(file.Views), "view", "views"))
	if runtime.GOOS == "windows" || !a.hasPasswords() {
		return f
	}
	if info, err := os.Stat(file.Path); err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o077 != 0 {
		f.Level = doctor.Warning
		f.Text += ": it has a password, and others can read it"
		f.Advice = []string{"chmod 600 " + shellQuote(file.Path)}
		f.Note = "in a shell; or move the password to .pgpass"
	}
	return f
}

// hasPasswords reports whether a database of the config file has a password.
func (a *app) hasPasswords() bool {
	for _, d := range a.config.file.Databases {
		if hasSetting(d.ConnString, "password") {
			return true
		}
		for _, s := range d.Settings {
			if s.Name == "password" {
				return true
			}
		}
	}
	return false
}

// terminalFinding reports whether the terminal shows all that the views draw.
func (a *app) terminalFinding() doctor.Finding {
	f := doctor.Finding{Check: terminalCheck, ID: terminalCheck, Level: doctor.OK, Text: "the output is not a terminal"}
	if !isTerminal(a.Out) {
		return f
	}
	f.Text = fmt.Sprintf("%d columns", a.width())
	switch {
	case a.useColor():
		f.Text += ", color"
	case a.getenv("NO_COLOR") != "":
		f.Text += ", no color because of NO_COLOR"
	default:
		f.Text += ", no color because of TERM=" + a.getenv("TERM")
	}
	if a.useUnicode() {
		f.Text += ", UTF-8"
		return f
	}
	f.Level = doctor.Warning
	f.Text += ": the locale is not UTF-8, so trees are drawn in ASCII"
	f.Advice = []string{"export LC_ALL=C.UTF-8"}
	f.Note = "in the shell, if the terminal shows UTF-8"
	return f
}

// writeFindings writes findings for people, and how many there are.
func (a *app) writeFindings(reports []render.Report) error {
	style := render.Diagnosis{Width: a.width(), Color: a.useColor(), ASCII: !a.useUnicode()}
	for _, r := range reports {
		if r.Title != "" {
			style.WriteTitle(a.Out, r)
		}
		if err := style.Write(a.Out, r.Findings); err != nil {
			return err
		}
		if r.Title != "" {
			fmt.Fprintln(a.Out)
		}
	}
	_, err := fmt.Fprintln(a.Out, render.Findings(findingsOf(reports)))
	return err
}

// findingsOf returns the findings of all reports.
func findingsOf(reports []render.Report) []doctor.Finding {
	var findings []doctor.Finding
	for _, r := range reports {
		findings = append(findings, r.Findings...)
	}
	return findings
}

// verdict returns an error, which was shown, if the findings are not good enough.
func (r *doctorRequest) verdict(reports []render.Report) error {
	findings := findingsOf(reports)
	level := doctor.Report{Findings: findings}.Level()
	if level == doctor.Problem || r.strict && level != doctor.OK {
		return &loggedError{errors.New(render.Findings(findings))}
	}
	return nil
}
