package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/cmd/pglock/internal/connect"
	"github.com/pglock-go/pglock/cmd/pglock/internal/render"
	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/inspect"
)

const runHelp = `Runs COMMAND while holding the lock NAME, so that only one command runs under this
name at a time, on any machine that uses this database. Without --wait or --no-wait,
pglock waits for the lock without limit.

COMMAND gets pglock's standard streams, and the name and key of the lock in PGLOCK_NAME
and PGLOCK_KEY. pglock exits with COMMAND's exit code.

A signal sent to pglock alone is passed to COMMAND's process group. A signal sent to
every process, as systemd does, reaches COMMAND only once. Processes that COMMAND
leaves running are ended before the lock is unlocked. If the lock is lost, COMMAND
gets SIGTERM, and SIGKILL after --grace.

--lease takes a lease in place of an advisory lock: a row of a table that pglock
install creates. It works through every connection pooler and survives a broken
connection. pglock renews it; if it cannot, COMMAND is ended before the lease
expires. If pglock is killed, others get the lease only when it expires.
PGLOCK_TOKEN is the fencing token, which COMMAND can check before it writes.

--every runs COMMAND at most once in that time, on all machines together: pglock
waits until that has passed since COMMAND last began, or gives up with --no-wait.
If COMMAND fails, it is due again at once. --slots lets that many commands run at
a time; all must name the same number.

Exit codes:

  COMMAND's own, or 128+N if signal N ended it
  1    any other error
  2    wrong usage
  69   no server answered, or it accepts no sessions now
  75   lock not acquired (-E sets another code)
  76   lock lost
  126  COMMAND cannot be executed
  127  COMMAND not found`

const runExamples = `  pglock run nightly-report -- ./report.sh --all
  pglock run --wait 30s deploy -- make deploy
  pglock run --no-wait -E 0 cron-cleanup -- ./cleanup
  pglock run --shared catalog -- ./export
  pglock run --lease 30s nightly-report -- ./report.sh --all
  pglock run --lease 30s --every 55m --no-wait -E 0 cleanup -- ./cleanup
  pglock run --slots 3 import -- ./import
  pglock -h db.example.com -d app run nightly -- sh -c 'make all && ./publish'`

// A runRequest holds the arguments of pglock run.
type runRequest struct {
	key     pglock.Key
	title   string // the lock's name as given
	shared  bool
	noWait  bool
	wait    time.Duration // 0 for no limit
	grace   time.Duration
	code    int           // exit code if the lock is not acquired
	slots   int           // how many may hold the lock; 0 for one, without slots
	lease   time.Duration // the time to live of a lease; 0 for an advisory lock
	every   time.Duration // at most once in this time; 0 for no limit
	schema  schemaFlag
	command []string
}

// The limits of --lease, which are those of pglock.Leases.
const (
	minLease = 3 * time.Second
	maxLease = 24 * time.Hour
)

// maxSlots is the limit of pglock.Slots.
const maxSlots = 1000

