package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pglock-go/pglock/inspect"
)

const cancelHelp = `Cancels the statements that sessions run, as Ctrl-C does in psql. The sessions are
those that hold or wait for a matching lock or, with --blocking, those that block
them. The sessions stay connected. A session that is idle in a transaction runs no
statement, so it is reported and left alone: use pglock terminate.
` + endHelp

const terminateHelp = `Terminates sessions: those that hold or wait for a matching lock or, with --blocking,
those that block them. Postgres rolls back their transactions and then releases
their locks. --wait waits for that.
` + endHelp

const endHelp = `
pglock shows the sessions and asks for confirmation at the terminal, unless -y or
--dry-run is given. Sessions that no longer match when the answer comes are spared.
Each outcome is reported.

These sessions are left alone unless --allow names their KIND: replication and
backups (walsender), autovacuum, other server processes (background), and pglock's
own session (self).

A role without pg_read_all_stats does not see when other sessions began. pglock then
ends a session only if it can tell in another way that its PID was not reused.

Exit codes:

  0  all sessions were ended or are gone, or none matched (see stderr)
  1  some sessions were not ended, or another error
  2  wrong usage
  3  the answer was no`

const cancelExamples = `  pglock cancel 4711
  pglock cancel --blocking --on orders
  pglock cancel -f 'wait_duration > 1min' --dry-run`

const terminateExamples = `  pglock terminate 4711
  pglock terminate --blocking 4712
  pglock terminate --blocking --on orders -f 'blocking_state = idle in transaction' -y --wait 10s`

// An end is one run of cancel or terminate.
type end struct {
	*app
	selection
	terminate  bool
	everything bool
	confirmed  bool
	dryRun     bool
	allow      allowFlag
	wait       durationFlag
	format     format

	session *session
	hints   []string // why no session matches, if known
}

func (a *app) cancelCommand() *cobra.Command {
	return a.endCommand(&end{app: a}, &cobra.Command{
		Use:     "cancel [FLAG...] [PID...]",
		Short:   "Cancel statements of sessions with locks",
		Long:    cancelHelp,
		Example: cancelExamples,
	})
}

func (a *app) terminateCommand() *cobra.Command {
	e := &end{app: a, terminate: true, wait: durationFlag{min: time.Millisecond, what: "must be longer than 0"}}
	cmd := a.endCommand(e, &cobra.Command{
		Use:     "terminate [FLAG...] [PID...]",
		Short:   "Terminate sessions with locks",
		Long:    terminateHelp,
		Example: terminateExamples,
	})
	cmd.Flags().Var(&e.wait, "wait", "wait up to this long for the sessions to end")
	return cmd
}

func (a *app) endCommand(e *end, cmd *cobra.Command) *cobra.Command {
	output := outputFlag{choices: []string{"table", "tsv", "csv", "json"}}
	cmd.DisableFlagsInUseLine = true
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := e.resolve(a, cmd, args); err != nil {
			return err
		}
		e.confirmed = e.confirmed || e.yes
		switch {
		case e.isEmpty() && !e.everything:
			return usagef(cmd, "no sessions selected: give PIDs, -f, --on or --all")
		case !e.isEmpty() && e.everything:
			return usagef(cmd, "--all cannot be combined with PIDs, -f, --on or a view's filters")
		case !e.confirmed && !e.dryRun && !a.canAsk():
			return usagef(cmd, "no terminal to ask for confirmation: use -y or --dry-run")
		}
		e.format = a.format(e.outputOr(output), e.expanded)
		var err error
		if e.session, err = a.open(cmd.Context(), cmd.Name()); err != nil {
			return err
		}
		defer e.session.close()
		return e.run(cmd.Context())
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	e.register(flags, "select the sessions that block those that match")
	flags.BoolVar(&e.everything, "all", false, "select all that hold or wait for a lock; with --blocking, all that block others")
	flags.BoolVarP(&e.confirmed, "yes", "y", false, "do not ask for confirmation")
	flags.BoolVar(&e.dryRun, "dry-run", false, "only show what would be done")
	flags.Var(&e.allow, "allow", "also end these `KIND`s: "+strings.Join(allowChoices(), ", "))
	flags.BoolVarP(&e.expanded, "expanded", "e", false, "show each attribute on its own line")
	flags.VarP(&output, "output", "o", output.usage()+" (default table on a terminal, else tsv)")
	return cmd
}

// canAsk reports whether there is a terminal to ask at.
func (a *app) canAsk() bool { return isTerminal(a.In) || isTerminal(a.Err) }

