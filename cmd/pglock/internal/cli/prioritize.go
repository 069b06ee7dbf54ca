package cli

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/pglock-go/pglock/cmd/pglock/internal/supervise"
	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/prioritize"
)

const prioritizeHelp = `Runs COMMAND, such as a migration, and watches its database sessions. A session that
blocks one of them for longer than --after is reported. With --cancel, --terminate or
--escalate it is also canceled or terminated.

Blockers, and what was done about them, are logged on stderr, with a line for each at
the end. A session is ended only if it holds a conflicting lock at that moment. Never
ended are COMMAND's own sessions, sessions that only wait ahead in the lock queue, and
those of another pglock prioritize, for which COMMAND waits. Sessions of other roles
that are superusers, autovacuum and server processes are ended only with --allow.

COMMAND's sessions are found by their application_name, which COMMAND gets in
PGAPPNAME. libpq, pgx, lib/pq, psycopg and drivers built on them use it. For others,
give --application-name, --user or --pid. Every session found this way counts as
COMMAND's own, so do not name a role that other programs use. --lock-timeout is passed
to COMMAND in PGOPTIONS.

As with pglock run, COMMAND gets pglock's standard streams, signals are passed to its
process group, processes that it leaves running are ended, and pglock exits with its
exit code.

Exit codes:

  COMMAND's own, or 128+N if signal N ended it
  1    any other error
  2    wrong usage
  69   no server answered, or it accepts no sessions now
  126  COMMAND cannot be executed
  127  COMMAND not found`

const prioritizeExamples = `  pglock prioritize -- psql -f migration.sql
  pglock prioritize --escalate 5s --max 10 --lock-timeout 1min -- ./manage.py migrate
  pglock prioritize --terminate -f 'blocking_application = reports' -- make migrate
  pglock prioritize --cancel --user flyway -- flyway migrate`

// A prioritizeRequest holds the arguments of pglock prioritize.
type prioritizeRequest struct {
	who         prioritize.Who
	tag         string
	policy      []prioritize.Option
	dryRun      bool
	after       time.Duration
	lockTimeout time.Duration // 0 to leave it unchanged
	max         int           // 0 for no limit
	filters     filterFlag
	allow       kindFlag
	grace       time.Duration
	command     []string
}

