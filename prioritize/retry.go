package prioritize

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/internal/handshake"
)

// Retry runs fn while lock_timeout of conn is short ([LockTimeout]), and runs it
// again after a pause ([Backoff]) when it fails with SQLSTATE 55P03 (a lock was not
// had in time), 40P01 (a deadlock) or [pglock.ErrNotAcquired], until it succeeds or
// fails otherwise, or until the [Budget] or the [Tries] are used up.
//
// fn may be run many times, so each time must do the whole of the work or nothing:
// a statement, or a transaction that it begins and ends.
//
//	err := prioritize.Retry(ctx, source, pgxlock.Conn(conn), func(ctx context.Context) error {
//		return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error { return migrate(ctx, tx) })
//	})
//
// What was done outside of a transaction stays done when a later statement fails,
// and CREATE INDEX CONCURRENTLY leaves an invalid index behind.
//
// conn is the connection that fn works with. Behind a connection pooler it must be a
// transaction, and the source must connect to Postgres directly: otherwise the error is
// [pglock.ErrPooler], or the source is done without. When a transaction is open on it
// already, each try is a savepoint in that: the transaction goes on, and with it
// whatever it had locked before, also during the pauses, so a transaction of fn's
// own is better.
//
// While a try waits, a watcher finds out who is in the way, on a session of its own
// from source; it opens one only when a try takes longer than a moment, and a
// watcher without a session costs no more than the names. A nil source is to do
// without.
//
// The error is fn's when it failed otherwise, else an [*Error] with fn's last error
// and who was in the way. ctx goes to fn, and ends the trying and the pauses.
func Retry(ctx context.Context, source pglock.Source, conn pglock.Conn, fn func(context.Context) error, opts ...Option) error {
	c, err := newConfig(opRetry, forRetry, opts)
	if err != nil {
		return err
	}
	who, err := identify(ctx, opRetry, conn)
	if err != nil {
		return err
	}
	r := retrying{config: &c}
	if source != nil {
		r.watcher = newWatcher(&c, who, opener(source))
		defer r.watcher.close()
	}
	return r.run(ctx, func(ctx context.Context) error {
		return inSavepoint(ctx, conn, func(ctx context.Context) error {
			return pglock.WithLockTimeout(ctx, conn, c.lockTimeout, fn)
		})
	})
}

// retrying is one Retry.
type retrying struct {
	config  *config
	watcher *watcher // nil is none
}

// run tries.
func (r *retrying) run(ctx context.Context, try func(context.Context) error) error {
	began := time.Now()
	failure := &Error{Op: opRetry}
	for n := 1; ; n++ {
		err := r.try(ctx, try)
		event := Event{Kind: Tried, Try: n, Err: err}
		if err == nil {
			r.config.emit(event)
			return nil
		}
		kind := onLock(err)
		if w := r.watcher; w != nil {
			event.Blocked = w.picture
			if len(w.picture) > 0 {
				failure.Blocked, failure.Seen = w.picture, w.blocked
			}
		}
		if kind == failedOnLock || r.watcher != nil && r.watcher.concerns(kind) {
			failure.Tries, failure.Err = n, err
			again := kind == failedOnLock && ctx.Err() == nil
			if again {
				event.Pause, again = r.config.next(n, time.Since(began), rand.Float64())
			}
			r.config.emit(event)
			if again && sleep(ctx, event.Pause) {
				continue
			}
			failure.Elapsed, failure.Cause = time.Since(began), context.Cause(ctx)
			return failure
		}
		r.config.emit(event)
		return err
	}
}

func (r *retrying) try(ctx context.Context, try func(context.Context) error) error {
	if r.watcher == nil {
		return try(ctx)
	}
	return r.watcher.during(ctx, true, try)
}

const (
	savepoint  = `SAVEPOINT _pglock_retry`
	release    = `RELEASE SAVEPOINT _pglock_retry`
	rollbackTo = `ROLLBACK TO SAVEPOINT _pglock_retry`

	// cleanTimeout bounds what is done after ctx has ended.
	cleanTimeout = 5 * time.Second
)

// inSavepoint runs fn in a savepoint if a transaction is open on conn, so that the
// transaction is as it was when fn fails; else it just runs it.
func inSavepoint(ctx context.Context, conn pglock.Conn, fn func(context.Context) error) error {
	switch open, err := handshake.InTransaction(ctx, conn); {
	case err != nil:
		return fmt.Errorf("pglock: %s: %w", opRetry, err)
	case !open:
		return fn(ctx)
	}
	if err := conn.Exec(ctx, savepoint); err != nil {
		return fmt.Errorf("pglock: %s: %w", opRetry, err)
	}
	err := fn(ctx)
	clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanTimeout)
	defer cancel()
	if err == nil {
		if err := conn.Exec(clean, release); err != nil {
			return fmt.Errorf("pglock: %s: %w", opRetry, err)
		}
		return nil
	}
	for _, sql := range []string{rollbackTo, release} {
		if lost := conn.Exec(clean, sql); lost != nil {
			return &broken{errors.Join(err, lost)}
		}
	}
	return err
}

// broken is the error of a try that left the transaction in pieces, so that there
// is no sense in another one, whatever the error.
type broken struct{ err error }

func (b *broken) Error() string {
	return "pglock: " + opRetry + ": the transaction cannot go on: " + b.err.Error()
}

func (b *broken) Unwrap() error { return b.err }
