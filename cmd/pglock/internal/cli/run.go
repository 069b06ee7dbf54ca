package cli

import (
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pglock-go/pglock"
)

const runHelp = `Holds the lock NAME while COMMAND runs, so that of all who do so on this database
only one runs its command at a time. Without --wait or --no-wait it waits for the
lock as long as it takes.

COMMAND has pglock's streams, and its exit code is pglock's. A signal that is sent to
pglock alone goes to COMMAND's whole process group; one that is sent to every process,
as systemd does, reaches COMMAND only once. What it leaves running is ended before the lock is unlocked,
and if the lock is lost, COMMAND is ended: SIGTERM, then SIGKILL after the grace.
It finds the lock's name in PGLOCK_NAME and its key in PGLOCK_KEY.

Exit codes: COMMAND's own, or 128 and the signal's number when a signal ended it;
75 when the lock was not acquired (another code with -E); 76 when it was lost;
69 when no server answered or takes a session for now; 126 when COMMAND cannot be
executed and 127 when it is not found; 2 for wrong usage; 1 for any other error.`

const runExamples = `  pglock run nightly-report -- ./report.sh --all
  pglock run --wait 30s deploy -- make deploy
  pglock run --no-wait -E 0 cron-cleanup -- ./cleanup
  pglock run --shared catalogue -- ./export
  pglock -h db.example.com -d app run nightly -- sh -c 'make all && ./publish'`

// runRequest is what pglock run is asked to do.
type runRequest struct {
	key     pglock.Key
	title   string // of the lock, as it was given
	shared  bool
	noWait  bool
	wait    time.Duration // 0 is no limit
	grace   time.Duration
	code    int // for a lock that was not acquired
	command []string
}

func (a *app) runCommand() *cobra.Command {
	var (
		r      runRequest
		number keyFlag
		wait   = durationFlag{least: time.Nanosecond, what: "must be longer than 0; --no-wait does not wait"}
		grace  = durationFlag{value: 10 * time.Second, what: "must not be negative", set: true}
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
				return usagef(cmd, "--wait and --no-wait contradict each other")
			}
			r.wait, r.grace, r.code = wait.value, grace.value, int(code)
			return a.run(cmd.Context(), r)
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.Var(&wait, "wait", "give up when the lock was not had within this time")
	flags.BoolVar(&r.noWait, "no-wait", false, "give up at once when another holds the lock")
	flags.BoolVar(&r.shared, "shared", false, "hold the lock together with others that hold it --shared")
	flags.VarP(&code, "conflict-exit-code", "E", "exit code for a lock that was not acquired")
	flags.Var(&grace, "grace", "time from SIGTERM to SIGKILL for what must end")
	flags.Var(&number, "key", "a number or a pair of numbers, in place of NAME")
	return cmd
}

// splitRunArgs tells the name from the command. A name that begins with a dash
// can be given after a first --, as in: run -- -x -- command.
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
			return "", nil, usagef(cmd, "--key stands in place of a name, and there is the name %s too", quoted(before[0]))
		case byKey:
		case len(before) == 0:
			return "", nil, usagef(cmd, "the lock's name is missing: pglock run NAME -- COMMAND")
		case len(before) > 1 && dash >= 0:
			return "", nil, usagef(cmd, "one lock's name is needed, and here are %d: %s", len(before), quoted(strings.Join(before, " ")))
		default:
			name = before[0]
		}
	}
	if dash < 0 || len(command) == 0 {
		return "", nil, usagef(cmd, "no command: write it after --, as in pglock run NAME -- COMMAND")
	}
	return name, command, nil
}
