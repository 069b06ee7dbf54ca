package pglock

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/pglock-go/pglock/internal/handshake"
	"github.com/pglock-go/pglock/internal/sqlstate"
)

// NoTimeout, given to [WithLockTimeout] or [WithStatementTimeout], is no timeout
// at all. It has a name because Postgres calls it 0, which a computed duration
// may well be by accident.
const NoTimeout time.Duration = math.MinInt64

// WithLockTimeout runs fn while lock_timeout of conn is d, so that a statement of
// fn's that waits for any lock for longer than d fails with SQLSTATE 55P03
// (PostgreSQL manual, 20.11.1 "Statement Behavior"). The time counts for each
// lock anew: a statement that takes several may wait several times as long.
//
// conn is a connection or a transaction; a pool cannot be had for one. Afterwards
// the setting is again exactly what it was, whether that came from SET, from SET
// LOCAL or from the server, also when fn fails or panics. Calls nest. In a
// transaction the setting is local to it. When fn leaves the transaction aborted
// there is nothing that could be put back, and the rollback does it; but a
// rollback to a savepoint that fn itself set, and left behind, does not.
//
// Outside a transaction the setting is the session's. Behind a connection pooler it
// would reach statements of others, and might not reach fn's, so then the error is
// [ErrPooler], nothing has been set and fn is not called: use a transaction. See [Conn]
// for how a pooler is found out.
//
// d is rounded up to whole milliseconds. It must be at least one, and at most
// 2,147,483,647 (24 days), or [NoTimeout]: Postgres knows no smaller unit, and
// takes 0 for no timeout.
//
// The error is fn's. When the setting could not be made, fn is not called; when it
// could not be put back on a connection that lives on, the error says so, too.
// ctx goes to fn and covers the making; the putting back is bounded by itself.
func WithLockTimeout(ctx context.Context, conn Conn, d time.Duration, fn func(context.Context) error) error {
	return withTimeout(ctx, conn, "lock_timeout", d, fn)
}

// WithStatementTimeout runs fn while statement_timeout of conn is d, so that a
// statement of fn's that takes longer than d in all fails with SQLSTATE 57014.
// Everything else is as with [WithLockTimeout].
func WithStatementTimeout(ctx context.Context, conn Conn, d time.Duration, fn func(context.Context) error) error {
	return withTimeout(ctx, conn, "statement_timeout", d, fn)
}

// errPooledTimeout is ErrPooler with the advice that fits a timeout.
var errPooledTimeout error = pooledTimeout{}

type pooledTimeout struct{}

func (pooledTimeout) Error() string {
	return "a connection pooler stands between pglock and Postgres, and what is set for a session " +
		"would be set for whoever gets that session next: use it in a transaction, or connect to Postgres directly"
}

func (pooledTimeout) Unwrap() error { return ErrPooler }

func withTimeout(ctx context.Context, conn Conn, name string, d time.Duration, fn func(context.Context) error) (err error) {
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
	// SHOW and SET, not functions: a SELECT would settle what a transaction that
	// is REPEATABLE READ gets to see, before it had its locks.
	old, err := queryText(ctx, conn, "SHOW "+name)
	if err != nil {
		return fmt.Errorf("pglock: %s: %w", name, err)
	}
	// The setting may be made, and the driver still return an error: it is put
	// back in any case.
	defer func() {
		if lost := putBack(ctx, conn, name, old, local); lost != nil {
			err = errors.Join(err, lost)
		}
	}()
	if err := conn.Exec(ctx, setSQL(name, value, local)); err != nil {
		return fmt.Errorf("pglock: %s: %w", name, err)
	}
	return fn(ctx)
}

// putBack gives a setting its old value.
func putBack(ctx context.Context, conn Conn, name, old string, local bool) error {
	if local {
		if teller, ok := conn.(transactionTeller); ok {
			if open, known := teller.InTransaction(); known && !open {
				return nil // it ended, and the setting with it
			}
		}
	}
	ctx, cancel := cleaning(ctx)
	defer cancel()
	err := execClean(ctx, conn, setSQL(name, old, local))
	switch state := sqlstate.Of(err); {
	case err == nil:
		return nil
	case state == "":
		return nil // the connection is gone, and the setting with it
	case state == sqlstate.InFailedTransaction && local:
		return nil // the rollback that must follow puts it back
	}
	return fmt.Errorf("pglock: %s was not put back to %s: %w", name, old, err)
}

