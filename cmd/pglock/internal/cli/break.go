package cli

import (
	"context"
	"crypto/rand"
	_ "embed"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/cmd/pglock/internal/render"
	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/internal/sqlstate"
	"github.com/pglock-go/pglock/internal/sqltext"
)

//go:embed break.sql
var breakSQL string

const breakHelp = `Breaks the lease NAME: it frees it with a new token, whether its holder agrees
or not.

The holder is notified when it next renews its session, and works on until then,
while another process may take the lease. So break a lease only if its holder
hangs, or if what it writes is fenced: pglock.Fence and the function fence
reject its token from now on. A holder that has ended needs no break: its lease
expires.

pglock shows the holder and asks for confirmation at the terminal, unless -y is
given. If the lease has another holder when the answer comes, nothing is broken.
A transaction that has checked the token keeps the lease until it ends: pglock
waits for it for five seconds, and then shows its session.

An advisory lock cannot be broken: end the session of its holder with pglock
terminate.

Exit codes:

  0  the lease was broken, or is free
  1  it was not broken
  2  wrong usage
  3  the answer was no`

const breakExamples = `  pglock break nightly-report
  pglock break --slot 2 -y import`

// A breakRequest holds the arguments of pglock break.
type breakRequest struct {
	lock      whoName
	schema    schemaFlag
	slot      slotFlag
	confirmed bool
}

func (a *app) breakCommand() *cobra.Command {
	var r breakRequest
	var number keyFlag
	cmd := &cobra.Command{
		Use:                   "break [FLAG...] NAME",
		Short:                 "Free a lease by force",
		Long:                  breakHelp,
		Example:               breakExamples,
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case number.set && len(args) > 0:
				return usagef(cmd, "--key and the name %s cannot be combined", render.Quote(args[0]))
			case number.set:
				r.lock = whoName{number.key, "--key " + keyText(number.key)}
			case len(args) != 1:
				return usagef(cmd, "expected one name, got %d", len(args))
			default:
				key, err := parseName(args[0])
				if err != nil {
					return usagef(cmd, "%v", err)
				}
				r.lock = whoName{key, args[0]}
			}
			if !r.confirmed && !a.canAsk() {
				return usagef(cmd, "%s", noTerminal("-y"))
			}
			if err := a.checkEnds(cmd); err != nil {
				return err
			}
			s, err := a.open(cmd.Context(), cmd.Name())
			if err != nil {
				return err
			}
			defer s.close()
			return r.run(cmd.Context(), a, s)
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	r.schema.register(flags)
	flags.Var(&r.slot, "slot", "which of several holders, from 0")
	flags.Var(&number, "key", "the lease of this number or pair instead of NAME")
	flags.BoolVarP(&r.confirmed, "yes", "y", false, "do not ask for confirmation")
	return cmd
}

// run breaks the lease.
func (r *breakRequest) run(ctx context.Context, a *app, s *session) error {
	owned, free, err := r.read(ctx, s)
	if errors.Is(err, pglock.ErrNotInstalled) || err == nil && len(owned) == 0 {
		return r.reportFree(ctx, a, s, free, err)
	}
	if err != nil {
		return adviseUse(err, r.schema)
	}
	if len(owned) > 1 {
		var holders []string
		for i := range owned {
			holders = append(holders, fmt.Sprintf("--slot %d: %s", owned[i].Slot, render.LeaseHolder(&owned[i])))
		}
		return &usageError{text: fmt.Sprintf("lease %s has %d holders, choose one: %s", r.title(), len(owned), strings.Join(holders, "; "))}
	}
	lease := &owned[0]
	if !r.confirmed {
		q := question{text: "Its holder works on until it is notified. Break the lease?", declined: "the lease was not broken", flags: "-y"}
		if err := a.confirm(q, func(a *app) error {
			_, err := fmt.Fprintf(a.Out, "lease %s is held by %s\n", r.title(), render.LeaseHolder(lease))
			return err
		}); err != nil {
			return err
		}
	}
	reply, blockers, err := r.free(ctx, a, s, lease)
	switch {
	case sqlstate.Of(err) == sqlstate.LockNotAvailable:
		return &advisedError{r.blocked(blockers), err}
	case err != nil:
		return adviseUse(err, r.schema)
	case reply == "":
		return r.reportChanged(ctx, a, s)
	}
	var token, left int64
	if _, err := fmt.Sscan(reply, &token, &left); err != nil {
		return fmt.Errorf("unexpected answer: %q", reply)
	}
	fmt.Fprintf(a.Out, "broke lease %s of %s; its token is now %d\n", r.title(), render.LeaseProcess(lease), token)
	if left > 0 {
		a.logf("the holder is notified within %s, and may work on until then", render.Duration(time.Duration(left)*time.Millisecond))
	}
	return nil
}

// title returns the lease as it was named, in quotes.
func (r *breakRequest) title() string { return render.Quote(r.lock.title) }

// read returns the leases of the selected slot, or of all slots, that have an owner, and those
// that have none but may not be taken yet.
func (r *breakRequest) read(ctx context.Context, s *session) (owned, free []inspect.Lease, err error) {
	leases, err := inspect.Leases(ctx, s.guarded, r.schema.name, r.lock.key)
	for _, l := range leases {
		switch {
		case r.slot.set && l.Slot != r.slot.number:
		case l.Owner != "":
			owned = append(owned, l)
		default:
			free = append(free, l)
		}
	}
	return owned, free, err
}

