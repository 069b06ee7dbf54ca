package pglocktest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/driver"
)

// This file has the checks of pglock's functions in a transaction.

func (s connSuite) lockTx(t testing.TB) {
	outside := Key(t, s.source, key())
	tx := s.start(t)
	ctx, cancel := timeoutCtx()
	defer cancel()
	if err := pglock.LockTx(ctx, tx, key()); err != nil {
		t.Fatal(err)
	}
	s.heldBy(t, outside, tx)
	// ROLLBACK TO a savepoint releases what was locked after it.
	second := Key(t, s.source, pglock.Pair(-1, 2))
	exec(t, tx, `SAVEPOINT a`)
	if err := pglock.LockTx(ctx, tx, pglock.Pair(-1, 2), pglock.Shared()); err != nil {
		t.Fatal(err)
	}
	s.heldBy(t, second, tx)
	exec(t, tx, `ROLLBACK TO SAVEPOINT a`)
	second.WantFree()
	s.heldBy(t, outside, tx)
}

// heldBy checks that the transaction holds a lock.
func (s connSuite) heldBy(t testing.TB, lock *Lock, tx tx) {
	t.Helper()
	if pids := join(lock.AwaitHeld()); pids != pid(t, tx) {
		t.Errorf("pids %s hold %s, want the transaction's pid %s", pids, lock.name, pid(t, tx))
	}
}

func (s connSuite) tryLockTx(t testing.TB) {
	outside := Key(t, s.source, key())
	tx := s.start(t)
	ctx, cancel := timeoutCtx()
	defer cancel()
	outside.Hold()
	was := pid(t, tx)
	if err := pglock.TryLockTx(ctx, tx, key()); !errors.Is(err, pglock.ErrNotAcquired) {
		t.Fatalf("a lock held by another session: %v, want ErrNotAcquired", err)
	}
	want(t, tx, was, pidSQL)
	outside.Release()
	if err := pglock.TryLockTx(ctx, tx, key()); err != nil {
		t.Fatal(err)
	}
	s.heldBy(t, outside, tx)
}

func (s connSuite) lockTxWaits(t testing.TB) {
	outside := Key(t, s.source, key())
	tx := s.start(t)
	ctx, cancel := timeoutCtx()
	defer cancel()
	exec(t, tx, `SET LOCAL lock_timeout = '1234ms'; SET LOCAL statement_timeout = '56789ms'`)
	was := pid(t, tx)
	holder := outside.Hold()
	err := pglock.LockTx(ctx, tx, key(), pglock.Wait(30*time.Millisecond))
	var e *pglock.Error
	switch {
	case !errors.Is(err, pglock.ErrNotAcquired) || !errors.As(err, &e):
		t.Fatalf("after the wait: %v, want ErrNotAcquired", err)
	case !slices.ContainsFunc(e.Holders, func(h pglock.Holder) bool { return h.PID == holder }):
		t.Errorf("the error does not name the holder, pid %d: %v", holder, err)
	}
	want(t, tx, was, pidSQL)
	want(t, tx, "1234ms", `SHOW lock_timeout`)
	want(t, tx, "56789ms", `SHOW statement_timeout`)

	result := make(chan error, 1)
	go func() { result <- pglock.LockTx(ctx, tx, key(), pglock.Wait(timeout)) }()
	if pids := join(outside.AwaitWaiters(1)); pids != was {
		t.Errorf("pids %s wait, want the transaction's pid %s", pids, was)
	}
	outside.Release()
	if err := within(t, result, "LockTx waits for a free lock"); err != nil {
		t.Fatal(err)
	}
	s.heldBy(t, outside, tx)
	want(t, tx, "1234ms", `SHOW lock_timeout`)
}

