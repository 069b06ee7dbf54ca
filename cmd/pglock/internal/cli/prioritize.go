package cli

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/pglock-go/pglock/cmd/pglock/internal/render"
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
to COMMAND in PGOPTIONS, which libpq, pgx and lib/pq use, and most poolers drop.

With --retry, COMMAND does not wait for long: it gets a short lock_timeout (2s), and if
it fails because of that, it runs again after a pause, until --budget (10m) or --tries
are used up. The sessions that wait behind it get their turn in the pause. It counts as
a lock timeout if COMMAND fails within 10s of a wait of one of its sessions that may
have ended when --lock-timeout expired, or exits with a code of --retry-on. COMMAND
starts from its beginning, and what it has committed stays: it must be able to run
again, as migrations that run in a transaction are. --cancel, --terminate and
--escalate apply only to the last try.

As with pglock run, COMMAND gets pglock's standard streams, signals are passed to its
process group, processes that it leaves running are ended, and pglock exits with its
exit code.

Exit codes:

  COMMAND's own, or 128+N if signal N ended it
  1    any other error
  2    wrong usage
  69   no server answered, or it accepts no sessions now
  75   --retry gave up: each try failed because of a lock
  126  COMMAND cannot be executed
  127  COMMAND not found`

const prioritizeExamples = `  pglock prioritize -- psql -f migration.sql
  pglock prioritize --escalate 5s --max 10 --lock-timeout 1min -- ./manage.py migrate
  pglock prioritize --terminate -f 'blocking_application = reports' -- make migrate
  pglock prioritize --cancel --user flyway -- flyway migrate
  pglock prioritize --retry --budget 30m -- ./manage.py migrate
  pglock prioritize --retry --tries 5 --terminate -- psql -v ON_ERROR_STOP=1 -1f migration.sql`

// A prioritizeRequest holds the arguments of pglock prioritize.
type prioritizeRequest struct {
	who         prioritize.Who
	tag         string
	policy      []prioritize.RunForOption
	dryRun      bool
	after       time.Duration
	lockTimeout time.Duration // 0 to leave it unchanged
	max         int           // 0 for no limit
	filters     filterFlag
	allow       kindFlag
	grace       time.Duration
	retry       *retryRequest // nil without --retry
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

		retry retryFlags
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
				return usagef(cmd, "unexpected argument %s before --", render.Quote(args[0]))
			}
			r.command = args
			var chosen []string
			policy := func(flag string, isSet bool, options ...prioritize.RunForOption) {
				if isSet {
					chosen = append(chosen, flag)
					r.policy = append(r.policy, options...)
				}
			}
			policy("--cancel", cancel, prioritize.Cancel())
			policy("--terminate", terminate, prioritize.Terminate())
			policy("--escalate", escalate.set, prioritize.CancelThenTerminate(escalate.value))
			policy("--dry-run", r.dryRun) // without a policy, it only reports
			if len(chosen) > 1 {
				return usagef(cmd, "%s cannot be combined", strings.Join(chosen, " and "))
			}
			if len(r.policy) > 0 {
				if err := a.checkEnds(cmd); err != nil {
					return err
				}
			}
			if retry.on && !timeout.set {
				timeout.value = retryLockTimeout
			}
			var err error
			if r.retry, err = retry.request(cmd); err != nil {
				return err
			}
			if acts := after.value + escalate.value; retry.on && len(r.policy) > 0 && acts >= timeout.value {
				return usagef(cmd, "%s would act after %v, but --lock-timeout ends the wait after %v: give a longer --lock-timeout or a shorter --after", chosen[0], acts, timeout.value)
			}
			if timeout.value.Milliseconds() > math.MaxInt32 {
				return usagef(cmd, "--lock-timeout %s: the longest that Postgres accepts is %v", timeout.String(), math.MaxInt32*time.Millisecond)
			}
			for _, user := range users {
				if !utf8.ValidString(user) {
					return usagef(cmd, "--user %s: not valid UTF-8", render.Quote(user))
				}
			}
			for _, name := range names {
				switch {
				case !utf8.ValidString(name):
					return usagef(cmd, "--application-name %s: not valid UTF-8", render.Quote(name))
				case len(name) > render.MaxApplicationBytes:
					return usagef(cmd, "--application-name %s: longer than the %d bytes that Postgres keeps", render.Quote(name), render.MaxApplicationBytes)
				case name == watcherApplication:
					return usagef(cmd, "--application-name %s: reserved for the sessions that watch", render.Quote(name))
				}
			}
			r.after, r.lockTimeout, r.grace, r.max = after.value, timeout.value, grace.value, maxEnded.value
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
	retry.register(flags)
	maxEnded = countFlag{what: "must be 1 or more; use --dry-run to end no session"}
	flags.Var(&maxEnded, "max", "end at most `N` sessions")
	flags.VarP(&r.filters, "filter", "f", "end only sessions that match `\"FIELD OP VALUE\"`; repeat to require all")
	r.allow.choices = []inspect.Class{inspect.Superusers, inspect.Autovacuum, inspect.Background}
	flags.Var(&r.allow, "allow", "also end these `KIND`s: "+r.allow.usage())
	flags.Var(&names, "application-name", "sessions with this application_`name` are COMMAND's too")
	flags.Var(&users, "user", "sessions of this `role` are COMMAND's too")
	flags.Var(&pids, "pid", "the session with this `PID` is COMMAND's too")
	flags.Var(&grace, "grace", "time from SIGTERM to SIGKILL")

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
	return tag[:min(len(tag), render.MaxApplicationBytes)]
}

