package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pglock-go/pglock/cmd/pglock/internal/connect"
	"github.com/pglock-go/pglock/cmd/pglock/internal/render"
	"github.com/pglock-go/pglock/trace"
)

const traceHelp = `Shows what the statements of a migration lock and do, before they are run where it
matters: the locks and whom they stop, which tables are read or written anew, and what
would be safer.

The statements run on a throwaway server, on a copy of the schema: from --schema, from
earlier --migrations, or else from pg_dump -s of the database of -d, which is only read.
Rows are not needed. --against also reads, on a database with traffic, how large and how
busy the tables are, and who would block the migration now.

--here runs the statements on the database of -d itself, in one transaction that is
rolled back. Until then it holds its locks: do that on a copy, not where people work.

Files of goose, golang-migrate and Flyway, and the output of Django's sqlmigrate, are
recognized. A comment before a statement silences a rule for it:

  -- pglock: ignore RULE

The rules:

%s

Exit codes:

  0  no findings, or --accept
  1  findings, or a statement failed
  2  wrong usage
  3  the answer was no`

const traceExamples = `  pglock trace migrations/0042_orders.sql -d staging
  pglock trace 0042_orders.sql --migrations migrations --against prod
  pglock trace --changed-since origin/main migrations --schema schema.sql -o markdown`

// A traceRequest holds the arguments of pglock trace.
type traceRequest struct {
	files        []string
	schemas      []string
	migrations   string
	here         bool
	yes          bool
	against      string
	changedSince string
	format       choiceFlag
	wrap         choiceFlag
	output       outputFlag
	major        int
	sample       durationFlag
	lockTimeout  durationFlag
	accept       bool
}

// choiceFlag is one of a few words, or "".
type choiceFlag struct {
	value   string
	choices []string
}

func (f *choiceFlag) String() string  { return f.value }
func (f *choiceFlag) Type() string    { return "word" }
func (f *choiceFlag) names() []string { return f.choices }

func (f *choiceFlag) Set(s string) error {
	if !slices.Contains(f.choices, s) {
		return fmt.Errorf("write one of %s", strings.Join(f.choices, ", "))
	}
	f.value = s
	return nil
}

func words[T ~string](all []T) []string {
	var list []string
	for _, w := range all {
		list = append(list, string(w))
	}
	return list
}

func (a *app) traceCommand() *cobra.Command {
	r := &traceRequest{
		format:      choiceFlag{choices: words(trace.Formats())},
		wrap:        choiceFlag{choices: words(trace.Wraps())},
		output:      outputFlag{value: "text", choices: []string{"text", "json", "markdown"}},
		sample:      durationFlag{value: 3 * time.Second, min: time.Second, max: time.Hour, what: "must be from 1s to 1h"},
		lockTimeout: durationFlag{value: time.Second, min: time.Millisecond, max: time.Minute, what: "must be from 1ms to 1m"},
	}
	cmd := &cobra.Command{
		Use:                   "trace FILE... [--schema FILE | --migrations DIR | --here] [--against NAME] [-o FORMAT]",
		Short:                 "Show what a migration will lock, before it does",
		Long:                  fmt.Sprintf(traceHelp, listIDs(trace.Rules())),
		Example:               traceExamples,
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			r.files = args
			if err := r.check(cmd); err != nil {
				return err
			}
			return a.trace(cmd.Context(), r)
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringArrayVar(&r.schemas, "schema", nil, "make the copy from this `file`, such as the output of pg_dump -s; repeatable")
	flags.StringVar(&r.migrations, "migrations", "", "make the copy by the earlier migrations in this `directory`, after --schema")
	flags.BoolVar(&r.here, "here", false, "run on the database of -d itself, and roll back")
	flags.StringVar(&r.against, "against", "", "also read the sizes, the traffic and the blockers on this `database`, named as for -d")
	flags.Var(&r.sample, "sample", "how long --against measures the traffic")
	flags.Var(&r.wrap, "wrap", "how the runner uses transactions: "+strings.Join(r.wrap.choices, ", ")+" (default by format)")
	flags.Var(&r.format, "format", "the format of the files: "+strings.Join(r.format.choices, ", ")+" (default by name and content)")
	flags.StringVar(&r.changedSince, "changed-since", "", "trace the .sql files that changed since this git `revision`, in the given directories")
	flags.IntVar(&r.major, "postgres", 0, "the `major` version of the throwaway server (default that of the database, or the newest)")
	flags.Var(&r.lockTimeout, "lock-timeout", "the lock_timeout of --here")
	flags.BoolVarP(&r.yes, "yes", "y", false, "do not ask before --here")
	flags.BoolVar(&r.accept, "accept", false, "exit with 0 in spite of findings")
	flags.VarP(&r.output, "output", "o", r.output.usage())
	return cmd
}

// check checks what the flags say together.
func (r *traceRequest) check(cmd *cobra.Command) error {
	switch {
	case len(r.files) == 0 && r.changedSince == "":
		return usagef(cmd, "no file given")
	case r.here && (len(r.schemas) > 0 || r.migrations != "" || r.major != 0):
		return usagef(cmd, "--here cannot be combined with --schema, --migrations or --postgres")
	case r.yes && !r.here, r.lockTimeout.set && !r.here:
		return usagef(cmd, "-y and --lock-timeout are for --here")
	case r.sample.set && r.against == "":
		return usagef(cmd, "--sample is for --against")
	case r.major != 0 && r.major < 12:
		return usagef(cmd, "--postgres %d: the oldest version is 12", r.major)
	}
	return nil
}

// trace traces the files.
func (a *app) trace(ctx context.Context, r *traceRequest) error {
	ctx, stop := untilSignal(ctx)
	defer stop()
	files, err := r.chosen(ctx)
	if err != nil {
		return err
	}
	scripts, err := r.read(files)
	if err != nil {
		return err
	}
	if len(scripts) == 0 {
		a.logf("no .sql file changed since %s", r.changedSince)
		return a.writeTraces(r, nil, "")
	}
	var reports []*trace.Report
	place := ""
	if r.here {
		place, reports, err = a.traceHere(ctx, r, scripts)
	} else {
		place, reports, err = a.traceCopy(ctx, r, scripts)
	}
	if err != nil {
		return signalOr(ctx, err)
	}
	if r.against != "" {
		if err := a.compare(ctx, r, reports); err != nil {
			return signalOr(ctx, err)
		}
	}
	if err := a.writeTraces(r, reports, place); err != nil {
		return err
	}
	return r.verdict(reports)
}

// verdict returns an error, which was shown, if the reports have findings or errors.
func (r *traceRequest) verdict(reports []*trace.Report) error {
	findings := 0
	for _, report := range reports {
		if err := report.Err(); err != nil {
			return &loggedError{err}
		}
		findings += report.Findings()
	}
	if findings > 0 && !r.accept {
		return &loggedError{errors.New(render.Plural(findings, "finding", "findings"))}
	}
	return nil
}

// chosen returns the files to trace.
func (r *traceRequest) chosen(ctx context.Context) ([]string, error) {
	if r.changedSince == "" {
		return r.files, nil
	}
	args := []string{"diff", "--name-only", "--relative", "--diff-filter=ACMR", "-z", r.changedSince, "--"}
	cmd := exec.CommandContext(ctx, "git", append(args, r.files...)...)
	out, err := outputOf(cmd)
	if err != nil {
		return nil, fmt.Errorf("--changed-since: git diff: %w", err)
	}
	var files []string
	for file := range strings.SplitSeq(out, "\x00") {
		if strings.HasSuffix(file, ".sql") && !isBackward(file) {
			files = append(files, filepath.FromSlash(file))
		}
	}
	slices.SortFunc(files, compareNames)
	return files, nil
}

// outputOf runs a program and returns its output. The error is what it wrote to stderr, if that
// is anything.
func outputOf(cmd *exec.Cmd) (string, error) {
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if text := strings.TrimSpace(stderr.String()); err != nil && text != "" {
		err = errors.New(text)
	}
	return string(out), err
}

// read reads the files.
func (r *traceRequest) read(files []string) ([]*trace.Script, error) {
	var scripts []*trace.Script
	for _, file := range files {
		s, err := trace.Read(file, trace.As(trace.Format(r.format.value)), trace.Wrapped(trace.Wrap(r.wrap.value)))
		if err != nil {
			return nil, fileError(err)
		}
		scripts = append(scripts, s)
	}
	return scripts, nil
}

// fileError returns an error of reading a file without the package's name.
func fileError(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path
	}
	return err
}