func (s connSuite) lockAllTx(t testing.TB) {
	keys := []pglock.Key{pglock.Pair(-1, 2), key(), pglock.Int(-3)}
	outside := Key(t, s.source, key())
	tx := s.start(t)
	ctx, cancel := timeoutCtx()
	defer cancel()
	outside.Hold()
	if err := pglock.LockAllTx(ctx, tx, keys, pglock.NoWait()); !errors.Is(err, pglock.ErrNotAcquired) {
		t.Fatalf("several locks, one of them held by another session: %v, want ErrNotAcquired", err)
	}
	outside.Release()
	for _, k := range keys {
		wantFree(t, s.source, k)
	}
	if err := pglock.LockAllTx(ctx, tx, keys, pglock.Wait(timeout)); err != nil {
		t.Fatal(err)
	}
	for _, k := range keys {
		other := Key(t, s.source, k)
		s.heldBy(t, other, tx)
		other.observer.Close()
	}
}

func (s connSuite) lockTables(t testing.TB) {
	table := s.table(t)
	outside := Table(t, s.source, table, pglock.Share)
	tx := s.start(t)
	ctx, cancel := timeoutCtx()
	defer cancel()
	was := pid(t, tx)
	outside.Hold()
	tables := pglock.Tables(table)
	for _, opt := range []waitOption{pglock.NoWait(), pglock.Wait(30 * time.Millisecond)} {
		if err := pglock.LockTables(ctx, tx, tables, pglock.In(pglock.RowExclusive), opt); !errors.Is(err, pglock.ErrNotAcquired) {
			t.Fatalf("a table locked by another session: %v, want ErrNotAcquired", err)
		}
		want(t, tx, was, pidSQL)
	}
	if err := pglock.LockTables(ctx, tx, pglock.Tables("pglocktest.nope")); stateOf(err) != "3F000" {
		t.Errorf("a missing schema: %v, want SQLState 3F000", err)
	}
	result := make(chan error, 1)
	go func() {
		result <- pglock.LockTables(ctx, tx, tables, pglock.In(pglock.RowExclusive), pglock.Wait(timeout))
	}()
	outside.AwaitWaiters(1)
	outside.Release()
	if err := within(t, result, "LockTables waits for a free table"); err != nil {
		t.Fatal(err)
	}
	s.heldBy(t, outside, tx)
	want(t, tx, was, pidSQL)
}

func (s connSuite) withLockTimeout(t testing.TB) {
	outside := Key(t, s.source, key())
	tx := s.start(t)
	exec(t, tx, `SET LOCAL lock_timeout = '1234ms'`)
	checkTimeouts(t, tx, "1234ms")

	// A timeout aborts the transaction, but leaves the session usable.
	outside.Hold()
	was := pid(t, tx)
	exec(t, tx, `SAVEPOINT a`)
	ctx, cancel := timeoutCtx()
	defer cancel()
	err := pglock.WithLockTimeout(ctx, tx, 20*time.Millisecond, func(ctx context.Context) error {
		return tx.Exec(ctx, lockKeySQL(key()))
	})
	if stateOf(err) != "55P03" {
		t.Fatalf("waiting past lock_timeout: %v, want SQLState 55P03", err)
	}
	exec(t, tx, `ROLLBACK TO SAVEPOINT a`)
	want(t, tx, was, pidSQL)
	want(t, tx, "1234ms", `SHOW lock_timeout`)
}

// lockKeySQL returns a statement that locks a 64-bit key in a transaction.
func lockKeySQL(k pglock.Key) string {
	return fmt.Sprintf(`SELECT pg_advisory_xact_lock(%d)`, k.ID())
}

// checkTimeouts checks that timeouts nest, and that the previous setting is restored.
func checkTimeouts(t testing.TB, conn driver.Conn, before string) {
	t.Helper()
	ctx, cancel := timeoutCtx()
	defer cancel()
	errStop := errors.New("stop")
	err := pglock.WithLockTimeout(ctx, conn, 5*time.Second, func(ctx context.Context) error {
		want(t, conn, "5s", `SHOW lock_timeout`)
		if err := pglock.WithLockTimeout(ctx, conn, pglock.NoTimeout, func(context.Context) error {
			want(t, conn, "0", `SHOW lock_timeout`)
			return nil
		}); err != nil {
			t.Error(err)
		}
		want(t, conn, "5s", `SHOW lock_timeout`)
		return errStop
	})
	if err != errStop {
		t.Errorf("got %v, want the function's error", err)
	}
	want(t, conn, before, `SHOW lock_timeout`)
}

