package pglock

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/pglock-go/pglock/internal/query"
	"github.com/pglock-go/pglock/internal/sqlstate"
	"github.com/pglock-go/pglock/internal/sqltext"

	"github.com/pglock-go/pglock/driver"
)

// This file takes a lock in the caller's transaction. It does so inside a savepoint, so
// that a failed attempt leaves the transaction usable and releases whatever it locked.
//
// Taking a lock is one round trip, since a string of several statements is sent as one
// message (Conn.Exec without parameters). NoWait takes three for an advisory lock,
// because the result must be read. A table lock with a time limit also takes three, see
// [timeouts]. A failed attempt takes one to six more, to roll back and to query the
// holders.

const (
	savepoint  = `SAVEPOINT ` + sqltext.LockSavepoint
	release    = `RELEASE SAVEPOINT ` + sqltext.LockSavepoint
	rollbackTo = `ROLLBACK TO SAVEPOINT ` + sqltext.LockSavepoint
)

// limitHoldersQuery limits the query for the holders to a second. Compiling the statement
// (jit) would take several times as long as running it.
const limitHoldersQuery = `SET LOCAL statement_timeout = '1s'; SET LOCAL jit = off`

// clearSnapshot discards the contents of pg_stat_activity, which Postgres otherwise
// caches for the rest of the transaction.
const clearSnapshot = `SELECT pg_catalog.pg_stat_clear_snapshot()`

// cleanupTimeout limits the cleanup, which runs even after ctx has ended.
const cleanupTimeout = 5 * time.Second

// A txLock is a request for locks in the caller's transaction.
type txLock struct {
	report Error // Op, Keys and Tables; Holders are added later

	conn driver.Conn
	request

	lock    string                                  // the statement that takes the locks; it waits unless it contains NOWAIT
	try     string                                  // with NoWait: used instead of lock; it returns whether it took them
	limit   timeouts                                // how wait is enforced
	holders func(context.Context) ([]Holder, error) // nil to skip the query
}

// acquire takes the locks.
func (l *txLock) acquire(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return l.fail(ErrUnavailable, err)
	}
	began := time.Now()
	var err error
	if l.noWait && l.try != "" {
		var ok bool
		if ok, err = l.tryLock(ctx); ok {
			return nil
		}
	} else if err = l.waitLock(ctx, &began); err == nil {
		if err = l.confirm(ctx); err == nil {
			return nil
		}
	}

	// There is no transaction, or it was already aborted: nothing to roll back.
	switch sqlstate.Of(err) {
	case sqlstate.NoActiveTransaction, sqlstate.InFailedTransaction:
		return l.fail(kindOf(err), err)
	}
	kind, cause := l.outcome(ctx, err, time.Since(began))
	if lost := l.rollBack(ctx, err, kind); lost != nil && !errors.Is(err, lost) {
		cause = fmt.Errorf("%w (and the transaction is unusable: %v)", cause, lost)
	}
	return l.fail(kind, cause)
}

// errRefused is the result of l.try if another session holds a lock.
var errRefused = errors.New("refused")

// tryLock takes the locks without waiting. If ok is false, err is the reason.
func (l *txLock) tryLock(ctx context.Context) (ok bool, err error) {
	if err := l.conn.Exec(ctx, savepoint); err != nil {
		return false, err
	}
	reply, err := query.Text(ctx, l.conn, l.try)
	if err != nil {
		return false, err
	}
	if reply != "true" {
		return false, errRefused
	}
	// The locks are acquired, so a done ctx must not prevent the release of the
	// savepoint.
	cleanupCtx, cancel := cleanupContext(ctx)
	defer cancel()
	if err := l.conn.Exec(cleanupCtx, release); err != nil {
		return false, err
	}
	return true, nil
}

// waitLock takes the locks, and waits until the time limit of the request. It sets began
// to the start of the wait.
func (l *txLock) waitLock(ctx context.Context, began *time.Time) error {
	batch := []string{savepoint, l.lock, release}
	if l.wait > 0 {
		before, after, err := l.limit.around(ctx, l.conn, l.wait)
		if err != nil {
			return err
		}
		batch = []string{savepoint, before, l.lock, after, release}
	}
	*began = time.Now()
	return l.conn.Exec(ctx, strings.Join(batch, "; "))
}

// confirm checks that the transaction still exists if ctx ended while the lock was
// granted. lib/pq then closes the connection, but reports success.
func (l *txLock) confirm(ctx context.Context) error {
	if ctx.Err() == nil {
		return nil
	}
	cleanupCtx, cancel := cleanupContext(ctx)
	defer cancel()
	return l.conn.Exec(cleanupCtx, `SELECT 1`)
}

// outcome classifies an error: a lock that was not acquired, or another failure.
func (l *txLock) outcome(ctx context.Context, err error, waited time.Duration) (kind, cause error) {
	state := sqlstate.Of(err)
	switch {
	case err == errRefused:
		return ErrNotAcquired, nil
	case state == sqlstate.LockNotAvailable:
		return ErrNotAcquired, err
	case ctx.Err() != nil && state == sqlstate.QueryCanceled:
		return ErrNotAcquired, ctx.Err() // Postgres was waiting for the lock
	case ctx.Err() != nil && state == "":
		return ErrUnavailable, fmt.Errorf("no reply while waiting for the lock: %w", ctx.Err())
	case state == sqlstate.QueryCanceled && l.wait > 0 && waited >= l.wait:
		// The limit of the whole statement has passed. A cancel request by someone else
		// has the same code but comes earlier.
		return ErrNotAcquired, err
	}
	return kindOf(err), err
}

// rollBack returns the transaction to its state before the request, and queries the holders
// on the way. It returns an error if that is impossible.
func (l *txLock) rollBack(ctx context.Context, cause, kind error) error {
	cleanupCtx, cancel := cleanupContext(ctx)
	defer cancel()
	if cause != errRefused && sqlstate.Of(cause) == "" {
		// It is unknown whether the statements reached the server. Rolling back to a
		// savepoint that does not exist would abort a healthy transaction. A second
		// savepoint is harmless, also in an aborted transaction.
		if err := l.conn.Exec(cleanupCtx, savepoint); err != nil && sqlstate.Of(err) != sqlstate.InFailedTransaction {
			return err
		}
	}
	if kind != ErrNotAcquired || ctx.Err() != nil || l.skip || l.holders == nil {
		return execCleanup(cleanupCtx, l.conn, rollbackTo+"; "+release)
	}
	if err := execCleanup(cleanupCtx, l.conn, rollbackTo+"; "+limitHoldersQuery); err != nil {
		return err
	}
	// An error about the lock matters more than its holders.
	l.report.Holders, _ = l.holders(cleanupCtx)
	return execCleanup(cleanupCtx, l.conn, rollbackTo+"; "+release)
}

// execCleanup runs cleanup statements. A cancel request meant for an earlier statement may
// still arrive, but only once, so execCleanup retries once.
func execCleanup(ctx context.Context, conn driver.Conn, sql string) error {
	err := conn.Exec(ctx, sql)
	if sqlstate.Of(err) == sqlstate.QueryCanceled {
		err = conn.Exec(ctx, sql)
	}
	return err
}

// cleanupContext returns a context for cleanup, which must run even after ctx has ended.
func cleanupContext(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
}

// fail returns the error of l with the given kind and cause.
func (l *txLock) fail(kind, cause error) error {
	e := l.report
	e.Kind, e.Err = kind, cause
	return &e
}