func (e *end) run(ctx context.Context) error {
	victims, spared, err := e.find(ctx)
	if err != nil {
		return err
	}
	if len(victims)+len(spared) == 0 {
		if e.hints, err = e.unmatched(ctx, e.session); err != nil {
			return err
		}
	}
	waitersBehind, err := e.waitersBehind(ctx)
	if err != nil {
		return err
	}
	outcomes, err := e.end(ctx, victims, inspect.DryRun())
	if err != nil {
		return err
	}
	switch {
	case e.dryRun:
		return e.report(append(outcomes, spared...), waitersBehind)
	case e.confirmed:
		outcomes = spared
	case slices.ContainsFunc(outcomes, func(o inspect.Outcome) bool { return o.Signaled }):
		outcomes = append(outcomes, spared...)
		if err := e.confirm(outcomes, waitersBehind); err != nil {
			return err
		}
		if victims, outcomes, err = e.recheck(ctx, outcomes); err != nil {
			return err
		}
	default:
		// Nothing was confirmed, so end no session, even if one could be ended by now.
		return e.report(append(outcomes, spared...), waitersBehind)
	}
	var opts []inspect.EndOption
	if e.wait.set {
		opts = append(opts, inspect.WaitGone(e.wait.value))
	}
	done, err := e.end(ctx, victims, opts...)
	if reportErr := e.report(append(done, outcomes...), waitersBehind); err == nil {
		err = reportErr
	}
	return err
}

// find returns the selected sessions. spared are those that only wait ahead in a lock
// queue, and go on when the others are gone.
func (e *end) find(ctx context.Context) (victims []inspect.Victim, spared []inspect.Outcome, err error) {
	if e.blocking {
		pairs, err := inspect.Blocked(ctx, e.session.guarded, e.all()...)
		if err != nil {
			return nil, nil, err
		}
		victims = inspect.BlockersOf(pairs)
		return slices.DeleteFunc(victims, func(v inspect.Victim) bool {
			ahead := waitsFor(v, victims, pairs)
			if ahead == nil {
				return false
			}
			spared = append(spared, inspect.Outcome{Victim: v, Reason: inspect.Queued, Detail: fmt.Sprintf(
				"it only waits ahead of the others in the lock queue, for %s (-f block=soft selects it)", sessionName(ahead))})
			return true
		}), spared, nil
	}
	locks, err := inspect.Locks(ctx, e.session.guarded, e.all()...)
	if err != nil {
		return nil, nil, err
	}
	// Leave out locks without a session that could be ended.
	return slices.DeleteFunc(inspect.SessionsOf(locks), func(v inspect.Victim) bool {
		return v.PID == 0 && v.Prepared == nil
	}), nil, nil
}

// waitsFor returns a victim that v waits for, if v only waits ahead in a lock queue and
// holds nothing that others wait for. Otherwise it returns nil.
func waitsFor(v inspect.Victim, victims []inspect.Victim, pairs []inspect.Pair) *inspect.Session {
	var ahead *inspect.Session
	for _, p := range pairs {
		switch {
		case p.Blocking == v.Session && p.Hard:
			return nil
		case p.Session == v.Session && p.Hard &&
			slices.ContainsFunc(victims, func(other inspect.Victim) bool { return other.Session == p.Blocking }):
			ahead = p.Blocking
		}
	}
	return ahead
}

// recheck returns the sessions to signal that still match after the answer, which may
// have come late. It adds no session. The outcomes are those of all other sessions.
func (e *end) recheck(ctx context.Context, before []inspect.Outcome) ([]inspect.Victim, []inspect.Outcome, error) {
	now, _, err := e.find(ctx)
	if err != nil {
		return nil, nil, err
	}
	var victims []inspect.Victim
	var others []inspect.Outcome
	for _, o := range before {
		i := slices.IndexFunc(now, func(v inspect.Victim) bool {
			return v.PID == o.Victim.PID && v.BackendStart.Equal(o.Victim.BackendStart)
		})
		switch {
		case !o.Signaled:
			others = append(others, o)
		case i < 0:
			o.Signaled, o.Reason, o.Detail = false, inspect.Excluded, "it is gone or no longer matches"
			others = append(others, o)
		case o.Victim.BackendStart.IsZero():
			// Its start time is hidden. What was seen of it before proves whether it
			// is still the session that was shown.
			victims = append(victims, o.Victim)
		default:
			victims = append(victims, now[i])
		}
	}
	return victims, others, nil
}

func (e *end) end(ctx context.Context, victims []inspect.Victim, opts ...inspect.EndOption) ([]inspect.Outcome, error) {
	opts = append(opts, inspect.Allow(e.allow...))
	if e.terminate {
		return inspect.Terminate(ctx, e.session.guarded, victims, opts...)
	}
	return inspect.Cancel(ctx, e.session.guarded, victims, opts...)
}

