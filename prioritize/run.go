package prioritize

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/internal/handshake"
	"github.com/pglock-go/pglock/internal/query"
	"github.com/pglock-go/pglock/internal/sqlstate"
)

// Run acquires a connection from db, runs fn with it, and meanwhile clears its way: it
// acts on each session that blocks the connection for longer than the grace, as the
// options say. Without a policy it only reports; see [Cancel], [Terminate] and
// [CancelThenTerminate].
//
// fn receives the driver's own connection, and must not use it after it has returned. Run
// then gives the connection back to its pool. It closes it instead if fn left a
// transaction open, or if lock_timeout is not as before.
//
// The watcher has another session, also from db, which needs the rights to see and to
// signal other sessions: the same role suffices for sessions of that role, and
// pg_signal_backend for all others except superusers' (PostgreSQL manual, 9.28.2 "Server
// Signaling Functions"). db must connect to Postgres directly: behind a connection pooler
// the error is [pglock.ErrPooler], and nothing was set or run.
//
// The watcher begins before fn and has ended when Run returns. If its session cannot be
// opened, or no connection can be acquired, fn is not run and the error is
// [pglock.ErrUnavailable]. If its session is lost later, the watcher opens another one,
// and fn is not affected.
//
// Run returns fn's error. If fn failed because of a lock (a lock timeout, a deadlock,
// a lock not acquired, or a wait that was canceled or that ctx ended), the error is
// an [*Error] with the blockers, and with those that were spared and why. It is also
// an [*Error] if the function of [Call] failed, and wraps that error. ctx is passed
// to fn and covers acquiring the connection and opening the watcher's session.
func Run[C any](ctx context.Context, db driver.Database[C], fn func(ctx context.Context, conn C) error, opts ...RunOption) error {
	c, err := newConfig(opRun, opts)
	if err != nil {
		return err
	}
	return withConn(ctx, opRun, db, func(a driver.Acquired[C]) error {
		return runOn(ctx, &c, db, a.Conn, func(ctx context.Context) error { return fn(ctx, a.Native) })
	})
}

// RunOn does what [Run] does on the caller's connection, or in a transaction on one, with
// which fn works. db opens the watcher's session.
//
// db must connect to Postgres directly, and conn too unless it is a transaction. RunOn
// first queries conn for its PID. If that is the first statement of a REPEATABLE READ
// transaction, it determines the transaction's snapshot.
func RunOn(ctx context.Context, db driver.Source, conn driver.Conn, fn func(context.Context) error, opts ...RunOption) error {
	c, err := newConfig(opRun, opts)
	if err != nil {
		return err
	}
	return runOn(ctx, &c, db, conn, fn)
}

func runOn(ctx context.Context, c *config, db driver.Source, conn driver.Conn, fn func(context.Context) error) error {
	who, err := identify(ctx, opRun, conn)
	if err != nil {
		return err
	}
	return run(ctx, c, db, who, classify, func(ctx context.Context) error {
		if c.lockTimeout == 0 {
			return fn(ctx)
		}
		return pglock.WithLockTimeout(ctx, conn, c.lockTimeout, fn)
	})
}

// RunFor does what [Run] does for the sessions that who chooses, such as those of a
// program that fn runs and waits for. db opens the watcher's session. An event reports each session that it watches.
// RunFor returns fn's error, as an [*Error] if one of the sessions was blocked until
// a moment ago.
func RunFor(ctx context.Context, db driver.Source, who Who, fn func(context.Context) error, opts ...RunForOption) error {
	c, err := newConfig(opRun, opts)
	if err != nil {
		return err
	}
	if err := who.check(); err != nil {
		return fmt.Errorf("pglock: %s: %w", opRun, err)
	}
	// The reason why another program failed is unknown: it may be the lock.
	maybe := func(error) lockError { return maybeLock }
	return run(ctx, &c, db, who, maybe, fn)
}

const (
	opRun      = "prioritize"
	opRetry    = "retry"
	opRetryFor = "retry for"
)