func (a *app) prioritizeCommand() *cobra.Command {
	var (
		r                 prioritizeRequest
		cancel, terminate bool
		maxEnded          countFlag
		pids              pidFlag
		names, users      listFlag

		after    = durationFlag{value: time.Second, what: "must not be negative", set: true}
		escalate = durationFlag{min: time.Nanosecond, what: "must be longer than 0; use --terminate to end blockers at once"}
		timeout  = durationFlag{min: time.Millisecond, what: "must be 1ms or longer"}
		grace    = durationFlag{value: 10 * time.Second, what: "must not be negative", set: true}
	)
	cmd := &cobra.Command{
		Use:                   "prioritize [FLAG...] -- COMMAND [ARGUMENT...]",
		Short:                 "Run a command and clear the way for it",
		Long:                  prioritizeHelp,
		Example:               prioritizeExamples,
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			dash := cmd.ArgsLenAtDash()
			switch {
			case dash < 0 || dash == len(args):
				return usagef(cmd, "no command given: pglock prioritize -- COMMAND")
			case dash > 0:
				return usagef(cmd, "unexpected argument %s before --", quoted(args[0]))
			}
			r.command = args
			var chosen []string
			policy := func(flag string, isSet bool, option prioritize.Option) {
				if isSet {
					chosen = append(chosen, flag)
					r.policy = append(r.policy, option)
				}
			}
			policy("--cancel", cancel, prioritize.Cancel())
			policy("--terminate", terminate, prioritize.Terminate())
			policy("--escalate", escalate.set, prioritize.CancelThenTerminate(escalate.value))
			policy("--dry-run", r.dryRun, prioritize.Report())
			if len(chosen) > 1 {
				return usagef(cmd, "%s cannot be combined", strings.Join(chosen, " and "))
			}
			if timeout.value.Milliseconds() > math.MaxInt32 {
				return usagef(cmd, "--lock-timeout %s: the longest that Postgres accepts is %v", timeout.String(), math.MaxInt32*time.Millisecond)
			}
			for _, user := range users {
				if !utf8.ValidString(user) {
					return usagef(cmd, "--user %s: not valid UTF-8", quoted(user))
				}
			}
			for _, name := range names {
				switch {
				case !utf8.ValidString(name):
					return usagef(cmd, "--application-name %s: not valid UTF-8", quoted(name))
				case len(name) > maxApplicationBytes:
					return usagef(cmd, "--application-name %s: longer than the %d bytes that Postgres keeps", quoted(name), maxApplicationBytes)
				case name == watcherApplication:
					return usagef(cmd, "--application-name %s: reserved for the sessions that watch", quoted(name))
				}
			}
			r.after, r.lockTimeout, r.grace, r.max = after.value, timeout.value, grace.value, int(maxEnded)
			r.tag = commandTag(r.command[0], rand.Uint32())
			r.who = prioritize.Who{PIDs: pids, Applications: append([]string{r.tag}, names...), Users: users}
			return a.prioritize(cmd.Context(), r)
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.Var(&after, "after", "act on a session that has blocked for this time")
	flags.BoolVar(&cancel, "cancel", false, "cancel a blocker's statement; has no effect on one that is idle in a transaction")
	flags.BoolVar(&terminate, "terminate", false, "terminate a blocker's session")
	flags.Var(&escalate, "escalate", "cancel, and terminate if it still blocks after this time")
	flags.BoolVar(&r.dryRun, "dry-run", false, "only report blockers, as without --cancel, --terminate and --escalate")
	flags.Var(&timeout, "lock-timeout", "lock_timeout of COMMAND's sessions")
	flags.Var(&maxEnded, "max", "end at most `N` sessions")
	flags.VarP(&r.filters, "filter", "f", "end only sessions that match `\"FIELD OP VALUE\"`; repeat to require all")
	flags.Var(&r.allow, "allow", "also end these `KIND`s: "+strings.Join(kindChoices(), ", "))
	flags.Var(&names, "application-name", "sessions with this application_`name` are COMMAND's too")
	flags.Var(&users, "user", "sessions of this `role` are COMMAND's too")
	flags.Var(&pids, "pid", "the session with this `PID` is COMMAND's too")
	flags.Var(&grace, "grace", "time from SIGTERM to SIGKILL")

	cmd.ValidArgsFunction = func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return nil, cobra.ShellCompDirectiveDefault // a command and its files
	}
	_ = cmd.RegisterFlagCompletionFunc("allow", cobra.FixedCompletions(kindChoices(), cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// watcherApplication is the application_name of the session that watches.
const watcherApplication = "pglock prioritize"

// commandTag returns the application_name for a command's sessions. It uses only printable
// ASCII: Postgres replaces other characters, in ways that differ between its versions.
func commandTag(command string, number uint32) string {
	tag := fmt.Sprintf("%s %06x: ", watcherApplication, number&0xffffff)
	for _, r := range filepath.Base(command) {
		if r < ' ' || r > '~' {
			r = '?'
		}
		tag += string(r)
	}
	return tag[:min(len(tag), maxApplicationBytes)]
}

// prioritize runs the command, and clears the way for it while it runs.
func (a *app) prioritize(ctx context.Context, r prioritizeRequest) error {
	path, err := supervise.Find(r.command[0], a.env)
	if err != nil {
		return err
	}
	if err := supervise.Check(); err != nil {
		return err
	}
	target, err := a.target(watcherApplication)
	if err != nil {
		return err
	}
	// From its start on, even if PGAPPNAME is set.
	target.SetApplication(watcherApplication)

	signals := make(chan os.Signal, 64)
	forwarded := supervise.Forwarded()
	for _, sig := range forwarded {
		if isEnding(sig) {
			signal.Notify(signals, sig)
		}
	}
	defer signal.Stop(signals)
	supervise.SurviveClosedPipes()
	endReaping := supervise.ReapOrphans()
	defer endReaping()

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	report := newBlockerReport(a, r)
	watched := make(chan struct{}) // receives once: from then on signals go to the command
	run := func(ctx context.Context) error {
		select {
		case watched <- struct{}{}:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		signal.Notify(signals, append(forwarded, supervise.Continued()...)...)
		endReaping()
		process, err := supervise.Start(supervise.Command{
			Path: path, Args: r.command, Env: prioritizedEnv(a.env, r),
			Stdin: a.In, Stdout: a.Out, Stderr: a.Err,
			Grace: r.grace,
		})
		if err != nil {
			return err
		}
		report.begin()
		defer report.end()
		follow(ctx, process, signals, func(stuck string) { report.logf("these processes do not end: %s", stuck) })
		status, err := process.Wait()
		if err != nil {
			report.logf("%v", err)
		}
		if status.ExitCode() != 0 {
			return &childError{status}
		}
		return nil
	}
	done := make(chan error, 1)
	go func() {
		done <- a.connection.WithPassword(ctx, target, func() error {
			source := checkedSource{target, r.filters}
			return prioritize.RunFor(ctx, source, r.who, run, r.options(report.onEvent)...)
		})
	}()
	for begun := watched; ; {
		select {
		case <-begun:
			err := <-done
			report.writeSummary()
			return err
		case sig := <-signals:
			if number, ok := sig.(syscall.Signal); ok {
				begun = nil
				cancel(&signalError{number})
			}
		case err := <-done:
			if interrupted := new(signalError); errors.As(context.Cause(ctx), &interrupted) {
				return interrupted
			}
			return err
		}
	}
}

func (r prioritizeRequest) options(onEvent func(prioritize.Event)) []prioritize.Option {
	options := append(slices.Clone(r.policy), prioritize.After(r.after), prioritize.Only(r.filters...),
		prioritize.Allow(r.allow...), prioritize.OnEvent(onEvent))
	if r.max > 0 {
		options = append(options, prioritize.Max(r.max))
	}
	return options
}

// follow passes signals to the command until nothing of it is left. When ctx is done, it
// ends the command.
func follow(ctx context.Context, process *supervise.Process, signals <-chan os.Signal, stuck func(string)) {
	ended := ctx.Done()
	for {
		select {
		case <-ended:
			ended = nil
			process.End()
		case sig := <-signals:
			if slices.Contains(supervise.Continued(), sig) {
				process.Continue()
			} else if number, ok := sig.(syscall.Signal); ok {
				process.Signal(number)
			}
		case e, ok := <-process.Events():
			switch {
			case !ok:
				return
			case e.Stopped:
				if !supervise.Stop() {
					process.Continue()
				}
			case e.Stuck != "":
				stuck(e.Stuck)
			}
		}
	}
}

// prioritizedEnv returns the environment of the command.
func prioritizedEnv(env []string, r prioritizeRequest) []string {
	var child []string
	options := ""
	for _, kv := range env {
		if value, ok := strings.CutPrefix(kv, "PGOPTIONS="); ok && r.lockTimeout > 0 {
			options = value + " " // the last one counts, as for os/exec
		} else if !strings.HasPrefix(kv, "PGAPPNAME=") {
			child = append(child, kv)
		}
	}
	if r.lockTimeout > 0 {
		ms := (r.lockTimeout + time.Millisecond - 1).Milliseconds()
		child = append(child, fmt.Sprintf("PGOPTIONS=%s-c lock_timeout=%dms", options, ms))
	}
	return append(child, "PGAPPNAME="+r.tag)
}

// A checkedSource opens sessions for the watcher. It runs the filters once, so that an
// invalid regular expression, which only the server detects, fails before the command
// starts.
type checkedSource struct {
	driver.Source
	filters []inspect.Filter
}

func (s checkedSource) Open(ctx context.Context) (driver.Session, error) {
	session, err := s.Source.Open(ctx)
	if err != nil || len(s.filters) == 0 {
		return session, err
	}
	// Leave it to package prioritize to refuse a session, such as a pooler's.
	guarded, shared, err := inspect.Guard(ctx, session)
	if err == nil && !shared {
		_, err = inspect.Blocked(ctx, guarded, s.filters...)
	}
	if err != nil {
		session.Close()
		return nil, err
	}
	return session, nil
}

// kindFlag is --allow.
type kindFlag []inspect.Class

func kindChoices() []string {
	return []string{string(inspect.Superusers), string(inspect.Autovacuum), string(inspect.Background)}
}

func (f *kindFlag) Type() string { return "KIND" }

func (f *kindFlag) String() string {
	var kinds []string
	for _, k := range *f {
		kinds = append(kinds, string(k))
	}
	return strings.Join(kinds, ",")
}

func (f *kindFlag) Set(s string) error {
	for kind := range strings.SplitSeq(s, ",") {
		kind = strings.TrimSpace(kind)
		if !slices.Contains(kindChoices(), kind) {
			return fmt.Errorf("the kinds are %s", strings.Join(kindChoices(), ", "))
		}
		*f = append(*f, inspect.Class(kind))
	}
	return nil
}

// countFlag is --max: a number of 1 or more, or 0 if not given.
type countFlag int

func (f *countFlag) Type() string { return "N" }

func (f *countFlag) String() string {
	if *f == 0 {
		return ""
	}
	return strconv.Itoa(int(*f))
}

func (f *countFlag) Set(s string) error {
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 {
		return errors.New("must be 1 or more; use --dry-run to end no session")
	}
	*f = countFlag(n)
	return nil
}

// pidFlag is --pid: PIDs of sessions.
type pidFlag []int32

func (f *pidFlag) Type() string { return "PID" }

func (f *pidFlag) String() string {
	var pids []string
	for _, pid := range *f {
		pids = append(pids, strconv.Itoa(int(pid)))
	}
	return strings.Join(pids, ",")
}

func (f *pidFlag) Set(s string) error {
	pid, err := strconv.ParseInt(s, 10, 32)
	if err != nil || pid < 1 {
		return errors.New("not a PID")
	}
	*f = append(*f, int32(pid))
	return nil
}