// status returns the outcome in the words of docs/command.md.
func status(o inspect.Outcome) string {
	switch o.Reason {
	case "":
		return "signaled"
	case inspect.Queued, inspect.Excluded: // it need not be ended, or no longer matched when the answer came
		return "spared"
	case inspect.Protected, inspect.Wraparound, inspect.NoProcess:
		return "refused"
	case inspect.Hidden:
		return string(inspect.NotPermitted)
	}
	return string(o.Reason)
}

// waitersBehind returns how many sessions wait behind each session, by sessionName.
func (e *end) waitersBehind(ctx context.Context) (map[string]int, error) {
	pairs, err := inspect.Blocked(ctx, e.session.guarded)
	if err != nil {
		return nil, err
	}
	waitersBehind := map[string]int{}
	var visit func(t *inspect.Tree)
	visit = func(t *inspect.Tree) {
		waitersBehind[sessionName(t.Session)] = t.Behind
		for _, b := range t.Blocked {
			visit(b)
		}
	}
	snapshot := inspect.Snapshot{Pairs: pairs}
	for _, t := range snapshot.Forest() {
		visit(t)
	}
	return waitersBehind, nil
}

// confirm shows the sessions and asks for confirmation. It returns errDeclined for a no.
func (e *end) confirm(outcomes []inspect.Outcome, waitersBehind map[string]int) error {
	in, out, err := e.terminal()
	if err != nil {
		return &usageError{text: "no terminal to ask for confirmation: use -y or --dry-run"}
	}
	shown := *e.app
	shown.Out = out
	f := shown.format("table", e.expanded)
	if err := e.table(outcomes, waitersBehind, f, true).write(out, f); err != nil {
		return err
	}
	count := 0
	for _, o := range outcomes {
		if o.Signaled {
			count++
		} else {
			fmt.Fprintln(out, e.explain(o, true))
		}
	}
	verb := "Cancel the statements of %s? [y/N] "
	who := plural(count, "session", "sessions")
	if e.terminate {
		verb = "Terminate %s? [y/N] "
	}
	fmt.Fprintf(out, verb, who)
	answer, err := readLine(in)
	if err != nil {
		fmt.Fprintln(out)
	}
	if !slices.Contains([]string{"y", "yes"}, strings.ToLower(strings.TrimSpace(answer))) {
		return errDeclined
	}
	return nil
}

// readLine reads a line and nothing beyond it.
func readLine(in io.Reader) (string, error) {
	var line []byte
	b := make([]byte, 1)
	for {
		n, err := in.Read(b)
		switch {
		case n > 0 && b[0] == '\n':
			return string(line), nil
		case n > 0 && len(line) < 100:
			line = append(line, b[0])
		}
		if err != nil {
			return "", err
		}
	}
}

// report writes the outcomes to stdout, and to stderr why some sessions were not ended.
func (e *end) report(outcomes []inspect.Outcome, waitersBehind map[string]int) error {
	var out bytes.Buffer
	switch {
	case e.format.name == "json":
		if err := e.writeJSON(&out, outcomes, waitersBehind); err != nil {
			return err
		}
	case len(outcomes) > 0 || e.format.isMachine():
		if err := e.table(outcomes, waitersBehind, e.format, e.dryRun).write(&out, e.format); err != nil {
			return err
		}
	}
	if len(outcomes) == 0 {
		if len(e.pids) == 0 || e.blocking {
			e.logf("no session matches")
		}
		for _, line := range e.hints {
			e.logf("%s", line)
		}
	}
	if _, err := e.Out.Write(out.Bytes()); err != nil {
		return err
	}
	failed := false
	for _, pid := range e.missing(outcomes) {
		failed = true
		e.logf("pid %d was not %s: no session with this PID has a matching lock", pid, e.pastTense())
	}
	for _, o := range outcomes {
		failed = failed || !e.succeeded(o)
		if !e.succeeded(o) || status(o) == "spared" {
			fmt.Fprintln(e.Err, "pglock: "+e.explain(o, e.dryRun))
		}
	}
	if failed {
		return &loggedError{errors.New("some sessions were not ended")}
	}
	return nil
}

// missing returns the given PIDs whose sessions have no matching lock.
func (e *end) missing(outcomes []inspect.Outcome) []int32 {
	if e.blocking {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(e.pids), func(pid int32) bool {
		return slices.ContainsFunc(outcomes, func(o inspect.Outcome) bool {
			return o.Victim.PID == pid
		})
	})
}

// succeeded reports whether a session no longer blocks.
func (e *end) succeeded(o inspect.Outcome) bool {
	switch o.Reason {
	case "":
		return !e.wait.set || o.Ended || e.dryRun
	case inspect.Gone, inspect.NotBlocking, inspect.Queued, inspect.Excluded:
		return true
	}
	return false
}