// setSQL sets a setting, for the transaction or for the session.
func setSQL(name, value string, local bool) string {
	scope := "SESSION"
	if local {
		scope = "LOCAL"
	}
	return "SET " + scope + " " + name + " = " + quoteLiteral(value)
}

// quoteLiteral is what SHOW answered, as a constant in SQL.
func quoteLiteral(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// maxMilliseconds is the longest timeout that Postgres takes.
const maxMilliseconds = math.MaxInt32

// timeoutValue is a timeout as Postgres takes it, in milliseconds.
func timeoutValue(d time.Duration) (string, error) {
	switch {
	case d == NoTimeout:
		return "0", nil
	case d == 0:
		return "", errors.New("0 is no timeout at all to Postgres: say NoTimeout if that is meant")
	case d < 0:
		return "", fmt.Errorf("%v is in the past: say NoTimeout if none is meant", d)
	case d < time.Millisecond:
		return "", fmt.Errorf("%v is less than a millisecond, the smallest that Postgres knows", d)
	case d > maxMilliseconds*time.Millisecond:
		return "", fmt.Errorf("%v is more than Postgres takes, which is %v: say NoTimeout if none is meant",
			d, maxMilliseconds*time.Millisecond)
	}
	return fmt.Sprint(milliseconds(d)), nil
}

// milliseconds rounds up, so that what is positive never becomes 0, which means
// for ever; and down to what Postgres takes.
func milliseconds(d time.Duration) int64 {
	ms := int64(d / time.Millisecond)
	if d%time.Millisecond > 0 {
		ms++
	}
	return min(ms, maxMilliseconds)
}

// A transactionTeller is a Conn whose driver may know whether a transaction is
// open, without asking.
type transactionTeller interface {
	InTransaction() (open, known bool)
}

// timeouts is how a wait for a lock is bounded, in a transaction of the caller's
// whose settings are to be what they were.
type timeouts struct {
	// whole bounds the statement and not only each of its waits: it may have more
	// than one.
	whole bool

	// quiet keeps to statements that read nothing, so that a REPEATABLE READ
	// transaction is not settled yet on what it sees when the lock is had. It
	// takes two more round trips.
	quiet bool
}

// Where the caller's settings are kept meanwhile, so that one round trip is
// enough: in settings of our own, which end with the transaction.
const (
	keepSQL = `SELECT pg_catalog.set_config('pglock.lock_timeout', pg_catalog.current_setting('lock_timeout'), true), ` +
		`pg_catalog.set_config('pglock.statement_timeout', pg_catalog.current_setting('statement_timeout'), true)`
	putBackSQL = `SELECT pg_catalog.set_config('lock_timeout', pg_catalog.current_setting('pglock.lock_timeout'), true), ` +
		`pg_catalog.set_config('statement_timeout', pg_catalog.current_setting('pglock.statement_timeout'), true)`
)

// around is what to run before and after the statement that waits. The caller's
// own timeouts do not count meanwhile.
func (t timeouts) around(ctx context.Context, conn Conn, wait time.Duration) (before, after string, err error) {
	each := fmt.Sprint(milliseconds(wait))
	whole := "0"
	if t.whole {
		whole = each
	}
	// Before version 13 the time of a string of statements is counted from the
	// first of them, with the timeout of that moment, until one that is about
	// transactions: so one of these comes before the lock.
	const rearm = "SAVEPOINT _pglock_timer; RELEASE SAVEPOINT _pglock_timer"
	set := func(lock, statement string) string {
		return setSQL("lock_timeout", lock, true) + "; " + setSQL("statement_timeout", statement, true)
	}
	if !t.quiet {
		return keepSQL + "; " + set(each, whole) + "; " + rearm, putBackSQL, nil
	}
	lock, err := queryText(ctx, conn, "SHOW lock_timeout")
	if err != nil {
		return "", "", err
	}
	statement, err := queryText(ctx, conn, "SHOW statement_timeout")
	if err != nil {
		return "", "", err
	}
	return set(each, whole) + "; " + rearm, set(lock, statement), nil
}