// traceHere runs the scripts on the database of -d, and rolls back.
func (a *app) traceHere(ctx context.Context, r *traceRequest, scripts []*trace.Script) (string, []*trace.Report, error) {
	target, err := a.target(render.ApplicationName("trace", ""))
	if err != nil {
		return "", nil, err
	}
	statements := 0
	var names []string
	for _, s := range scripts {
		statements += len(s.Pieces)
		names = append(names, s.Name)
	}
	if !r.yes {
		hosts, _, _ := target.Hosts()
		err := a.confirm(question{
			text: "Run them there?", declined: "nothing was run", flags: "-y",
		}, func(a *app) error {
			_, err := fmt.Fprintf(a.Out, "%s of %s will run on database %s of %s, in a transaction that is rolled back, with lock_timeout = %s. Until the rollback it holds its locks: sessions that need these tables wait.\n",
				render.Plural(statements, "statement", "statements"), strings.Join(names, ", "), target.ShownDatabase(), hosts, r.lockTimeout.value)
			return err
		})
		if err != nil {
			return "", nil, err
		}
	}
	var reports []*trace.Report
	err = a.connection.WithPassword(ctx, target, func() error {
		reports = nil
		for _, s := range scripts {
			report, err := trace.Run(ctx, target, s, trace.RolledBack(r.lockTimeout.value))
			if err != nil {
				return err
			}
			reports = append(reports, report)
		}
		return nil
	})
	return "on " + target.ShownDatabase() + ", rolled back", reports, err
}

// compare reads the database of --against.
func (a *app) compare(ctx context.Context, r *traceRequest, reports []*trace.Report) error {
	flags, target, err := a.againstTarget(r)
	if err != nil {
		return err
	}
	return flags.WithPassword(ctx, target, func() error {
		for _, report := range reports {
			if err := trace.Compare(ctx, target, report, r.sample.value); err != nil {
				return err
			}
		}
		return nil
	})
}

// againstTarget returns the database of --against.
func (a *app) againstTarget(r *traceRequest) (connect.Flags, *connect.Target, error) {
	flags, _ := a.flagsOf(r.against)
	target, err := a.targetOf(choice{name: r.against, flags: flags}, render.ApplicationName("trace", ""))
	return flags, target, err
}

// writeTraces writes the reports.
func (a *app) writeTraces(r *traceRequest, reports []*trace.Report, place string) error {
	t := render.Trace{Place: place, Width: a.width(), Color: a.useColor(), ASCII: !a.useUnicode()}
	switch r.output.value {
	case "json":
		return t.WriteJSON(a.Out, reports)
	case "markdown":
		return t.WriteMarkdown(a.Out, reports)
	}
	return t.Write(a.Out, reports)
}