func (e *end) pastTense() string {
	if e.terminate {
		return "terminated"
	}
	return "canceled"
}

// explain describes why a session was not ended, and what helps.
func (e *end) explain(o inspect.Outcome, dryRun bool) string {
	not := "was not"
	if dryRun {
		not = "would not be"
	}
	text := fmt.Sprintf("%s %s %s: %s", sessionName(o.Victim.Session), not, e.pastTense(), printable(o.Detail))
	if o.Signaled { // but did not end in time
		text = fmt.Sprintf("%s: %s", sessionName(o.Victim.Session), printable(o.Detail))
	}
	switch {
	case o.Grant != "":
		text += "; a superuser can allow it: " + printable(o.Grant)
	case o.Reason == inspect.Idle:
		text += fmt.Sprintf("; use pglock terminate %d", o.Victim.PID)
	case o.Class != "":
		text += "; use --allow " + string(o.Class)
	}
	return text
}

// outcomeText returns an outcome in a word or two.
func (e *end) outcomeText(o inspect.Outcome, dryRun bool) string {
	switch {
	case o.Signaled && dryRun:
		return "would be " + e.pastTense()
	case o.Signaled && e.wait.set && !o.Ended:
		return "not gone yet"
	case o.Signaled:
		return e.pastTense()
	}
	return status(o)
}

// table returns a table with a row for each outcome.
func (e *end) table(outcomes []inspect.Outcome, waitersBehind map[string]int, f format, dryRun bool) *table {
	t := &table{}
	for _, name := range []string{"pid", "user", "application", "state", "duration", "query"} {
		a, _ := attributeOf(sessionAttributes(), name)
		t.columns = append(t.columns, a)
	}
	if f.isMachine() {
		t.columns = sessionAttributes()
	}
	query := len(t.columns) - 1
	t.columns = slices.Insert(t.columns, query, inspect.Attribute{Name: "blocks"})
	t.columns = append(t.columns, inspect.Attribute{Name: "outcome"})
	if f.isMachine() || f.expanded {
		t.columns = append(t.columns, inspect.Attribute{Name: "reason"})
	}
	for _, o := range outcomes {
		t.add(false, func(a inspect.Attribute) any {
			switch a.Name {
			case "blocks":
				return int64(waitersBehind[sessionName(o.Victim.Session)])
			case "outcome":
				return e.outcomeText(o, dryRun)
			case "reason":
				return o.Detail
			case "application":
				switch {
				case f.isMachine():
				case o.Victim.Prepared != nil:
					return sessionName(o.Victim.Session)
				default:
					return applicationOf(o.Victim.Session)
				}
			}
			return a.Value(&inspect.Lock{Session: o.Victim.Session})
		})
	}
	return t
}

// writeJSON writes the outcomes in the format of docs/command.md.
func (e *end) writeJSON(out io.Writer, outcomes []inspect.Outcome, waitersBehind map[string]int) error {
	var objects []jsonObject
	for _, o := range outcomes {
		var object jsonObject
		for _, a := range sessionAttributes() {
			object.add(a.Name, a.Value(&inspect.Lock{Session: o.Victim.Session}))
		}
		object.add("prepared", preparedObject(o.Victim.Prepared))
		object.add("blocks", waitersBehind[sessionName(o.Victim.Session)])
		object.add("status", status(o))
		object.add("ended", o.Ended)
		object.add("reason", orNull(o.Detail))
		object.add("grant", orNull(o.Grant))
		object.add("allow", orNull(string(o.Class)))
		objects = append(objects, object)
	}
	return writeJSONList(out, objects)
}

func orNull(s string) any {
	if s == "" {
		return nil
	}
	return s
}

// allowFlag is --allow.
type allowFlag []inspect.Class

func allowChoices() []string {
	return []string{string(inspect.Autovacuum), string(inspect.WALSenders), string(inspect.Background), string(inspect.Ourselves)}
}

func (f *allowFlag) Type() string { return "KIND" }

func (f *allowFlag) String() string {
	var kinds []string
	for _, k := range *f {
		kinds = append(kinds, string(k))
	}
	return strings.Join(kinds, ",")
}

func (f *allowFlag) Set(s string) error {
	for kind := range strings.SplitSeq(s, ",") {
		kind = strings.TrimSpace(kind)
		if !slices.Contains(allowChoices(), kind) {
			return fmt.Errorf("the kinds are %s", strings.Join(allowChoices(), ", "))
		}
		*f = append(*f, inspect.Class(kind))
	}
	return nil
}