func run(ctx context.Context, c *config, db driver.Source, who Who, isLock func(error) lockError, fn func(context.Context) error) error {
	began := time.Now()
	w, err := startWatcher(ctx, opRun, c, who, db)
	if err != nil {
		return err
	}
	defer w.close()
	err = w.during(ctx, false, fn)
	if err == nil || len(w.calls) == 0 && !w.explains(isLock(err)) {
		return err
	}
	return &Error{
		Op: opRun, Blocked: w.lastPairs, Seen: w.lastBlocked, Spared: w.spared, Calls: w.callErrors(),
		Elapsed: time.Since(began), Err: err,
	}
}

// startWatcher returns a watcher that has a session.
func startWatcher(ctx context.Context, op string, c *config, who Who, db driver.Source) (*watcher, error) {
	w := newWatcher(c, who, opener(db))
	if err := w.connect(ctx); errors.Is(err, pglock.ErrPooler) {
		return nil, fmt.Errorf("pglock: %s: the watcher: %w", op, err) // retrying does not help
	} else if err != nil {
		return nil, fmt.Errorf("pglock: %s: the watcher: %w: %w", op, pglock.ErrUnavailable, err)
	}
	return w, nil
}

func opener(source driver.Source) func(context.Context) (observer, error) {
	return func(ctx context.Context) (observer, error) { return openObserver(ctx, source) }
}

// explains reports whether the error is to list the last pairs.
func (w *watcher) explains(e lockError) bool {
	if len(w.lastPairs) == 0 {
		return false
	}
	return e == isLock || e == maybeLock && time.Since(w.lastBlocked) < w.config.interval+time.Second
}

// A lockError is whether an error was caused by a lock.
type lockError uint8

const (
	notLock lockError = iota
	maybeLock
	isLock
)

// classify classifies an error of the caller's function.
func classify(err error) lockError {
	if b := (*brokenTx)(nil); errors.As(err, &b) {
		return notLock
	}
	switch sqlstate.Of(err) {
	case sqlstate.LockNotAvailable, sqlstate.DeadlockDetected:
		return isLock
	case sqlstate.QueryCanceled:
		return maybeLock // by statement_timeout, for instance
	}
	switch {
	case errors.Is(err, pglock.ErrNotAcquired), errors.Is(err, pglock.ErrDeadlock):
		return isLock
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return maybeLock
	}
	return notLock
}

const identifySQL = `SELECT CAST(pg_catalog.json_build_object('pid', a.pid, 'start', a.backend_start) AS pg_catalog.text)
FROM pg_catalog.pg_stat_get_activity(pg_catalog.pg_backend_pid()) AS a`

// identify returns the session that conn is. Behind a pooler, only a transaction has
// one.
func identify(ctx context.Context, op string, conn driver.Conn) (Who, error) {
	open, err := handshake.InTransaction(ctx, conn)
	if err != nil {
		return Who{}, fmt.Errorf("pglock: %s: %w", op, err)
	}
	if c, ok := conn.(handshake.Conn); ok && !open && c.PID() != 0 {
		hello, err := handshake.Greet(ctx, c)
		if err != nil {
			return Who{}, fmt.Errorf("pglock: %s: asking for the session's PID: %w", op, err)
		}
		if hello.Path == handshake.Pooled {
			return Who{}, fmt.Errorf("pglock: %s: %w", op, errPooledConn)
		}
		start, err := hello.StartTime()
		if err != nil {
			return Who{}, fmt.Errorf("pglock: %s: asking for the session's PID: %w", op, err)
		}
		return Who{PIDs: []int32{hello.PID}, start: start}, nil
	}
	text, err := query.Text(ctx, conn, identifySQL)
	if err != nil {
		return Who{}, fmt.Errorf("pglock: %s: asking for the session's PID: %w", op, err)
	}
	var c chosen
	if err := json.Unmarshal([]byte(text), &c); err != nil || c.PID == 0 {
		return Who{}, fmt.Errorf("pglock: %s: asking for the session's PID: unexpected answer %q", op, text)
	}
	return Who{PIDs: []int32{c.PID}, start: c.Start}, nil
}
