package pglock

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/pglock-go/pglock/internal/sqlstate"
)

// This file is how a lock is taken in a transaction that belongs to the caller:
// inside a savepoint, so that a lock which is not had costs the caller nothing
// but the time, and so that whatever the attempt took is given back.
//
// Taking a lock is one round trip, since a string of several statements is sent
// as it is (Conn.Exec without parameters). Not to wait takes three for an
// advisory lock, whose answer must be read; a table lock that is to wait for a
// time takes three, too, see [timeouts]. An attempt that fails takes one to six
// more, to go back and to ask who was in the way.

const (
	savepoint  = `SAVEPOINT _pglock`
	release    = `RELEASE SAVEPOINT _pglock`
	rollbackTo = `ROLLBACK TO SAVEPOINT _pglock`
)

// askCheaply bounds the asking for who is in the way to a second. To compile the
// statement would take several times as long as to run it.
const askCheaply = `SET LOCAL statement_timeout = '1s'; SET LOCAL jit = off`

// askAnew forgets what pg_stat_activity showed earlier in the transaction, which
// it would show again.
const askAnew = `SELECT pg_catalog.pg_stat_clear_snapshot()`

// cleanTimeout bounds what is done after ctx has ended.
const cleanTimeout = 5 * time.Second

// A txLock is a lock to be taken in a caller's transaction.
type txLock struct {
	report Error // Op, Keys and Tables; Holders come later

	conn Conn
	request

	lock    string                                  // the statement that takes it, and waits unless it says otherwise
	try     string                                  // with NoWait: one that answers whether it did, in place of lock
	limit   timeouts                                // what wait is bounded by
	holders func(context.Context) ([]Holder, error) // nil is not to ask
}

// take takes the lock.
func (l *txLock) take(ctx context.Context) error {
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

	// The transaction is as it was before us, or aborted before us.
	switch sqlstate.Of(err) {
	case sqlstate.NoActiveTransaction, sqlstate.InFailedTransaction:
		return l.fail(kindOf(err), err)
	}
	kind, cause := l.outcome(ctx, err, time.Since(began))
	if lost := l.back(ctx, err, kind); lost != nil && !errors.Is(err, lost) {
		cause = fmt.Errorf("%w (and the transaction cannot go on: %v)", cause, lost)
	}
	return l.fail(kind, cause)
}

// errRefused is what a try comes to.
var errRefused = errors.New("refused")

// tryLock asks for the lock and waits for nobody. It has err where it is not ok.
func (l *txLock) tryLock(ctx context.Context) (ok bool, err error) {
	if err := l.conn.Exec(ctx, savepoint); err != nil {
		return false, err
	}
	answer, err := queryText(ctx, l.conn, l.try)
	if err != nil {
		return false, err
	}
	if answer != "true" {
		return false, errRefused
	}
	// It is had: ctx has no more to say.
	clean, cancel := cleaning(ctx)
	defer cancel()
	if err := l.conn.Exec(clean, release); err != nil {
		return false, err
	}
	return true, nil
}

// waitLock takes the lock, waiting as long as the request says. It tells when
// the waiting began.
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

// confirm makes sure that the transaction is still there when ctx ended by the time
// of the grant: lib/pq closes the connection then, and says that all went well.
func (l *txLock) confirm(ctx context.Context) error {
	if ctx.Err() == nil {
		return nil
	}
	clean, cancel := cleaning(ctx)
	defer cancel()
	return l.conn.Exec(clean, `SELECT 1`)
}

// outcome is what an error means: a lock not had, or what else.
func (l *txLock) outcome(ctx context.Context, err error, waited time.Duration) (kind, cause error) {
	state := sqlstate.Of(err)
	switch {
	case err == errRefused:
		return ErrNotAcquired, nil
	case state == sqlstate.LockNotAvailable:
		return ErrNotAcquired, err
	case ctx.Err() != nil && state == sqlstate.QueryCanceled:
		return ErrNotAcquired, ctx.Err() // Postgres was waiting for it
	case ctx.Err() != nil && state == "":
		return ErrUnavailable, fmt.Errorf("no answer while waiting for the lock: %w", ctx.Err())
	case state == sqlstate.QueryCanceled && l.wait > 0 && waited >= l.wait:
		// By the timeout that bounds the whole statement. Somebody else's cancel
		// has the same code but comes earlier.
		return ErrNotAcquired, err
	}
	return kindOf(err), err
}

// back puts the transaction back to where it was before the lock was asked for,
// and on the way asks who was in the way. It returns why that cannot be.
func (l *txLock) back(ctx context.Context, cause, kind error) error {
	clean, cancel := cleaning(ctx)
	defer cancel()
	if cause != errRefused && sqlstate.Of(cause) == "" {
		// Whether anything of it reached the server is not known. Going back to
		// a savepoint that is not there would abort a transaction that is well;
		// a second savepoint does nothing to it, nor to one that is aborted.
		if err := l.conn.Exec(clean, savepoint); err != nil && sqlstate.Of(err) != sqlstate.InFailedTransaction {
			return err
		}
	}
	if kind != ErrNotAcquired || ctx.Err() != nil || l.skip || l.holders == nil {
		return execClean(clean, l.conn, rollbackTo+"; "+release)
	}
	if err := execClean(clean, l.conn, rollbackTo+"; "+askCheaply); err != nil {
		return err
	}
	// What goes wrong here is not worth an error.
	l.report.Holders, _ = l.holders(clean)
	return execClean(clean, l.conn, rollbackTo+"; "+release)
}

// execClean runs statements of the cleaning-up. A cancel that was meant for what
// ran before may still come in: it hits once.
func execClean(ctx context.Context, conn Conn, sql string) error {
	err := conn.Exec(ctx, sql)
	if sqlstate.Of(err) == sqlstate.QueryCanceled {
		err = conn.Exec(ctx, sql)
	}
	return err
}

// cleaning is a context for what must be done though ctx may have ended.
func cleaning(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), cleanTimeout)
}

// fail is the error of l.
func (l *txLock) fail(kind, cause error) error {
	e := l.report
	e.Kind, e.Err = kind, cause
	return &e
}
