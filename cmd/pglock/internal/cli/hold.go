package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/cmd/pglock/internal/connect"
	"github.com/pglock-go/pglock/cmd/pglock/internal/supervise"
	"github.com/pglock-go/pglock/driver"
)

// run holds the lock while the command runs.
func (a *app) run(ctx context.Context, r runRequest) (err error) {
	// Check first, so that nobody waits for a lock to run a missing command.
	path, err := supervise.Find(r.command[0], a.env)
	if err != nil {
		return err
	}
	if err := supervise.Check(); err != nil {
		return err
	}
	target, err := a.target(applicationName("run", r.title))
	if err != nil {
		return err
	}
	sockets := target.WatchSockets()

	forwarded := supervise.Forwarded()
	signals := make(chan os.Signal, 64)
	for _, sig := range forwarded {
		if isEnding(sig) {
			signal.Notify(signals, sig)
		}
	}
	defer signal.Stop(signals)
	supervise.SurviveClosedPipes()

	endReaping := supervise.ReapOrphans()
	locker, lock, err := a.acquire(ctx, target, r, signals)
	endReaping()
	if err != nil {
		return err
	}
	// An error here would repeat a loss that was already reported.
	defer func() { _ = locker.Close() }()

	signal.Notify(signals, append(forwarded, supervise.Continued()...)...)
	process, err := supervise.Start(supervise.Command{
		Path:   path,
		Args:   r.command,
		Env:    childEnv(a.env, r.key),
		Stdin:  a.In,
		Stdout: a.Out,
		Stderr: a.Err,
		Grace:  r.grace,
		Hold:   sockets.Open(),
	})
	if err != nil {
		return errors.Join(err, a.unlock(lock, r))
	}
	lost := a.superviseCommand(process, lock, r, signals)
	status, guardErr := process.Wait()
	if guardErr != nil {
		a.logf("%v", guardErr)
	}
	if lost != nil {
		_ = lock.Unlock() // returns the loss again
		return &loggedError{lost}
	}
	if err := a.unlock(lock, r); err != nil {
		return err
	}
	if status.ExitCode() != 0 {
		return &childError{status}
	}
	return nil
}

// isEnding reports whether a signal ends the wait for a lock.
func isEnding(sig os.Signal) bool {
	return slices.Contains([]os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT}, sig)
}

// acquire acquires the lock, or returns the error to exit with. A signal ends the wait.
func (a *app) acquire(ctx context.Context, target *connect.Target, r runRequest, signals <-chan os.Signal) (*pglock.Locker, *pglock.Lock, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var locker *pglock.Locker
	var lock *pglock.Lock
	done := make(chan error, 1)
	go func() {
		done <- a.connection.WithPassword(ctx, target, func() error {
			var err error
			var source driver.Source = target
			if name, ok := r.key.Name(); ok && target.Application() != "pglock run "+name {
				source = namedSource{source, name}
			}
			// One session for the lock, and one in case its wait must be watched or
			// canceled.
			if locker, err = pglock.New(source, pglock.Sessions(2)); err != nil {
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
					_ = lock.Unlock()
					_ = locker.Close()
				}
				return nil, nil, interrupted
			case errors.Is(err, pglock.ErrNotAcquired):
				return nil, nil, &notAcquiredError{err: err, code: r.code, text: holdersText(err, r.title)}
			}
			return locker, lock, err
		}
	}
}