// inTransaction checks the optional method InTransaction.
func (s connSuite) inTransaction(t testing.TB) {
	tx := s.start(t)
	checkInTransaction(t, tx.Conn, true)
	ctx, cancel := timeoutCtx()
	defer cancel()
	_ = tx.Exec(ctx, `SELECT 1/0`)
	checkInTransaction(t, tx.Conn, true)
}

func checkInTransaction(t testing.TB, conn driver.Conn, want bool) {
	t.Helper()
	reporter, ok := conn.(interface {
		InTransaction() (open, known bool)
	})
	if !ok {
		return
	}
	if open, known := reporter.InTransaction(); known && open != want {
		t.Errorf("InTransaction is %v, want %v", open, want)
	}
}

func (s connSuite) contextEndsAWait(t testing.TB) {
	outside := Key(t, s.source, key())
	outside.Hold()
	tx := s.start(t)
	was := pid(t, tx)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	result := make(chan error, 1)
	go func() { result <- pglock.LockTx(ctx, tx, key()) }()
	outside.AwaitWaiters(1)
	cancel()
	err := within(t, result, "LockTx continues after its context has ended")
	// A driver that closes the connection does not learn whether the lock was held.
	if !errors.Is(err, context.Canceled) || !errors.Is(err, pglock.ErrNotAcquired) && !errors.Is(err, pglock.ErrUnavailable) {
		t.Errorf("a wait that ctx ended: %v, want ErrNotAcquired or ErrUnavailable, and ctx's own error", err)
	}

	// Either the transaction continues unchanged, or it has ended. It never continues in
	// another session.
	if now, err := queryAll(tx, pidSQL); err == nil && now != was {
		t.Errorf("the transaction continues in another session: backend %s, was %s", now, was)
	} else if err != nil {
		ended, cancel := timeoutCtx()
		defer cancel()
		_ = tx.rollback(ended)
		if err := tx.Exec(ended, `SELECT 1`); err == nil {
			t.Error("a transaction that is over runs a statement")
		}
	}
	// No session waits for the lock any more, which would acquire it now.
	for deadline := time.Now().Add(timeout); len(outside.sessions(sessionsSQL, false)) > 0; time.Sleep(pollInterval) {
		if time.Now().After(deadline) {
			t.Fatal("the session still waits for the lock after ctx ended the wait")
		}
	}
	outside.Release()
	outside.WantFree()
}

func (s connSuite) sessionIsLost(t testing.TB) {
	outside := Key(t, s.source, key())
	tx := s.start(t)
	ctx, cancel := timeoutCtx()
	defer cancel()
	if err := pglock.LockTx(ctx, tx, key()); err != nil {
		t.Fatal(err)
	}
	was, err := strconv.Atoi(pid(t, tx))
	if err != nil {
		t.Fatal(err)
	}
	if pids := outside.Terminate(); len(pids) != 1 || pids[0] != int32(was) {
		t.Fatalf("the lock was held by %v, want pid %d", pids, was)
	}
	if err := tx.Exec(ctx, `SELECT 1`); err == nil {
		t.Error("a statement succeeds although the session was terminated")
	}
	if _, err := queryAll(tx, `SELECT 'a'`); err == nil {
		t.Error("a query succeeds although the session was terminated")
	}
	if err := tx.commit(ctx); err == nil {
		t.Error("the commit succeeds although the session was terminated")
	}
	outside.WantFree()

	// The next transaction works.
	next := s.start(t)
	if err := pglock.LockTx(ctx, next, key()); err != nil {
		t.Fatal(err)
	}
}
