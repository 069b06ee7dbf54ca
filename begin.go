package pglock

import (
	"context"

	"github.com/pglock-go/pglock/driver"
)

// A Transaction is a transaction begun by a [Beginner]. Tx is the driver's handle for it,
// and Conn is the same transaction for pglock. Commit and Rollback end it.
type Transaction[T any] struct {
	Tx       T
	Conn     driver.Conn
	Commit   func(context.Context) error
	Rollback func(context.Context) error
}

// A Beginner begins transactions for [DoTx] and [DoTables]. pgxlock.Begin and
// sqllock.Begin make one from a pool. T is the driver's transaction type.
type Beginner[T any] func(context.Context) (Transaction[T], error)

// DoTx begins a transaction, takes an advisory lock in it as [LockTx] does, runs fn, and
// commits if fn returns nil. If fn fails or panics, it rolls back. If the lock is not
// acquired, it rolls back without calling fn.
//
//	err := pglock.DoTx(ctx, pgxlock.Begin(pool, pgx.TxOptions{}), pglock.Name("report"),
//		func(ctx context.Context, tx pgx.Tx) error { ... }, pglock.NoWait(), pglock.SkipIfHeld())
//
// The options are those of LockTx, and [SkipIfHeld]: with it, DoTx returns nil if another
// session holds the lock, unless ctx ended the wait. fn must not end the transaction. The
// error comes from beginning the transaction, LockTx, fn or the commit. ctx covers all of
// these; the rollback ignores ctx and has a time limit of its own.
func DoTx[T any](ctx context.Context, begin Beginner[T], key Key, fn func(ctx context.Context, tx T) error, opts ...Option) error {
	const op = "do in transaction"
	r, err := newRequest(op, canShare|canWait|canSkip, opts)
	if err != nil {
		return err
	}
	return doTx(ctx, begin, fn, r, func(conn driver.Conn) *txLock { return newTxLock(op, conn, []Key{key}, r) })
}

// DoTables is like [DoTx], but locks tables as [LockTables] does. The options are those
// of LockTables, and [SkipIfHeld].
func DoTables[T any](ctx context.Context, begin Beginner[T], tables TableList, fn func(ctx context.Context, tx T) error, opts ...Option) error {
	const op = "do with tables"
	r, err := newRequest(op, canWait|canSkip|hasTables, opts)
	if err != nil {
		return err
	}
	if err := tables.check(op); err != nil {
		return err
	}
	return doTx(ctx, begin, fn, r, func(conn driver.Conn) *txLock { return newTableLock(op, conn, tables, r) })
}

func doTx[T any](
	ctx context.Context, begin Beginner[T], fn func(context.Context, T) error,
	r request, lock func(driver.Conn) *txLock,
) error {
	tx, err := begin(ctx)
	if err != nil {
		return err
	}
	done := false
	defer func() {
		if !done {
			// A failed rollback needs no handling: the driver then closes the connection,
			// which also rolls back.
			ctx, cancel := cleanupContext(ctx)
			defer cancel()
			_ = tx.Rollback(ctx)
		}
	}()
	if err := lock(tx.Conn).acquire(ctx); err != nil {
		return r.orSkip(ctx, err)
	}
	if err := fn(ctx, tx.Tx); err != nil {
		return err
	}
	done = true
	return tx.Commit(ctx)
}
