package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/pglock-go/pglock/cmd/pglock/internal/config"
	"github.com/pglock-go/pglock/cmd/pglock/internal/render"
	"github.com/pglock-go/pglock/inspect"
)

const cancelHelp = `Cancels the statements that sessions run, as Ctrl-C does in psql. The sessions are
those that hold or wait for a matching lock or, with --blocking, those that block
them. The sessions stay connected. A session that is idle runs no statement, so it is
reported and left alone: use pglock terminate.
` + endHelp

const terminateHelp = `Terminates sessions: those that hold or wait for a matching lock or, with --blocking,
those that block them. Postgres rolls back their transactions and then releases
their locks. --wait waits for that.
` + endHelp

const endHelp = `
A PID selects a session even if it holds no lock; pglock ps lists those.

With --blocking --roots, only those sessions are ended for which the matching ones wait
in the end, directly or through others, and that wait for nobody themselves. All others
go on when these have ended. Filters on blocking_ fields apply to the sessions to end.

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
  pglock cancel --blocking --roots --on orders
  pglock cancel -f 'wait_duration > 1min' --dry-run`

const terminateExamples = `  pglock terminate 4711
  pglock terminate --blocking --roots 4712
  pglock terminate --blocking --roots --on orders -y --wait 10s
  pglock terminate --blocking -f 'blocking_state = idle in transaction'`

// An endRequest holds the arguments of cancel or terminate, and what one run needs.
type endRequest struct {
	*app
	selection
	terminate  bool
	everything bool
	roots      bool
	confirmed  bool
	dryRun     bool
	allow      kindFlag
	wait       durationFlag
	format     render.Format

	session *session
	ending  render.Ending
	hints   []string // why no session matches, if known
	advice  string   // that --roots would do, or ""
}

func (a *app) cancelCommand() *cobra.Command {
	return a.endCommand(&endRequest{app: a}, &cobra.Command{
		Use:     "cancel [FLAG...] [PID...]",
		Short:   "Cancel the statements of sessions",
		Long:    cancelHelp,
		Example: cancelExamples,
	})
}

func (a *app) terminateCommand() *cobra.Command {
	e := &endRequest{app: a, terminate: true, wait: durationFlag{min: time.Millisecond, what: "must be longer than 0"}}
	cmd := a.endCommand(e, &cobra.Command{
		Use:     "terminate [FLAG...] [PID...]",
		Short:   "Terminate sessions",
		Long:    terminateHelp,
		Example: terminateExamples,
	})
	cmd.Flags().Var(&e.wait, "wait", "wait up to this long for the sessions to end")
	return cmd
}

func (a *app) endCommand(e *endRequest, cmd *cobra.Command) *cobra.Command {
	output := outputFlag{choices: []string{"table", "tsv", "csv", "json"}}
	cmd.DisableFlagsInUseLine = true
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := e.resolve(a, cmd, args); err != nil {
			return err
		}
		e.confirmed = e.confirmed || e.yes
		switch {
		case len(e.where) == 0 && !e.everything:
			return usagef(cmd, "no sessions selected: give PIDs, -f, --on or --all")
		case len(e.where) > 0 && e.everything:
			return usagef(cmd, "--all cannot be combined with PIDs, -f, --on or a view's filters")
		case e.roots && !e.blocking:
			return usagef(cmd, "--roots needs --blocking")
		case !e.confirmed && !e.dryRun && !a.canAsk():
			return usagef(cmd, "%s", noTerminal(endWithoutTerminal))
		}
		e.format = a.format(e.outputOr(output), e.expanded)
		if !e.dryRun {
			if err := a.checkEnds(cmd); err != nil {
				return err
			}
		}
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
	flags.BoolVar(&e.roots, "roots", false, "with --blocking, end only those blockers that wait for nobody")
	flags.BoolVar(&e.everything, "all", false, "select all that hold or wait for a lock; with --blocking, all that block others")
	flags.BoolVarP(&e.confirmed, "yes", "y", false, "do not ask for confirmation")
	flags.BoolVar(&e.dryRun, "dry-run", false, "only show what would be done")
	e.allow.choices = []inspect.Class{inspect.Autovacuum, inspect.WALSenders, inspect.Background, inspect.Ourselves}
	flags.Var(&e.allow, "allow", "also end these `KIND`s: "+e.allow.usage())
	flags.BoolVarP(&e.expanded, "expanded", "e", false, "show each attribute on its own line")
	flags.VarP(&output, "output", "o", output.usage()+" (default table on a terminal, else tsv)")
	return cmd
}