func (a *app) runCommand() *cobra.Command {
	var (
		r      runRequest
		number keyFlag
		wait   = durationFlag{min: time.Nanosecond, what: "must be longer than 0; use --no-wait to give up at once"}
		grace  = durationFlag{value: 10 * time.Second, what: "must not be negative", set: true}
		lease  = durationFlag{min: minLease, max: maxLease, what: "must be between 3s and 24h"}
		every  = durationFlag{min: time.Millisecond, what: "must be 1ms or more"}
		slots  slotsFlag
		code   = codeFlag(exitNotAcquired)
	)
	cmd := &cobra.Command{
		Use:                   "run [FLAG...] NAME -- COMMAND [ARGUMENT...]",
		Short:                 "Run a command while holding a lock",
		Long:                  runHelp,
		Example:               runExamples,
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			name, command, err := splitRunArgs(cmd, args, number.set)
			if err != nil {
				return err
			}
			r.command = command
			if number.set {
				r.key, r.title = number.key, "--key "+keyText(number.key)
			} else {
				if r.key, err = parseName(name); err != nil {
					return usagef(cmd, "%v", err)
				}
				r.title = name
			}
			if r.noWait && wait.set {
				return usagef(cmd, "--wait and --no-wait cannot be combined")
			}
			switch {
			case lease.set && r.shared:
				return usagef(cmd, "--lease and --shared cannot be combined: there are no shared leases")
			case r.schema.set && !lease.set:
				return usagef(cmd, "--schema needs --lease")
			case every.set && !lease.set:
				return usagef(cmd, "--every needs --lease, such as --lease 30s")
			case slots > 0 && r.shared:
				return usagef(cmd, "--slots and --shared cannot be combined: a slot has one holder")
			case slots > 0 && every.set:
				return usagef(cmd, "--slots and --every cannot be combined")
			}
			r.wait, r.grace, r.code, r.lease = wait.value, grace.value, int(code), lease.value
			r.slots, r.every = int(slots), every.value
			return a.run(cmd.Context(), r)
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.Var(&wait, "wait", "give up if the lock is not acquired within this time")
	flags.BoolVar(&r.noWait, "no-wait", false, "give up at once if another session holds the lock")
	flags.BoolVar(&r.shared, "shared", false, "share the lock with others that use --shared")
	flags.Var(&slots, "slots", "let this many hold the lock at a time")
	flags.VarP(&code, "conflict-exit-code", "E", "exit code if the lock is not acquired")
	flags.Var(&grace, "grace", "time from SIGTERM to SIGKILL")
	flags.Var(&number, "key", "lock this number or pair of numbers instead of NAME")
	flags.Var(&lease, "lease", "take a lease that lasts this long unrenewed")
	flags.Var(&every, "every", "run at most once in this time; needs --lease")
	r.schema.register(flags)
	return cmd
}

// splitRunArgs splits the arguments into the name and the command. A name that begins
// with a dash can be given after a first --, as in: run -- -x -- command.
func splitRunArgs(cmd *cobra.Command, args []string, byKey bool) (name string, command []string, err error) {
	dash := cmd.ArgsLenAtDash()
	if !byKey && dash == 0 && len(args) > 1 && args[1] == "--" {
		name, command = args[0], args[2:]
		dash = 1
	} else {
		before := args
		if dash >= 0 {
			before, command = args[:dash], args[dash:]
		}
		switch {
		case byKey && len(before) > 0 && dash >= 0:
			return "", nil, usagef(cmd, "--key and the name %s cannot be combined", render.Quote(before[0]))
		case byKey:
		case len(before) == 0:
			return "", nil, usagef(cmd, "no lock name given: pglock run NAME -- COMMAND")
		case len(before) > 1 && dash >= 0:
			return "", nil, usagef(cmd, "expected one lock name, got %d: %s", len(before), render.Quote(strings.Join(before, " ")))
		default:
			name = before[0]
		}
	}
	if dash < 0 || len(command) == 0 {
		return "", nil, usagef(cmd, "no command given: pglock run NAME -- COMMAND")
	}
	return name, command, nil
}

// run holds the lock while the command runs.
func (a *app) run(ctx context.Context, r runRequest) error {
	child, err := a.newChild(r.command, r.grace)
	if err != nil {
		return err
	}
	defer child.close()
	target, err := a.target(render.ApplicationName("run", r.title))
	if err != nil {
		return err
	}
	sockets := target.WatchSockets()
	locker, lock, err := a.acquire(ctx, target, r, child.signals)
	if err != nil {
		return r.advise(err)
	}
	// An error here would repeat a loss that was already reported.
	defer func() { _ = locker.Close() }()

	var guarded []syscall.Conn
	if r.lease == 0 { // no connection keeps a lease
		guarded = sockets.Open()
	}
	process, err := child.start(runEnv(a.env, r.key, lock.Token()), guarded...)
	if err != nil {
		return errors.Join(err, a.unlock(lock, r, false))
	}
	var lost error
	lose := func() {
		if lost == nil {
			lost = lock.Err()
			a.logf("lock %s lost, ending the command: %v", render.Quote(r.title), lost)
			process.End()
		}
	}
	child.follow(process, followed{
		ended: lock.Done(),
		end:   lose,
		resumed: func() {
			// pglock was stopped and could not notice a lost lock.
			if lock.Err() != nil {
				lose()
			}
		},
		stuck: func(processes string) {
			a.logf("still holding lock %s: these processes do not end: %s", render.Quote(r.title), processes)
		},
	})
	status, guardErr := process.Wait()
	if guardErr != nil {
		a.logf("%v", guardErr)
	}
	if lost != nil {
		_ = lock.unlock(false) // returns the loss again
		return &loggedError{lost}
	}
	if err := a.unlock(lock, r, status.ExitCode() == 0); err != nil {
		return err
	}
	if status.ExitCode() != 0 {
		return &childError{status}
	}
	return nil
}

// acquire acquires the lock, or returns the error to exit with. A signal ends the wait.
func (a *app) acquire(ctx context.Context, target *connect.Target, r runRequest, signals <-chan os.Signal) (*pglock.Locker, *runLock, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var locker *pglock.Locker
	var lock *runLock
	done := make(chan error, 1)
	go func() {
		done <- a.connection.WithPassword(ctx, target, func() error {
			var err error
			if locker, err = r.newLocker(target); err != nil {
				return err
			}
			if lock, err = a.lock(ctx, locker, r); err != nil {
				_ = locker.Close()
			}
			return err
		})
	}()
	for {
		select {
		case sig := <-signals:
			if number, ok := sig.(syscall.Signal); ok {
				cancel(&signalError{number})
			}
		case err := <-done:
			interrupted := new(signalError)
			switch {
			case errors.As(context.Cause(ctx), &interrupted):
				if err == nil { // acquired at the same moment
					_ = lock.unlock(false)
					_ = locker.Close()
				}
				return nil, nil, interrupted
			case errors.Is(err, pglock.ErrNotAcquired):
				return nil, nil, &notAcquiredError{err: err, code: r.code, text: render.Holders(r.title, err)}
			}
			return locker, lock, err
		}
	}
}

// newLocker returns the Locker for the lock.
func (r runRequest) newLocker(target *connect.Target) (*pglock.Locker, error) {
	if r.lease > 0 {
		return pglock.New(target, pglock.Leases(r.lease), pglock.Schema(r.schema.name))
	}
	var source driver.Source = target
	if name, ok := r.key.Name(); ok && target.Application() != "pglock run "+name {
		source = namedSource{source, name}
	}
	// One session for the lock, and one in case its wait must be watched or canceled.
	return pglock.New(source, pglock.Sessions(2))
}

// advise returns the error for a lock that could not be requested, with what to do.
func (r runRequest) advise(err error) error {
	switch {
	case r.lease > 0 && errors.Is(err, pglock.ErrNotInstalled):
		return &advisedError{notInstalled(r.schema), err}
	case r.lease > 0:
		return adviseUse(err, r.schema)
	case errors.Is(err, pglock.ErrPooler):
		return &advisedError{"a connection pooler is between pglock and Postgres: connect to Postgres directly, or use --lease", err}
	}
	return err
}

// lock acquires the lock as r requires. At a terminal it reports the holders it waits for.
func (a *app) lock(ctx context.Context, locker *pglock.Locker, r runRequest) (*runLock, error) {
	var opts []pglock.LockOption
	if r.shared {
		opts = append(opts, pglock.Shared())
	}
	if r.slots > 0 {
		opts = append(opts, pglock.Slots(r.slots))
	}
	wait := r.wait
	if isTerminal(a.Err) && !r.noWait {
		begin := time.Now()
		lock, err := r.take(ctx, locker, append(opts, pglock.NoWait()))
		switch {
		case ctx.Err() != nil:
			return lock, err
		case errors.Is(err, pglock.ErrNotAcquired):
			a.logf("waiting: %s", render.Holders(r.title, err))
		case !errors.Is(err, pglock.ErrUnavailable):
			return lock, err
		}
		if wait > 0 {
			wait = max(wait-time.Since(begin), time.Nanosecond)
		}
	}
	switch {
	case r.noWait:
		opts = append(opts, pglock.NoWait())
	case wait > 0:
		opts = append(opts, pglock.Wait(wait))
	}
	return r.take(ctx, locker, opts)
}

// A runLock is the lock of pglock run.
type runLock struct {
	*pglock.Lock
	unlock func(succeeded bool) error // succeeded: the command need not run again before it is due
}

// take takes the lock.
func (r runRequest) take(ctx context.Context, locker *pglock.Locker, opts []pglock.LockOption) (*runLock, error) {
	if r.every == 0 {
		lock, err := locker.Lock(ctx, r.key, opts...)
		return &runLock{lock, func(bool) error { return lock.Unlock() }}, err
	}
	// The lock is that of Do, whose function runs until unlock.
	all := []pglock.DoOption{pglock.Every(r.every)}
	for _, opt := range opts {
		all = append(all, opt)
	}
	taken, finish, ended := make(chan *pglock.Lock), make(chan error), make(chan error, 1)
	go func() {
		ended <- locker.Do(ctx, r.key, func(ctx context.Context) error {
			taken <- pglock.LockFrom(ctx)
			return <-finish
		}, all...)
	}()
	select {
	case err := <-ended:
		return nil, err
	case lock := <-taken:
		return &runLock{lock, func(succeeded bool) error {
			var failure error
			if !succeeded {
				failure = errors.New("the command failed")
			}
			finish <- failure
			if e := new(pglock.Error); errors.As(<-ended, &e) {
				return e
			}
			return nil
		}}, nil
	}
}

// unlock unlocks the lock. If Postgres did not confirm that, unlock only logs it: the
// lock was held all the time, and its session is closed.
func (a *app) unlock(lock *runLock, r runRequest, succeeded bool) error {
	err := lock.unlock(succeeded)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, pglock.ErrLost):
		return fmt.Errorf("lock %s was lost by the time the command ended: %w", render.Quote(r.title), err)
	}
	a.logf("unlocking %s: %v", render.Quote(r.title), err)
	return nil
}

