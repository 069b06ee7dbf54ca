package pglock

import (
	"context"

	"github.com/pglock-go/pglock/driver"
)

// DoTx begins a transaction, takes an advisory lock in it as [LockTx] does, runs fn, and
// commits if fn returns nil. If fn fails or panics, it rolls back. If the lock is not
// acquired, it rolls back without calling fn.
//
//	db := pgxlock.Pool(pool)
//	err := pglock.DoTx(ctx, db, pglock.Name("report"), func(ctx context.Context, tx pgx.Tx) error { ... })
//
// The options are those of LockTx, and [SkipIfHeld]: with it, DoTx returns nil if another
// session holds the lock, unless ctx ended the wait. fn must not end the transaction. The
// error comes from beginning the transaction, LockTx, fn or the commit. ctx covers all of
// these; the rollback ignores ctx and has a time limit of its own.
func DoTx[T any](ctx context.Context, db driver.Beginner[T], key Key, fn func(ctx context.Context, tx T) error, opts ...DoTxOption) error {
	const op = "do in transaction"
	r, err := newRequest(op, opts)
	if err != nil {
		return err
	}
	return doTx(ctx, db, fn, r, func(conn driver.Conn) *txLock { return newTxLock(op, conn, []Key{key}, r) })
}

// DoTables is like [DoTx], but locks tables as [LockTables] does. The options are those
// of LockTables, and [SkipIfHeld].
func DoTables[T any](ctx context.Context, db driver.Beginner[T], tables TableList, fn func(ctx context.Context, tx T) error, opts ...DoTableOption) error {
	const op = "do with tables"
	r, err := newRequest(op, opts)
	if err != nil {
		return err
	}
	if err := tables.check(op); err != nil {
		return err
	}
	return doTx(ctx, db, fn, r, func(conn driver.Conn) *txLock { return newTableLock(op, conn, tables, r) })
}

func doTx[T any](
	ctx context.Context, db driver.Beginner[T], fn func(context.Context, T) error,
	r request, lock func(driver.Conn) *txLock,
) error {
	tx, err := db.Begin(ctx)
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
	if err := fn(ctx, tx.Native); err != nil {
		return err
	}
	done = true
	return tx.Commit(ctx)
}
