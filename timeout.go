package pglock

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/pglock-go/pglock/internal/handshake"
	"github.com/pglock-go/pglock/internal/query"
	"github.com/pglock-go/pglock/internal/sqlstate"
	"github.com/pglock-go/pglock/internal/sqltext"

	"github.com/pglock-go/pglock/driver"
)

// NoTimeout disables the timeout in [WithLockTimeout] or [WithStatementTimeout]. Postgres
// itself uses 0, which a computed duration could be by accident.
const NoTimeout time.Duration = math.MinInt64

// WithLockTimeout calls fn with lock_timeout of conn set to d, so that a statement that
// waits longer than d for any lock fails with SQLSTATE 55P03 (PostgreSQL manual, 20.11.1
// "Statement Behavior"). The time starts again for each lock: a statement that takes
// several may wait several times as long.
//
// conn is a connection or a transaction; a pool does not qualify. Afterwards the setting
// has exactly its previous value, whether that came from SET, SET LOCAL or the server,
// even if fn fails or panics. Calls may be nested. In a transaction, the setting is local
// to it. If fn leaves the transaction aborted, the rollback restores the setting, except
// for a rollback to a savepoint that fn itself set and did not release.
//
// Outside a transaction, the setting applies to the session. Behind a connection pooler
// it would affect other clients, and might not affect fn. In that case WithLockTimeout
// returns [ErrPooler] without setting anything or calling fn: use a transaction. See
// [driver.Conn] for how a pooler is detected.
//
// d is rounded up to whole milliseconds, Postgres' smallest unit. It must be positive and
// at least one millisecond, at most 2,147,483,647 (24 days), or [NoTimeout]; 0 is
// rejected, since Postgres would disable the timeout.
//
// The error is fn's. If the setting cannot be made, fn is not called. If it cannot be
// restored on a connection that is still open, the error includes that. ctx is passed to
// fn and covers making the setting; restoring it ignores ctx and has a time limit of its
// own.
func WithLockTimeout(ctx context.Context, conn driver.Conn, d time.Duration, fn func(context.Context) error) error {
	return withTimeout(ctx, conn, "lock_timeout", d, fn)
}

// WithStatementTimeout calls fn with statement_timeout of conn set to d, so that a
// statement that takes longer than d in total fails with SQLSTATE 57014. Everything else
// is as for [WithLockTimeout].
func WithStatementTimeout(ctx context.Context, conn driver.Conn, d time.Duration, fn func(context.Context) error) error {
	return withTimeout(ctx, conn, "statement_timeout", d, fn)
}

// errPooledTimeout is ErrPooler with advice for timeouts.
var errPooledTimeout error = pooledTimeout{}

type pooledTimeout struct{}

func (pooledTimeout) Error() string {
	return "a connection pooler stands between pglock and Postgres, and would pass the setting on " +
		"to the session's next client: use a transaction, or connect to Postgres directly"
}

func (pooledTimeout) Unwrap() error { return ErrPooler }

func withTimeout(ctx context.Context, conn driver.Conn, name string, d time.Duration, fn func(context.Context) error) (err error) {
	value, err := timeoutValue(d)
	if err != nil {
		return fmt.Errorf("pglock: %s: %w", name, err)
	}
	local, err := handshake.InTransaction(ctx, conn)
	if err != nil {
		return fmt.Errorf("pglock: %s: %w", name, err)
	}
	if !local {
		switch path, err := handshake.PathOf(ctx, conn); {
		case err != nil:
			return fmt.Errorf("pglock: %s: %w", name, err)
		case path == handshake.Pooled:
			return &Error{Op: name, Kind: errPooledTimeout}
		}
	}
	// SHOW and SET, not functions: a SELECT would take the snapshot of a REPEATABLE READ
	// transaction before it has its locks.
	old, err := query.Text(ctx, conn, "SHOW "+name)
	if err != nil {
		return fmt.Errorf("pglock: %s: %w", name, err)
	}
	// The driver may return an error although the setting was made, so it is restored in
	// any case.
	defer func() {
		if lost := restore(ctx, conn, name, old, local); lost != nil {
			err = errors.Join(err, lost)
		}
	}()
	if err := conn.Exec(ctx, setSQL(name, value, local)); err != nil {
		return fmt.Errorf("pglock: %s: %w", name, err)
	}
	return fn(ctx)
}