// runEnv returns the environment of the command. token is that of a lease, else 0.
func runEnv(env []string, key pglock.Key, token int64) []string {
	var vars []string
	for _, kv := range env {
		// Drop the variables of an outer pglock run.
		if name, _, _ := strings.Cut(kv, "="); name != "PGLOCK_NAME" && name != "PGLOCK_KEY" && name != "PGLOCK_TOKEN" {
			vars = append(vars, kv)
		}
	}
	if token != 0 {
		vars = append(vars, "PGLOCK_TOKEN="+strconv.FormatInt(token, 10))
	}
	if name, ok := key.Name(); ok {
		vars = append(vars, "PGLOCK_NAME="+name)
	}
	return append(vars, "PGLOCK_KEY="+keyText(key))
}

// maxCommentBytes is how many bytes of an encoded name a comment holds. By default the
// server shows the first 1,023 bytes of a statement (track_activity_query_size).
const maxCommentBytes = 950

// A namedSource opens sessions whose statements have the lock's name in a comment. It
// cuts a name that is too long.
type namedSource struct {
	driver.Source
	name string
}

func (s namedSource) Open(ctx context.Context) (driver.Session, error) {
	session, err := s.Source.Open(ctx)
	if err != nil {
		return nil, err
	}
	note := inspect.Annotate(context.Background(), render.LockComment, s.name)
	for kept := []rune(s.name); len(inspect.Comment(note, " ")) > maxCommentBytes; {
		kept = kept[:len(kept)-1]
		note = inspect.Annotate(note, render.LockComment, string(kept)+"…")
	}
	return namedSession{session, note}, nil
}

