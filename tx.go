package pglock

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/pglock-go/pglock/driver"
)

// LockTx takes an advisory lock in the caller's transaction and waits until it is
// acquired. COMMIT or ROLLBACK releases it; only ROLLBACK TO a savepoint also does, if
// the lock was taken after the savepoint (PostgreSQL manual, 9.28.10 "Advisory Lock
// Functions", pg_advisory_xact_lock).
//
// Use it to guard what the transaction writes, since the next holder starts only after
// the commit, and behind a transaction pooler such as PgBouncer. Data must be read after
// the lock is acquired. That is impossible under REPEATABLE READ and SERIALIZABLE: the
// first statement takes the snapshot, and that is the statement that waits for the lock.
// There, take the lock with a [Locker] before the transaction begins, or rely on the
// isolation level and retry.
//
// The options are [Shared], [Wait] and [NoWait]. With Wait, only its time limit applies,
// whatever the session's lock_timeout and statement_timeout are; they are unchanged
// afterwards. With neither Wait nor NoWait, the wait ends when ctx is done or one of the
// session's own timeouts expires, such as one set by [WithLockTimeout].
//
// If the lock is not acquired, the error is [ErrNotAcquired] with the holders, and the
// transaction is as before and can continue. It can also continue after [ErrDeadlock] and
// [ErrLockTableFull]. A lock held by a [Locker] of the same process belongs to another
// session: inside [Locker.Do] with the same key, LockTx would wait forever, since
// Postgres cannot see that one waits for the other. The error reports such a holder
// ([Holder].Own) if Wait or NoWait ends the wait. Outside a transaction the error is
// [ErrNoTransaction] and nothing is locked. If the session's own statement_timeout or a
// pg_cancel_backend ends the wait, the error has SQLSTATE 57014 and is none of these, and
// the transaction can continue.
//
// ctx covers the wait. But if it ends during the wait, pgx and lib/pq close the
// connection, which ends the transaction. The error is then [ErrUnavailable] with ctx's
// error, since it is unknown whether the lock is held. A driver that cancels the
// statement instead, as pgx can be configured to do, keeps the transaction, and the error
// is [ErrNotAcquired]. To give up waiting and continue the transaction, use Wait.
func LockTx(ctx context.Context, conn driver.Conn, key Key, opts ...TxOption) error {
	const op = "lock in transaction"
	r, err := newRequest(op, opts)
	if err != nil {
		return err
	}
	return newTxLock(op, conn, []Key{key}, r).acquire(ctx)
}

// TryLockTx is like [LockTx], but does not wait: it takes the lock, or returns
// [ErrNotAcquired] and leaves the transaction as it was. Its error does not list the
// holders; LockTx with [NoWait] takes the time to query them.
func TryLockTx(ctx context.Context, conn driver.Conn, key Key, opts ...TryOption) error {
	const op = "try lock in transaction"
	r, err := newRequest(op, opts)
	if err != nil {
		return err
	}
	r.noWait = true
	l := newTxLock(op, conn, []Key{key}, r)
	l.holders = nil
	return l.acquire(ctx)
}

// LockAllTx is like [LockTx] for several keys: it takes the locks of all of them or none.
// It takes them in a fixed order, the same as [Locker.LockAll], and without duplicates,
// whatever the order of keys. So its callers cannot deadlock with each other over them.
// [Wait] limits the whole call.
func LockAllTx(ctx context.Context, conn driver.Conn, keys []Key, opts ...TxOption) error {
	const op = "lock all in transaction"
	r, err := newRequest(op, opts)
	if err != nil {
		return err
	}
	if len(keys) == 0 {
		return errors.New("pglock: " + op + ": no keys")
	}
	return newTxLock(op, conn, sortKeys(keys), r).acquire(ctx)
}

// newTxLock returns a txLock for keys, which must be sorted.
func newTxLock(op string, conn driver.Conn, keys []Key, r request) *txLock {
	l := &txLock{
		report:  Error{Op: op, Keys: keys},
		conn:    conn,
		request: r,
		lock:    lockSQL(keys, r.shared),
		limit:   timeouts{whole: len(keys) > 1},
		holders: func(ctx context.Context) ([]Holder, error) {
			return queryHolders(ctx, conn, holdersSQL, holdersArgs(keys, r.shared))
		},
	}
	if r.noWait {
		l.try = tryLockSQL(keys, r.shared)
	}
	return l
}

// lockSQL returns a statement that takes the keys in their order. It has no parameters,
// so that it can be sent together with others; it contains only numbers.
func lockSQL(keys []Key, shared bool) string {
	function := "pg_catalog.pg_advisory_xact_lock"
	if shared {
		function += "_shared"
	}
	if len(keys) == 1 {
		return "SELECT " + callSQL(function, keys[0])
	}
	// The functions return void, which count does not accept.
	return "SELECT " + textSQL("pg_catalog.count("+eachSQL(textSQL(function+"(%s)"))+")") + fromSQL(keys)
}

// tryLockSQL returns a statement whose result is one text, "true" if it took all of the
// keys.
func tryLockSQL(keys []Key, shared bool) string {
	function := "pg_catalog.pg_try_advisory_xact_lock"
	if shared {
		function += "_shared"
	}
	if len(keys) == 1 {
		return "SELECT " + textSQL(callSQL(function, keys[0]))
	}
	return "SELECT " + textSQL("pg_catalog.bool_and("+eachSQL(function+"(%s)")+")") + fromSQL(keys)
}

// callSQL returns a call of the locking function for a key.
func callSQL(function string, key Key) string {
	if key.pair {
		class, object := key.halves()
		return fmt.Sprintf("%s('%d'::int, '%d'::int)", function, class, object)
	}
	return fmt.Sprintf("%s('%d'::bigint)", function, key.id)
}

// textSQL returns value cast to text. The caller's search_path could replace a type, so
// it is qualified with its schema; types that are SQL keywords, such as bigint, need not
// be.
func textSQL(value string) string { return "CAST(" + value + " AS pg_catalog.text)" }

// eachSQL returns a call of the function for a row of fromSQL. In call, %s stands for the
// key.
func eachSQL(call string) string {
	return fmt.Sprintf("CASE WHEN k.pair THEN "+call+" ELSE "+call+" END", "k.class, k.object", "k.id")
}

// fromSQL returns a FROM clause with a row for each key, in their order.
func fromSQL(keys []Key) string {
	rows := make([]string, len(keys))
	for i, key := range keys {
		class, object := key.halves()
		rows[i] = fmt.Sprintf("('%d'::bigint, '%d'::int, '%d'::int, %t)", key.id, class, object, key.pair)
	}
	return " FROM (VALUES " + strings.Join(rows, ", ") + ") AS k (id, class, object, pair)"
}
