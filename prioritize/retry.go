package prioritize

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/internal/handshake"
)

// Retry acquires a connection from db and runs fn with it under a short lock_timeout
// ([LockTimeout]). It retries fn after a pause ([Backoff]) if fn fails because of a lock:
// with SQLSTATE 55P03 (lock not available) or 40P01 (deadlock), or with
// [pglock.ErrNotAcquired]. It stops if fn succeeds, if fn fails for another reason, or if
// the [Budget] or the [Tries] are used up.
//
// fn may run many times, so each time it must do all of the work or nothing: one
// statement, or a transaction that it begins and ends.
//
//	err := prioritize.Retry(ctx, db, func(ctx context.Context, conn *pgx.Conn) error {
//		return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error { return migrate(ctx, tx) })
//	})
//
// Work outside of a transaction stays done if a later statement fails, and CREATE
// INDEX CONCURRENTLY leaves an invalid index behind.
//
// The connection is acquired and released as by [Run]. Behind a connection pooler the
// error is [pglock.ErrPooler]; use RetryOn in a transaction there.
//
// While a try waits, a watcher finds the blockers, on its own session from db. It
// opens the session only if a try takes longer than a moment. Without a session Retry
// works the same, but its error names no blockers.
//
// If fn fails because of a lock, the error is an [*Error] with fn's last error and
// the blockers; otherwise it is fn's error. ctx is passed to fn, and also ends the
// retries and the pauses.
func Retry[C any](ctx context.Context, db driver.Database[C], fn func(ctx context.Context, conn C) error, opts ...RetryOption) error {
	c, err := newConfig(opRetry, opts)
	if err != nil {
		return err
	}
	return withConn(ctx, opRetry, db, func(a driver.Acquired[C]) error {
		return retryOn(ctx, &c, db, a.Conn, func(ctx context.Context) error { return fn(ctx, a.Native) })
	})
}

// RetryOn does what [Retry] does on the caller's connection, with which fn works. db opens
// the watcher's session; if it is nil, there is no watcher.
//
// Behind a connection pooler, conn must be a transaction, and db must connect to Postgres
// directly. Otherwise the error is [pglock.ErrPooler] if conn is at fault, and db is
// ignored if db is. If a transaction is already open on conn, each try is a savepoint in
// it. The transaction then keeps its earlier locks during the pauses, so it is better to
// let fn begin its own transaction.
func RetryOn(ctx context.Context, db driver.Source, conn driver.Conn, fn func(context.Context) error, opts ...RetryOption) error {
	c, err := newConfig(opRetry, opts)
	if err != nil {
		return err
	}
	return retryOn(ctx, &c, db, conn, fn)
}

func retryOn(ctx context.Context, c *config, db driver.Source, conn driver.Conn, fn func(context.Context) error) error {
	who, err := identify(ctx, opRetry, conn)
	if err != nil {
		return err
	}
	r := retrier{config: c}
	if db != nil {
		r.watcher = newWatcher(c, who, opener(db))
		defer r.watcher.close()
	}
	return r.run(ctx, func(ctx context.Context) error {
		return inSavepoint(ctx, conn, func(ctx context.Context) error {
			return pglock.WithLockTimeout(ctx, conn, c.lockTimeout, fn)
		})
	})
}

// A retrier is one call of Retry.
type retrier struct {
	config  *config
	watcher *watcher // nil is none
}

// run calls try until it succeeds or there is no reason to retry.
func (r *retrier) run(ctx context.Context, try func(context.Context) error) error {
	began := time.Now()
	failure := &Error{Op: opRetry}
	for n := 1; ; n++ {
		err := r.try(ctx, try)
		event := Event{Kind: Tried, Try: n, Err: err}
		if err == nil {
			r.config.emit(event)
			return nil
		}
		kind := classify(err)
		if w := r.watcher; w != nil {
			event.Blocked = w.lastPairs
			if len(w.lastPairs) > 0 {
				failure.Blocked, failure.Seen = w.lastPairs, w.lastBlocked
			}
		}
		if kind == isLock || r.watcher != nil && r.watcher.explains(kind) {
			failure.Tries, failure.Err = n, err
			again := kind == isLock && ctx.Err() == nil
			if again {
				event.Pause, again = r.config.nextPause(n, time.Since(began), rand.Float64())
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

func (r *retrier) try(ctx context.Context, try func(context.Context) error) error {
	if r.watcher == nil {
		return try(ctx)
	}
	return r.watcher.during(ctx, true, try)
}

const (
	savepoint  = `SAVEPOINT _pglock_retry`
	release    = `RELEASE SAVEPOINT _pglock_retry`
	rollbackTo = `ROLLBACK TO SAVEPOINT _pglock_retry`

	// cleanTimeout limits the cleanup after ctx has ended.
	cleanTimeout = 5 * time.Second
)

// inSavepoint runs fn in a savepoint if a transaction is open on conn, so that the
// transaction is unchanged if fn fails; otherwise it just runs fn.
func inSavepoint(ctx context.Context, conn driver.Conn, fn func(context.Context) error) error {
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
			return &brokenTx{errors.Join(err, lost)}
		}
	}
	return err
}

// A brokenTx is the error of a try that left the transaction unusable, so that a retry
// is pointless.
type brokenTx struct{ err error }

func (b *brokenTx) Error() string {
	return "pglock: " + opRetry + ": the transaction cannot go on: " + b.err.Error()
}

func (b *brokenTx) Unwrap() error { return b.err }