// lock acquires the lock as r requires. At a terminal it reports the holders it waits for.
func (a *app) lock(ctx context.Context, locker *pglock.Locker, r runRequest) (*pglock.Lock, error) {
	var opts []pglock.LockOption
	if r.shared {
		opts = append(opts, pglock.Shared())
	}
	wait := r.wait
	if isTerminal(a.Err) && !r.noWait {
		begin := time.Now()
		lock, err := locker.Lock(ctx, r.key, append(opts, pglock.NoWait())...)
		switch {
		case ctx.Err() != nil:
			return lock, err
		case errors.Is(err, pglock.ErrNotAcquired):
			a.logf("waiting: %s", holdersText(err, r.title))
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
	return locker.Lock(ctx, r.key, opts...)
}

// superviseCommand passes signals to the command until nothing of it is left, and ends it
// if the lock is lost. It returns the error of a lost lock, or nil.
func (a *app) superviseCommand(process *supervise.Process, lock *pglock.Lock, r runRequest, signals <-chan os.Signal) (lost error) {
	lose := func() {
		if lost == nil {
			lost = lock.Err()
			a.logf("lock %s lost, ending the command: %v", quoted(r.title), lost)
			process.End()
		}
	}
	done := lock.Done()
	for {
		select {
		case <-done:
			done = nil
			lose()
		case sig := <-signals:
			switch {
			case slices.Contains(supervise.Continued(), sig):
				// pglock was stopped and could not notice a lost lock.
				if lock.Err() != nil {
					lose()
				}
				process.Continue()
			default:
				if number, ok := sig.(syscall.Signal); ok {
					process.Signal(number)
				}
			}
		case e, ok := <-process.Events():
			switch {
			case !ok:
				return lost
			case e.Stopped:
				if !supervise.Stop() {
					process.Continue()
				}
			case e.Stuck != "":
				a.logf("still holding lock %s: these processes do not end: %s", quoted(r.title), e.Stuck)
			}
		}
	}
}

// unlock unlocks the lock. If Postgres did not confirm that, unlock only logs it: the
// lock was held all the time, and its session is closed.
func (a *app) unlock(lock *pglock.Lock, r runRequest) error {
	err := lock.Unlock()
	switch {
	case err == nil:
		return nil
	case errors.Is(err, pglock.ErrLost):
		return fmt.Errorf("lock %s was lost by the time the command ended: %w", quoted(r.title), err)
	}
	a.logf("unlocking %s: %v", quoted(r.title), err)
	return nil
}

// logf writes a line to stderr.
func (a *app) logf(format string, args ...any) {
	text := strings.ReplaceAll(fmt.Sprintf(format, args...), ": pglock: ", ": ")
	fmt.Fprintf(a.Err, "pglock: %s\n", printable(text))
}

// childEnv returns the environment of the command.
func childEnv(env []string, key pglock.Key) []string {
	var child []string
	for _, kv := range env {
		// Drop the variables of an outer pglock run.
		if !strings.HasPrefix(kv, "PGLOCK_NAME=") && !strings.HasPrefix(kv, "PGLOCK_KEY=") {
			child = append(child, kv)
		}
	}
	if name, ok := key.Name(); ok {
		child = append(child, "PGLOCK_NAME="+name)
	}
	return append(child, "PGLOCK_KEY="+keyText(key))
}

// holdersText describes the holders of a lock that was not acquired.
func holdersText(err error, title string) string {
	var e *pglock.Error
	if !errors.As(err, &e) || len(e.Holders) == 0 {
		return fmt.Sprintf("lock %s is held by another session", quoted(title))
	}
	var holders []string
	for _, h := range e.Holders {
		if h.Application == applicationName("run", title) {
			h.Application = "pglock run " + title
		}
		holders = append(holders, holderText(h))
	}
	verb := "is held by"
	if !e.Holders[0].Granted {
		verb = "is waited for by"
	}
	return fmt.Sprintf("lock %s %s %s", quoted(title), verb, strings.Join(holders, "; "))
}

// holderText describes a holder.
func holderText(h pglock.Holder) string {
	if h.PID == 0 {
		return "a prepared transaction"
	}
	parts := []string{fmt.Sprintf("pid %d", h.PID)}
	if h.Application != "" {
		parts = append(parts, "application "+quoted(h.Application))
	}
	if h.User != "" {
		parts = append(parts, "user "+h.User)
	}
	if h.Client != "" {
		parts = append(parts, "host "+h.Client)
	} else {
		parts = append(parts, "on the server's own host")
	}
	if !h.Since.IsZero() {
		parts = append(parts, "connected since "+h.Since.Format(time.RFC3339))
	}
	return strings.Join(parts, ", ")
}
