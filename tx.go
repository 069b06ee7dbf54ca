package pglock

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// LockTx takes an advisory lock in a transaction of the caller's and waits until
// it is had. COMMIT or ROLLBACK frees it; nothing else does, except that ROLLBACK
// TO a savepoint frees what was locked after the savepoint (PostgreSQL manual,
// 9.28.10 "Advisory Lock Functions", pg_advisory_xact_lock).
//
// It is the right form to guard what the transaction writes, as the next holder
// starts when that is committed and not before, and the one that works through a
// transaction pooler such as PgBouncer's. What it reads must be read after the
// lock is had: under REPEATABLE READ and SERIALIZABLE it is not, since the first
// statement settles what the transaction sees, and that is the one which waits
// for the lock. There, take the lock in a [Locker] before the transaction begins,
// or leave it to the isolation level and try again.
//
// The options are [Shared], [Wait] and [NoWait]. With Wait, the time counts alone,
// whatever lock_timeout and statement_timeout the session has; they are as before
// afterwards. With neither, the wait lasts as long as ctx, and as the session's
// own timeouts allow, such as one of [WithLockTimeout].
//
// When the lock is not had the error is [ErrNotAcquired] and has who holds it,
// and the transaction is as it was before: it can go on. So it can after a
// [ErrDeadlock] and a [ErrLockTableFull]. A lock that a [Locker] of the same process holds
// is another session's: inside of [Locker.Do] with the same key, LockTx would wait for
// ever, since Postgres cannot see that the two are one. Its error says so
// ([Holder].Own), if Wait or NoWait lets it end. Outside a transaction it is
// [ErrNoTransaction] and nothing is locked. A session's own statement_timeout
// that ends the wait, or somebody's pg_cancel_backend, is none of these: the
// error has SQLSTATE 57014, and the transaction can go on.
//
// ctx covers the wait. But if it ends during the wait, pgx and lib/pq close the
// connection, and the transaction is over: the error is [ErrUnavailable] and ctx's own,
// since nobody said whether the lock is held. Only a driver that cancels the statement
// instead, as pgx can be told to, keeps the transaction; the error is [ErrNotAcquired]
// then. To give up a wait and go on, use Wait.
func LockTx(ctx context.Context, conn Conn, key Key, opts ...Option) error {
	const op = "lock in transaction"
	r, err := newRequest(op, canShare|canWait, opts)
	if err != nil {
		return err
	}
	return newTxLock(op, conn, []Key{key}, r).take(ctx)
}

// TryLockTx is [LockTx] that answers at once: it takes the lock, or returns
// [ErrNotAcquired] and leaves the transaction as it was. Its error does not say
// who holds the lock: LockTx with [NoWait] takes the time to find out.
func TryLockTx(ctx context.Context, conn Conn, key Key, opts ...Option) error {
	const op = "try lock in transaction"
	r, err := newRequest(op, canShare, opts)
	if err != nil {
		return err
	}
	r.noWait = true
	l := newTxLock(op, conn, []Key{key}, r)
	l.holders = nil
	return l.take(ctx)
}

// LockAllTx is [LockTx] for several keys: it takes the locks of all of them or of
// none. It takes them in one order, which is also that of [Locker.LockAll], and
// each once, whatever the order in which they are given: so its callers never
// deadlock with each other over them. [Wait] bounds the whole call.
func LockAllTx(ctx context.Context, conn Conn, keys []Key, opts ...Option) error {
	const op = "lock all in transaction"
	r, err := newRequest(op, canShare|canWait, opts)
	if err != nil {
		return err
	}
	if len(keys) == 0 {
		return errors.New("pglock: " + op + ": no keys")
	}
	return newTxLock(op, conn, sorted(keys), r).take(ctx)
}

// newTxLock is the taking of keys that are sorted.
func newTxLock(op string, conn Conn, keys []Key, r request) *txLock {
	l := &txLock{
		report:  Error{Op: op, Keys: keys},
		conn:    conn,
		request: r,
		lock:    lockSQL(keys, r.shared),
		limit:   timeouts{whole: len(keys) > 1},
		holders: func(ctx context.Context) ([]Holder, error) {
			return askHolders(ctx, conn, holdersSQL, holdersArgs(keys, r.shared))
		},
	}
	if r.noWait {
		l.try = tryLockSQL(keys, r.shared)
	}
	return l
}

// lockSQL is a statement that takes the keys in their order. It has no
// parameters, so that it can be sent together with others: numbers are all there
// is to it.
func lockSQL(keys []Key, shared bool) string {
	function := "pg_catalog.pg_advisory_xact_lock"
	if shared {
		function += "_shared"
	}
	if len(keys) == 1 {
		return "SELECT " + callSQL(function, keys[0])
	}
	// What the functions return is void, which count cannot take.
	return "SELECT " + textSQL("pg_catalog.count("+eachSQL(textSQL(function+"(%s)"))+")") + fromSQL(keys)
}

// tryLockSQL is a statement that answers with one text, "true" when it took all
// of the keys.
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

// callSQL calls the function that locks a key.
func callSQL(function string, key Key) string {
	if key.pair {
		class, object := key.Pair()
		return fmt.Sprintf("%s('%d'::int, '%d'::int)", function, class, object)
	}
	return fmt.Sprintf("%s('%d'::bigint)", function, key.id)
}

// textSQL is a value as text. A type is Postgres' own only with its schema, except
// for those that are words of SQL, such as bigint: search_path is the caller's.
func textSQL(value string) string { return "CAST(" + value + " AS pg_catalog.text)" }

// eachSQL calls the function for a row of fromSQL. In call, %s stands for the key.
func eachSQL(call string) string {
	return fmt.Sprintf("CASE WHEN k.pair THEN "+call+" ELSE "+call+" END", "k.class, k.object", "k.id")
}

// fromSQL has a row for each key, in their order.
func fromSQL(keys []Key) string {
	rows := make([]string, len(keys))
	for i, key := range keys {
		class, object := key.Pair()
		rows[i] = fmt.Sprintf("('%d'::bigint, '%d'::int, '%d'::int, %t)", key.id, class, object, key.pair)
	}
	return " FROM (VALUES " + strings.Join(rows, ", ") + ") AS k (id, class, object, pair)"
}