// reportFree reports that there is no lease to break. The lock may be an advisory lock.
func (r *breakRequest) reportFree(ctx context.Context, a *app, s *session, free []inspect.Lease, notInstalledErr error) error {
	users, err := readLockUsers(ctx, s, []whoName{r.lock}, 0)
	if err != nil {
		return err
	}
	if holders := users[0].Holders; len(holders) > 0 {
		var sessions, pids []string
		for _, l := range holders {
			sessions = append(sessions, render.Session(l.Session))
			if l.PID != 0 {
				pids = append(pids, strconv.Itoa(int(l.PID)))
			}
		}
		text := fmt.Sprintf("%s is not a lease, but an advisory lock, held by %s", r.title(), strings.Join(sessions, ", "))
		if len(pids) > 0 {
			text += fmt.Sprintf(": pglock terminate %s ends the session", strings.Join(pids, " "))
		}
		return errors.New(text)
	}
	if notInstalledErr != nil {
		return &advisedError{notInstalled(r.schema), notInstalledErr}
	}
	text := fmt.Sprintf("lease %s is free", r.title())
	if len(free) == 1 {
		text += ", and " + render.LeaseDue(&free[0])
	}
	_, err = fmt.Fprintln(a.Out, text)
	return err
}

// reportChanged reports that the lease has changed hands while the answer was awaited.
func (r *breakRequest) reportChanged(ctx context.Context, a *app, s *session) error {
	owned, _, err := r.read(ctx, s)
	switch {
	case err != nil:
		return err
	case len(owned) == 0:
		_, err := fmt.Fprintf(a.Out, "lease %s is free: its holder has released it\n", r.title())
		return err
	}
	return fmt.Errorf("lease %s was not broken, since it was taken anew meanwhile: %s", r.title(), render.LeaseHolder(&owned[0]))
}

const (
	// breakWait is how long breaking waits for transactions that have checked the token.
	breakWait = 5 * time.Second

	// breakPatience is how long it takes until pglock reads which transactions these are.
	breakPatience = time.Second
)

// free breaks the lease. It returns the result of break.sql. If it had to wait, it also
// returns the sessions that it waited for, if they are known.
func (r *breakRequest) free(ctx context.Context, a *app, s *session, l *inspect.Lease) (reply string, blockers []*inspect.Session, err error) {
	settings := changeSettings
	settings.LockTimeout = breakWait
	// Behind a pooler only this tells which backend waits.
	settings.ApplicationName, settings.Rename = "pglock break "+rand.Text(), true
	sql := sqltext.Inline(sqltext.InSchema(sqltext.WithoutComment(breakSQL), r.schema.name),
		l.Name, strconv.Itoa(int(l.Slot)), l.Owner, strconv.FormatInt(l.Token, 10))
	done := make(chan struct{})
	go func() {
		defer close(done)
		reply, err = s.changeWith(ctx, settings, sql)
	}()
	select {
	case <-done:
	case <-time.After(breakPatience):
		blockers = a.blockersOf(ctx, settings.ApplicationName)
		<-done
	}
	return reply, blockers, err
}

// blockersOf returns the sessions that block the session of an application, or nil if they
// cannot be read.
func (a *app) blockersOf(ctx context.Context, application string) []*inspect.Session {
	ctx, cancel := context.WithTimeout(ctx, breakWait)
	defer cancel()
	s, err := a.open(ctx, "break")
	if err != nil {
		return nil
	}
	defer s.close()
	pairs, err := inspect.Blocked(ctx, s.guarded, inspect.Where("application", "=", application))
	if err != nil {
		return nil
	}
	var blockers []*inspect.Session
	for _, p := range pairs {
		if !slices.Contains(blockers, p.Blocking) {
			blockers = append(blockers, p.Blocking)
		}
	}
	return blockers
}

// blocked returns the message if a transaction keeps the lease.
func (r *breakRequest) blocked(blockers []*inspect.Session) string {
	text := fmt.Sprintf("lease %s was not broken: a transaction that has checked its token keeps it", r.title())
	if len(blockers) == 0 {
		return text + fmt.Sprintf("; pglock ls --on %s shows the transactions", shellWord(r.schema.name+".lease"))
	}
	var sessions, pids []string
	for _, s := range blockers {
		sessions = append(sessions, render.Session(s)+render.State(s))
		if s.PID != 0 {
			pids = append(pids, strconv.Itoa(int(s.PID)))
		}
	}
	text += ": " + strings.Join(sessions, "; ")
	if len(pids) > 0 {
		text += fmt.Sprintf("; pglock terminate %s ends it", strings.Join(pids, " "))
	}
	return text
}

// slotFlag is --slot: a number from 0.
type slotFlag struct {
	number int32
	set    bool
}

func (f *slotFlag) Type() string { return "N" }

func (f *slotFlag) String() string {
	if !f.set {
		return ""
	}
	return strconv.Itoa(int(f.number))
}

func (f *slotFlag) Set(s string) error {
	n, err := strconv.ParseInt(s, 10, 32)
	if err != nil || n < 0 {
		return errors.New("a slot is a number from 0")
	}
	f.number, f.set = int32(n), true
	return nil
}