// run finds the sessions, asks for confirmation, ends them, and reports the outcomes.
func (e *endRequest) run(ctx context.Context) error {
	victims, spared, err := e.find(ctx)
	if err != nil {
		return err
	}
	if len(victims)+len(spared) == 0 {
		counted := e.selection
		counted.sessions = e.takesAnySession()
		if e.hints, err = counted.unmatched(ctx, e.session); err != nil {
			return err
		}
	}
	pairs, err := inspect.Blocked(ctx, e.session.guarded)
	if err != nil {
		return err
	}
	e.ending = render.Ending{Terminate: e.terminate, DryRun: e.dryRun, Wait: e.wait.set, Behind: waitersBehind(pairs)}
	outcomes, err := e.signal(ctx, victims, inspect.DryRun())
	if err != nil {
		return err
	}
	if e.blocking && !e.roots && !e.confirmed {
		if e.advice, err = e.adviseRoots(ctx, outcomes, pairs); err != nil {
			return err
		}
	}
	switch {
	case e.dryRun:
		return e.report(append(outcomes, spared...))
	case e.confirmed:
		outcomes = spared
	case slices.ContainsFunc(outcomes, wasSignaled):
		outcomes = append(outcomes, spared...)
		if err := e.confirm(outcomes); err != nil {
			return err
		}
		if victims, outcomes, err = e.recheck(ctx, outcomes); err != nil {
			return err
		}
	default:
		// Nothing was confirmed, so end no session, even if one could be ended by now.
		return e.report(append(outcomes, spared...))
	}
	var opts []inspect.EndOption
	if e.wait.set {
		opts = append(opts, inspect.WaitGone(e.wait.value))
	}
	done, err := e.signal(ctx, victims, opts...)
	if reportErr := e.report(append(done, outcomes...)); err == nil {
		err = reportErr
	}
	return err
}

// find returns the selected sessions. spared are those that only wait ahead in a lock
// queue, and go on when the others are gone.
func (e *endRequest) find(ctx context.Context) (victims []inspect.Victim, spared []inspect.Outcome, err error) {
	if e.roots {
		all, err := inspect.Blocked(ctx, e.session.guarded)
		if err != nil {
			return nil, nil, err
		}
		victims, err = e.findRoots(ctx, all)
		return victims, nil, err
	}
	if e.blocking {
		pairs, err := inspect.Blocked(ctx, e.session.guarded, e.where...)
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
				"it only waits ahead of the others in the lock queue, for %s (-f block=soft selects it)", render.SessionName(ahead))})
			return true
		}), spared, nil
	}
	locks, err := inspect.Locks(ctx, e.session.guarded, e.where...)
	if err != nil {
		return nil, nil, err
	}
	// Leave out locks without a session that could be ended.
	victims = slices.DeleteFunc(inspect.SessionsOf(locks), func(v inspect.Victim) bool {
		return v.PID == 0 && v.Prepared == nil
	})
	if rest := withoutVictims(e.pids, victims); e.takesAnySession() && len(rest) > 0 {
		// If a role may not see when a session began, only its locks identify it. So
		// those that have a lock come from above.
		sessions, err := inspect.Sessions(ctx, e.session.guarded, append(slices.Clone(e.filters), inspect.PIDs(rest...))...)
		if err != nil {
			return nil, nil, err
		}
		victims = append(victims, inspect.VictimsOf(sessions)...)
	}
	return victims, nil, nil
}

// takesAnySession reports whether the selection is about sessions, not locks, so that a
// PID also selects a session without locks.
func (e *endRequest) takesAnySession() bool {
	return !e.blocking && len(e.pids) > 0 && len(e.tables) == 0 &&
		!slices.ContainsFunc(e.filters, func(f inspect.Filter) bool { return !config.OfSession(f) })
}