// prioritize runs the command, and clears the way for it while it runs.
func (a *app) prioritize(ctx context.Context, r prioritizeRequest) error {
	child, err := a.newChild(r.command, r.grace)
	if err != nil {
		return err
	}
	defer child.close()
	target, err := a.target(watcherApplication)
	if err != nil {
		return err
	}
	// From its start on, even if PGAPPNAME is set.
	target.SetApplication(watcherApplication)

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	report := newBlockerReport(a, r)
	stdin := &replay{source: a.In, direct: true}
	if r.retry != nil {
		stdin = newReplay(a.In)
	}
	begun := make(chan struct{}) // receives as the command starts: it gets the signals until it has ended
	ended := make(chan struct{})
	run := func(ctx context.Context) error {
		select {
		case begun <- struct{}{}:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		defer func() { ended <- struct{}{} }()
		in, inStarted, inEnded, err := stdin.open()
		if err != nil {
			return err
		}
		defer inEnded()
		child.command.Stdin = in
		process, err := child.start(prioritizedEnv(a.env, r))
		inStarted()
		if err != nil {
			return err
		}
		report.begin()
		defer report.end()
		child.follow(process, followed{
			ended: ctx.Done(),
			end:   process.End,
			stuck: func(processes string) { report.logf("these processes do not end: %s", processes) },
		})
		status, err := process.Wait()
		if err != nil {
			report.logf("%v", err)
		}
		switch {
		case r.retry == nil:
		case child.interrupted:
			cancel(errInterrupted)
		case stdin.isFull():
			cancel(errTooMuchInput)
		}
		if status.ExitCode() != 0 {
			return r.retry.classify(&childError{status})
		}
		return nil
	}
	done := make(chan error, 1)
	go func() {
		done <- a.connection.WithPassword(ctx, target, func() error {
			source := checkedSource{target, r.filters}
			if r.retry != nil {
				return prioritize.RetryFor(ctx, source, r.who, run, r.retryOptions(report.onEvent)...)
			}
			return prioritize.RunFor(ctx, source, r.who, run, r.options(report.onEvent)...)
		})
	}()
	for {
		select {
		case <-begun:
			<-ended
		case sig := <-child.signals:
			if number, ok := sig.(syscall.Signal); ok {
				cancel(&signalError{number})
			}
		case err := <-done:
			if !report.hasBegun() {
				return signalOr(ctx, err)
			}
			if r.retry != nil {
				err = report.retryEnded(ctx, err)
			}
			report.writeSummary()
			return err
		}
	}
}

func (r prioritizeRequest) options(onEvent func(prioritize.Event)) []prioritize.RunForOption {
	options := append(slices.Clone(r.policy), prioritize.After(r.after), prioritize.Only(r.filters...),
		prioritize.Allow(r.allow.value...), prioritize.OnEvent(onEvent))
	if r.max > 0 {
		options = append(options, prioritize.Max(r.max))
	}
	return options
}

// prioritizedEnv returns the environment of the command.
func prioritizedEnv(env []string, r prioritizeRequest) []string {
	var vars []string
	options := ""
	for _, kv := range env {
		if value, ok := strings.CutPrefix(kv, "PGOPTIONS="); ok && r.lockTimeout > 0 {
			options = value + " " // the last one counts, as for os/exec
		} else if !strings.HasPrefix(kv, "PGAPPNAME=") {
			vars = append(vars, kv)
		}
	}
	if r.lockTimeout > 0 {
		ms := (r.lockTimeout + time.Millisecond - 1).Milliseconds()
		vars = append(vars, fmt.Sprintf("PGOPTIONS=%s-c lock_timeout=%dms", options, ms))
	}
	return append(vars, "PGAPPNAME="+r.tag)
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

// countFlag is a number of 1 or more, or 0 if not given.
type countFlag struct {
	value int
	what  string // the error for another number
}

func (f *countFlag) Type() string { return "N" }

func (f *countFlag) String() string {
	if f.value == 0 {
		return ""
	}
	return strconv.Itoa(f.value)
}

func (f *countFlag) Set(s string) error {
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 {
		return errors.New(f.what)
	}
	f.value = n
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