// restore sets a setting to its old value.
func restore(ctx context.Context, conn driver.Conn, name, old string, local bool) error {
	if local {
		if reporter, ok := conn.(driver.TransactionReporter); ok {
			if open, known := reporter.InTransaction(); known && !open {
				return nil // the setting ended with the transaction
			}
		}
	}
	ctx, cancel := cleanupContext(ctx)
	defer cancel()
	err := execCleanup(ctx, conn, setSQL(name, old, local))
	switch state := sqlstate.Of(err); {
	case err == nil:
		return nil
	case state == "":
		return nil // the setting ended with the connection
	case state == sqlstate.InFailedTransaction && local:
		return nil // the rollback that must follow restores it
	}
	return fmt.Errorf("pglock: %s was not restored to %s: %w", name, old, err)
}

// setSQL returns a statement that sets a setting, for the transaction if local, else for
// the session.
func setSQL(name, value string, local bool) string {
	scope := "SESSION"
	if local {
		scope = "LOCAL"
	}
	return "SET " + scope + " " + name + " = " + sqltext.Literal(value)
}

// maxMilliseconds is the longest timeout that Postgres accepts.
const maxMilliseconds = math.MaxInt32

// timeoutValue returns a timeout in milliseconds, as Postgres expects it.
func timeoutValue(d time.Duration) (string, error) {
	switch {
	case d == NoTimeout:
		return "0", nil
	case d == 0:
		return "", errors.New("0 would disable the timeout: use NoTimeout for that")
	case d < 0:
		return "", fmt.Errorf("%v is negative: use NoTimeout for no timeout", d)
	case d < time.Millisecond:
		return "", fmt.Errorf("%v is less than 1ms, the smallest timeout of Postgres", d)
	case d > maxMilliseconds*time.Millisecond:
		return "", fmt.Errorf("%v is more than the longest timeout of Postgres, %v: use NoTimeout for no timeout",
			d, maxMilliseconds*time.Millisecond)
	}
	return fmt.Sprint(milliseconds(d)), nil
}

// milliseconds returns d in milliseconds, rounded up, so that a positive d never becomes
// 0, which means no timeout. It returns at most maxMilliseconds.
func milliseconds(d time.Duration) int64 {
	ms := int64(d / time.Millisecond)
	if d%time.Millisecond > 0 {
		ms++
	}
	return min(ms, maxMilliseconds)
}

// timeouts describes how to limit a wait for a lock in the caller's transaction and then
// restore the caller's settings.
type timeouts struct {
	// whole limits the statement and not only each of its waits, of which it may have
	// several.
	whole bool

	// noSnapshot uses only statements that take no snapshot, so that a REPEATABLE READ
	// transaction takes its snapshot after it has acquired the lock. That costs two more
	// round trips.
	noSnapshot bool
}

// saveSQL and restoreSQL save and restore the caller's settings in one round trip each,
// in custom settings that end with the transaction.
const (
	saveSQL = `SELECT pg_catalog.set_config('pglock.lock_timeout', pg_catalog.current_setting('lock_timeout'), true), ` +
		`pg_catalog.set_config('pglock.statement_timeout', pg_catalog.current_setting('statement_timeout'), true)`
	restoreSQL = `SELECT pg_catalog.set_config('lock_timeout', pg_catalog.current_setting('pglock.lock_timeout'), true), ` +
		`pg_catalog.set_config('statement_timeout', pg_catalog.current_setting('pglock.statement_timeout'), true)`
)

// around returns the statements to run before and after the waiting statement. The
// caller's own timeouts do not apply in between.
func (t timeouts) around(ctx context.Context, conn driver.Conn, wait time.Duration) (before, after string, err error) {
	each := fmt.Sprint(milliseconds(wait))
	whole := "0"
	if t.whole {
		whole = each
	}
	// Before version 13, the statement timeout of several statements sent together starts
	// with the first one, with the value at that time, and restarts only after a
	// transaction command. So one of these precedes the lock.
	const rearm = "SAVEPOINT " + sqltext.TimerSavepoint + "; RELEASE SAVEPOINT " + sqltext.TimerSavepoint
	set := func(lock, statement string) string {
		return setSQL("lock_timeout", lock, true) + "; " + setSQL("statement_timeout", statement, true)
	}
	if !t.noSnapshot {
		return saveSQL + "; " + set(each, whole) + "; " + rearm, restoreSQL, nil
	}
	lock, err := query.Text(ctx, conn, "SHOW lock_timeout")
	if err != nil {
		return "", "", err
	}
	statement, err := query.Text(ctx, conn, "SHOW statement_timeout")
	if err != nil {
		return "", "", err
	}
	return set(each, whole) + "; " + rearm, set(lock, statement), nil
}
