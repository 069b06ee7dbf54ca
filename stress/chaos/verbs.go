//go:build unix

package chaos

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/pglock-go/pglock"
)

// A verb is a way to acquire locks.
type verb struct {
	name  string
	multi bool // acquires several locks
	waits bool // may wait
	run   func(*attempt)
}

// verbs returns all verbs.
func verbs() []verb {
	return []verb{
		{"Lock", false, true, (*attempt).lock},
		{"TryLock", false, false, (*attempt).tryLock},
		{"Do", false, true, (*attempt).do},
		{"LockAll", true, true, (*attempt).lockAll},
		{"DoAll", true, true, (*attempt).do},
		{"LockTx", false, true, (*attempt).lockTx},
		{"LockAllTx", true, true, (*attempt).lockTx},
	}
}

// isTx reports whether the verb acquires locks in a transaction.
func isTx(verb string) bool { return strings.HasSuffix(verb, "Tx") }

// outcomeOf classifies an error of a Locker.
func outcomeOf(err error) outcome {
	switch {
	case err == nil:
		return outOK
	case errors.Is(err, pglock.ErrLost):
		return outLost
	case errors.Is(err, pglock.ErrUnconfirmed):
		return outUnconfirmed
	case errors.Is(err, pglock.ErrNotAcquired):
		if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
			return outCanceled
		}
		return outHeld
	case errors.Is(err, pglock.ErrLockTableFull):
		return outFull
	case errors.Is(err, pglock.ErrDeadlock):
		return outDeadlock
	case errors.Is(err, pglock.ErrUnavailable), errors.Is(err, pglock.ErrStandby):
		return outDown
	}
	return outOther
}

// outcomeOfTx classifies an error of a transaction, which may fail in any way.
func outcomeOfTx(ctx context.Context, err error) outcome {
	switch o := outcomeOf(err); {
	case o != outOther:
		return o
	case ctx.Err() != nil:
		return outCanceled
	}
	return outBroken
}

func (a *attempt) lock() {
	a.handle(func(ctx context.Context) (*pglock.Lock, error) {
		return a.locker.Lock(ctx, a.keys[0], a.lockOptions()...)
	})
}

func (a *attempt) lockOptions() (opts []pglock.LockOption) {
	for _, opt := range a.opts {
		opts = append(opts, opt)
	}
	return opts
}

func (a *attempt) tryLock() {
	var opts []pglock.TryOption
	if a.shared {
		opts = append(opts, pglock.Shared())
	}
	a.handle(func(ctx context.Context) (*pglock.Lock, error) { return a.locker.TryLock(ctx, a.keys[0], opts...) })
}

func (a *attempt) lockAll() {
	a.handle(func(ctx context.Context) (*pglock.Lock, error) {
		return a.locker.LockAll(ctx, a.keys, a.lockOptions()...)
	})
}

// handle acquires locks with a function that returns a handle.
func (a *attempt) handle(take func(context.Context) (*pglock.Lock, error)) {
	ctx, cancel := context.WithTimeout(context.Background(), a.limit)
	defer cancel()
	if !a.hasDeadline {
		var stop func() bool
		ctx, stop = a.waiting()
		defer stop()
	}
	lock, err := take(ctx)
	if err != nil {
		a.recordFailure(outcomeOf(err), err)
		return
	}
	a.hold(lock, lock.Done(), lock.Err)
	err = lock.Unlock()
	a.recordRelease(outcomeOf(err), err)
	a.write.wait()
}

// do acquires locks with Do or DoAll.
func (a *attempt) do() {
	ctx, stop := a.waiting()
	defer stop()
	ran := false
	work := func(ctx context.Context) error {
		if !stop() {
			return context.Canceled // canceled at the moment of the grant
		}
		ran = true
		a.hold(pglock.LockFrom(ctx), ctx.Done(), func() error { return context.Cause(ctx) })
		return nil
	}
	var opts []pglock.DoOption
	for _, opt := range a.opts {
		opts = append(opts, opt)
	}
	var err error
	if len(a.keys) > 1 {
		err = a.locker.DoAll(ctx, a.keys, work, opts...)
	} else {
		err = a.locker.Do(ctx, a.keys[0], work, opts...)
	}
	switch {
	case ran:
		a.recordRelease(outcomeOf(err), err)
		a.write.wait()
	case err == nil:
		a.recordFailure(outOther, errors.New("no error from Do, but its function did not run"))
	case errors.Is(err, context.Canceled):
		a.recordFailure(outCanceled, err)
	default:
		a.recordFailure(outcomeOf(err), err)
	}
}

// lockTx acquires locks in a new transaction.
func (a *attempt) lockTx() {
	tx, err := a.adapter.db.Begin(context.Background())
	if err != nil {
		a.recordFailure(outBroken, fmt.Errorf("begin: %w", err))
		return
	}
	// If the rollback fails, the connection is gone anyway.
	defer func() { _ = tx.Rollback(context.Background()) }()
	ctx, cancel := context.WithTimeout(context.Background(), a.limit)
	defer cancel()
	if len(a.keys) > 1 {
		err = pglock.LockAllTx(ctx, tx.Conn, a.keys, a.opts...)
	} else {
		err = pglock.LockTx(ctx, tx.Conn, a.keys[0], a.opts...)
	}
	if err != nil {
		a.recordFailure(outcomeOfTx(ctx, err), err)
		return
	}
	a.hold(nil, nil, nil)
	if err = tx.Commit(context.Background()); err != nil {
		a.recordRelease(outBroken, err)
		return
	}
	a.recordRelease(outOK, nil)
}
