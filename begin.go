package pglock

import (
	"context"
)

// A Transaction is one that a [Beginner] began. Tx is what the driver calls it,
// and Conn is the same one for pglock. Commit and Rollback end it.
type Transaction[T any] struct {
	Tx       T
	Conn     Conn
	Commit   func(context.Context) error
	Rollback func(context.Context) error
}

// A Beginner begins transactions for [DoTx] and [DoTables]: what pgxlock.Begin and
// sqllock.Begin make of a pool. T is the driver's type of a transaction.
type Beginner[T any] func(context.Context) (Transaction[T], error)

// DoTx begins a transaction, takes an advisory lock in it as [LockTx] does, runs
// fn, and commits when fn returns nil. Otherwise it rolls back: also when fn
// panics, and when the lock is not had, and then fn is not called.
//
//	err := pglock.DoTx(ctx, pgxlock.Begin(pool, pgx.TxOptions{}), pglock.Name("report"),
//		func(ctx context.Context, tx pgx.Tx) error { ... }, pglock.NoWait(), pglock.SkipIfHeld())
//
// The options are those of LockTx, and [SkipIfHeld]: with it, not getting the lock
// is no error, unless it was ctx that ended the wait. fn must not end the
// transaction. The error is that of beginning, LockTx, fn or the commit. ctx
// covers all of these; the rollback is bounded by itself.
func DoTx[T any](ctx context.Context, begin Beginner[T], key Key, fn func(ctx context.Context, tx T) error, opts ...Option) error {
	const op = "do in transaction"
	r, err := newRequest(op, canShare|canWait|canSkip, opts)
	if err != nil {
		return err
	}
	return doTx(ctx, begin, fn, r, func(conn Conn) *txLock { return newTxLock(op, conn, []Key{key}, r) })
}

// DoTables is [DoTx] for tables: it takes the lock that [LockTables] takes, with
// the same options.
func DoTables[T any](ctx context.Context, begin Beginner[T], tables TableList, fn func(ctx context.Context, tx T) error, opts ...Option) error {
	const op = "do with tables"
	r, err := newRequest(op, canWait|canSkip|hasTables, opts)
	if err != nil {
		return err
	}
	if err := tables.check(op); err != nil {
		return err
	}
	return doTx(ctx, begin, fn, r, func(conn Conn) *txLock { return newTableLock(op, conn, tables, r) })
}

func doTx[T any](
	ctx context.Context, begin Beginner[T], fn func(context.Context, T) error,
	r request, lock func(Conn) *txLock,
) error {
	tx, err := begin(ctx)
	if err != nil {
		return err
	}
	done := false
	defer func() {
		if !done {
			// Nothing is left to be done about a rollback that fails: a driver
			// closes the connection then, which rolls back, too.
			ctx, cancel := cleaning(ctx)
			defer cancel()
			_ = tx.Rollback(ctx)
		}
	}()
	if err := lock(tx.Conn).take(ctx); err != nil {
		return r.orSkip(ctx, err)
	}
	if err := fn(ctx, tx.Tx); err != nil {
		return err
	}
	done = true
	return tx.Commit(ctx)
}