// withoutVictims returns the PIDs that none of the victims has.
func withoutVictims(pids []int32, victims []inspect.Victim) []int32 {
	return slices.DeleteFunc(slices.Clone(pids), func(pid int32) bool {
		return slices.ContainsFunc(victims, func(v inspect.Victim) bool { return v.PID == pid })
	})
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
func (e *endRequest) recheck(ctx context.Context, before []inspect.Outcome) ([]inspect.Victim, []inspect.Outcome, error) {
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
		case !wasSignaled(o):
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

// signal cancels or terminates sessions.
func (e *endRequest) signal(ctx context.Context, victims []inspect.Victim, opts ...inspect.EndOption) ([]inspect.Outcome, error) {
	opts = append(opts, inspect.Allow(e.allow.value...))
	if e.roots {
		opts = append(opts, inspect.OnlyRoots())
	}
	if e.terminate {
		return inspect.Terminate(ctx, e.session.guarded, victims, opts...)
	}
	return inspect.Cancel(ctx, e.session.guarded, victims, opts...)
}

// wasSignaled reports whether a session was signaled or, in a dry run, would be.
func wasSignaled(o inspect.Outcome) bool { return o.Signaled }

// waitersBehind returns how many sessions wait behind each session, by SessionName.
func waitersBehind(pairs []inspect.Pair) map[string]int {
	waitersBehind := map[string]int{}
	var visit func(t *inspect.Tree)
	visit = func(t *inspect.Tree) {
		waitersBehind[render.SessionName(t.Session)] = t.Behind
		for _, b := range t.Blocked {
			visit(b)
		}
	}
	snapshot := inspect.Snapshot{Pairs: pairs}
	for _, t := range snapshot.Forest() {
		visit(t)
	}
	return waitersBehind
}

// confirm shows the sessions and asks for confirmation. It returns a declinedError for a no.
func (e *endRequest) confirm(outcomes []inspect.Outcome) error {
	proposed := e.ending
	proposed.DryRun = true
	count := 0
	for _, o := range outcomes {
		if wasSignaled(o) {
			count++
		}
	}
	text := "Cancel the statements of %s?"
	if e.terminate {
		text = "Terminate %s?"
	}
	q := question{
		text:     fmt.Sprintf(text, render.Plural(count, "session", "sessions")),
		declined: "no session was ended",
		flags:    endWithoutTerminal,
	}
	return e.app.confirm(q, func(a *app) error {
		if err := proposed.Write(a.Out, outcomes, a.format("table", e.expanded)); err != nil {
			return err
		}
		for _, o := range outcomes {
			if !wasSignaled(o) {
				fmt.Fprintln(a.Out, proposed.Explain(o))
			}
		}
		if e.advice != "" {
			fmt.Fprintln(a.Out, e.advice)
		}
		return nil
	})
}

// endWithoutTerminal has the flags to use if there is no terminal to ask at.
const endWithoutTerminal = "-y or --dry-run"

// report writes the outcomes to stdout, and to stderr why some sessions were not ended.
func (e *endRequest) report(outcomes []inspect.Outcome) error {
	var out bytes.Buffer
	if len(outcomes) > 0 || e.format.IsMachine() {
		if err := e.ending.Write(&out, outcomes, e.format); err != nil {
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
	if e.dryRun && e.advice != "" {
		e.logf("%s", e.advice)
	}
	failed := false
	for _, pid := range e.missing(outcomes) {
		failed = true
		e.logf("pid %d was not %s: %s", pid, e.ending.PastTense(), e.missingReason())
	}
	for _, o := range outcomes {
		failed = failed || !e.ending.Succeeded(o)
		if !e.ending.Succeeded(o) || render.Status(o) == "spared" {
			e.logf("%s", e.ending.Explain(o))
		}
	}
	if failed {
		return &loggedError{errors.New("some sessions were not ended")}
	}
	return nil
}

// missing returns the given PIDs of which no session was selected.
func (e *endRequest) missing(outcomes []inspect.Outcome) []int32 {
	if e.blocking {
		return nil
	}
	victims := make([]inspect.Victim, len(outcomes))
	for i, o := range outcomes {
		victims[i] = o.Victim
	}
	return withoutVictims(e.pids, victims)
}

// missingReason explains why no session with a given PID was selected.
func (e *endRequest) missingReason() string {
	switch {
	case !e.takesAnySession():
		return "no session with this PID has a matching lock"
	case len(e.filters) > 0:
		return "no session with this PID matches"
	}
	return "there is no session with this PID"
}
