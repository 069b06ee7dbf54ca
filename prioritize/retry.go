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
	"github.com/pglock-go/pglock/internal/sqltext"
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

// RetryFor runs fn, and retries it if it fails because the sessions that who chooses did
// not acquire a lock. They are those of a program that fn runs and waits for, as with
// [RunFor], and fn must let the program set their lock_timeout to [LockTimeout], for
// example with PGOPTIONS. Between the tries are pauses, as with [Retry].
//
// Why another program failed is not known. It counts as a lock timeout if fn returns an
// error and a session's wait, which ended less than 10 s before, may have ended when
// lock_timeout expired. So does an error that wraps [pglock.ErrNotAcquired], with which fn
// reports that it knows. Any other error is returned at once. That includes a lock that
// was requested with NOWAIT, and a deadlock.
//
// The program runs again from its beginning, so it must do all of its work or nothing, or
// continue where it stopped, as tools for migrations do that commit each migration.
//
// A policy, such as [Terminate], applies only to the last try. With [Tries] that is try
// number n, and otherwise the one with which the [Budget] ends; if a try lasts longer
// than the budget, one more follows. [After] must be shorter than LockTimeout then.
//
// The watcher begins before fn and needs a session from db, as with RunFor. If fn fails
// because of a lock, the error is an [*Error] with fn's last error and the blockers;
// otherwise it is fn's error. ctx is passed to fn, and also ends the retries and the
// pauses.
func RetryFor(ctx context.Context, db driver.Source, who Who, fn func(context.Context) error, opts ...RetryForOption) error {
	c, err := newConfig(opRetryFor, opts)
	if err != nil {
		return err
	}
	if err := who.check(); err != nil {
		return fmt.Errorf("pglock: %s: %w", opRetryFor, err)
	}
	w, err := startWatcher(ctx, opRetryFor, &c, who, db)
	if err != nil {
		return err
	}
	defer w.close()
	r := retrier{config: &c, watcher: w, program: true}
	return r.run(ctx, fn)
}

// A retrier is one call of Retry or RetryFor.
type retrier struct {
	config  *config
	watcher *watcher // nil is none
	program bool     // for RetryFor
}

// run calls try until it succeeds or there is no reason to retry.
func (r *retrier) run(ctx context.Context, try func(context.Context) error) error {
	began := time.Now()
	failure := &Error{Op: opRetry}
	last := r.program && r.config.tries == 1
	for n := 1; ; n++ {
		err := r.try(ctx, try, last)
		event := Event{Kind: Tried, Try: n, Err: err}
		if err == nil {
			r.config.emit(event)
			return nil
		}
		kind := r.classify(err)
		if w := r.watcher; w != nil {
			event.Blocked = w.lastPairs
			failure.Spared, failure.Calls = w.spared, w.callErrors()
			if len(w.lastPairs) > 0 {
				failure.Blocked, failure.Seen = w.lastPairs, w.lastBlocked
			}
		}
		if kind == isLock || r.watcher != nil && !r.program && r.watcher.explains(kind) {
			failure.Tries, failure.Err = n, err
			again := kind == isLock && ctx.Err() == nil
			if again {
				event.Pause, last, again = r.next(n, last, time.Since(began))
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

// next returns the pause after try number n, whether the next try is the last one, which
// applies the policy, or false to give up.
func (r *retrier) next(n int, wasLast bool, elapsed time.Duration) (pause time.Duration, last, again bool) {
	c := r.config
	pause, again = c.nextPause(n, elapsed, rand.Float64())
	if !r.clearsLast() {
		return pause, false, again
	}
	if wasLast {
		return 0, true, false
	}
	if !again { // the last try took longer than the budget
		pause = backoff(n-1, c.minBackoff, c.maxBackoff, rand.Float64())
	}
	last = !again || c.tries > 0 && n+1 >= c.tries || c.budget > 0 && elapsed+pause >= c.budget
	return pause, last, true
}

// clearsLast reports whether there is a policy, which the last try applies.
func (r *retrier) clearsLast() bool { return r.program && r.config.policy != policyReport }

// maxTimeoutAge is how long before the end of a program a lock timeout may have been its
// reason to fail.
const maxTimeoutAge = 10 * time.Second

// classify classifies an error of the function.
func (r *retrier) classify(err error) lockError {
	kind := classify(err)
	if !r.program || kind == isLock {
		return kind
	}
	if at := r.watcher.tracker.timedOut; !at.IsZero() && time.Since(at) < maxTimeoutAge {
		return isLock
	}
	return notLock
}

func (r *retrier) try(ctx context.Context, try func(context.Context) error, last bool) error {
	if r.watcher == nil {
		return try(ctx)
	}
	r.watcher.passive = r.program && !last
	return r.watcher.during(ctx, !r.program, try)
}

const (
	savepoint  = `SAVEPOINT ` + sqltext.RetrySavepoint
	release    = `RELEASE SAVEPOINT ` + sqltext.RetrySavepoint
	rollbackTo = `ROLLBACK TO SAVEPOINT ` + sqltext.RetrySavepoint

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