// A namedSession adds the comment to each statement.
type namedSession struct {
	driver.Session
	note context.Context // holds the comment
}

func (s namedSession) Query(ctx context.Context, sql string, args ...any) (driver.Rows, error) {
	return s.Session.Query(ctx, inspect.Comment(s.note, sql), args...)
}

func (s namedSession) Exec(ctx context.Context, sql string, args ...any) error {
	return s.Session.Exec(ctx, inspect.Comment(s.note, sql), args...)
}

func (s namedSession) QueryText(ctx context.Context, sql string, args ...string) (string, error) {
	return s.Session.QueryText(ctx, inspect.Comment(s.note, sql), args...)
}

// slotsFlag is --slots: a number of holders.
type slotsFlag int

func (f *slotsFlag) Type() string { return "N" }

func (f *slotsFlag) String() string {
	if *f == 0 {
		return ""
	}
	return strconv.Itoa(int(*f))
}

func (f *slotsFlag) Set(s string) error {
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > maxSlots {
		return fmt.Errorf("must be a number from 1 to %d", maxSlots)
	}
	*f = slotsFlag(n)
	return nil
}

// codeFlag is -E: an exit code.
type codeFlag int

func (f *codeFlag) String() string { return strconv.Itoa(int(*f)) }
func (f *codeFlag) Type() string   { return "code" }

func (f *codeFlag) Set(s string) error {
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 || n > 255 {
		return errors.New("an exit code is a number from 0 to 255")
	}
	*f = codeFlag(n)
	return nil
}
