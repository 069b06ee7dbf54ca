package pglocktest

import (
	"context"
	"errors"
	"testing"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/driver"
)

// connChecks returns the checks of a connection, on which transactions begin with BEGIN.
func connChecks(source driver.Source, open func(testing.TB) driver.Conn) []check {
	s := connSuite{source, func(ctx context.Context, t testing.TB) (tx, error) {
		conn := open(t)
		end := func(sql string) func(context.Context) error {
			return func(ctx context.Context) error { return conn.Exec(ctx, sql) }
		}
		return tx{conn, end(`COMMIT`), end(`ROLLBACK`)}, conn.Exec(ctx, `BEGIN`)
	}}
	return append(s.checks(),
		check{"NoTransaction", func(t testing.TB) { noTransaction(t, source, open(t)) }},
		check{"WithLockTimeoutOfTheSession", func(t testing.TB) {
			conn := open(t)
			exec(t, conn, `SET lock_timeout = '4321ms'`)
			checkTimeouts(t, conn, "4321ms")
			checkInTransaction(t, conn, false)
		}},
	)
}

// txChecks returns the checks of transactions that the driver begins.
func txChecks[T any](source driver.Source, db driver.Beginner[T]) []check {
	s := connSuite{source, func(ctx context.Context, _ testing.TB) (tx, error) {
		b, err := db.Begin(ctx)
		return tx{b.Conn, b.Commit, b.Rollback}, err
	}}
	b := beginSuite[T]{s, db}
	return append(s.checks(),
		check{"CommitOfAnAbortedTransaction", s.commitOfAborted},
		check{"BeginUntilContextEnds", b.beginUntilContextEnds},
		check{"RollbackAfterContextEnds", b.rollbackAfterContextEnds},
		check{"DoTx", b.doTx},
		check{"DoTables", b.doTables},
	)
}

// A beginFunc is a function that is a [driver.Beginner].
type beginFunc[T any] func(context.Context) (driver.Tx[T], error)

func (f beginFunc[T]) Begin(ctx context.Context) (driver.Tx[T], error) { return f(ctx) }

// A doOption is an option of DoTx and of DoTables.
type doOption interface {
	pglock.DoTxOption
	pglock.DoTableOption
}

// noTransaction checks that a lock outside a transaction is refused, since Postgres would
// release it at once.
func noTransaction(t testing.TB, source driver.Source, conn driver.Conn) {
	ctx, cancel := timeoutCtx()
	defer cancel()
	was := pid(t, conn)
	for range 2 {
		if err := pglock.LockTx(ctx, conn, key()); !errors.Is(err, pglock.ErrNoTransaction) {
			t.Errorf("a lock outside a transaction: %v, want ErrNoTransaction", err)
		}
		want(t, conn, was, pidSQL)
	}
	wantFree(t, source, key())
}

func (s connSuite) commitOfAborted(t testing.TB) {
	table := s.table(t)
	tx := s.start(t)
	exec(t, tx, `INSERT INTO `+table+` VALUES (1)`)
	fails(t, tx, "22012", `SELECT 1/0`)
	ctx, cancel := timeoutCtx()
	defer cancel()
	if err := tx.commit(ctx); err == nil {
		t.Error("the commit of an aborted transaction succeeds, although Postgres rolls it back")
	}
	if got := s.count(t, table); got != "0" {
		t.Errorf("%s rows were committed", got)
	}
}

// A beginSuite has the checks of beginning a transaction.
type beginSuite[T any] struct {
	connSuite
	db driver.Beginner[T]
}

func (s beginSuite[T]) beginUntilContextEnds(t testing.TB) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	b, err := s.db.Begin(ctx)
	if err == nil {
		t.Error("a transaction begins although its context has ended")
		_ = b.Rollback(context.Background())
	}
}

func (s beginSuite[T]) rollbackAfterContextEnds(t testing.TB) {
	outside := Key(t, s.source, key())
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	b, err := s.db.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := pglock.LockTx(ctx, b.Conn, key()); err != nil {
		t.Fatal(err)
	}
	cancel()
	ended, done := timeoutCtx()
	defer done()
	_ = b.Rollback(ended) // the driver may already have done it
	outside.AwaitFree()
}

func (s beginSuite[T]) doTx(t testing.TB) {
	s.do(t, Key(t, s.source, key()), func(ctx context.Context, db driver.Beginner[T], fn func(context.Context, T) error, opts ...doOption) error {
		var all []pglock.DoTxOption
		for _, opt := range opts {
			all = append(all, opt)
		}
		return pglock.DoTx(ctx, db, key(), fn, all...)
	})
}

func (s beginSuite[T]) doTables(t testing.TB) {
	table := s.tableNamed(t, "pglocktest_locked")
	s.do(t, Table(t, s.source, table, 0), func(ctx context.Context, db driver.Beginner[T], fn func(context.Context, T) error, opts ...doOption) error {
		var all []pglock.DoTableOption
		for _, opt := range opts {
			all = append(all, opt)
		}
		return pglock.DoTables(ctx, db, pglock.Tables(table), fn, all...)
	})
}

// do checks a function that begins a transaction, locks, runs a function, and ends the
// transaction.
func (s beginSuite[T]) do(t testing.TB, outside *Lock, do func(context.Context, driver.Beginner[T], func(context.Context, T) error, ...doOption) error) {
	ctx, cancel := timeoutCtx()
	defer cancel()
	table := s.table(t)
	// The function receives the driver's handle; Conn is the same transaction.
	var conn driver.Conn
	db := beginFunc[T](func(ctx context.Context) (driver.Tx[T], error) {
		b, err := s.db.Begin(ctx)
		conn = b.Conn
		return b, err
	})
	insert := func(context.Context, T) error {
		exec(t, conn, `INSERT INTO `+table+` VALUES (1)`)
		if pids := join(outside.AwaitHeld()); pids != pid(t, conn) {
			t.Errorf("pids %s hold %s, want the transaction's pid %s", pids, outside.name, pid(t, conn))
		}
		return nil
	}
	rows := func(after, want string) {
		t.Helper()
		if got := s.count(t, table); got != want {
			t.Errorf("%s: %s rows are kept, want %s", after, got, want)
		}
		outside.WantFree()
	}

	if err := do(ctx, db, insert); err != nil {
		t.Fatal(err)
	}
	rows("after a commit", "1")

	errStop := errors.New("stop")
	if err := do(ctx, db, func(ctx context.Context, tx T) error {
		return errors.Join(insert(ctx, tx), errStop)
	}); !errors.Is(err, errStop) {
		t.Errorf("got %v, want the function's error", err)
	}
	rows("after an error", "1")

	func() {
		defer func() { _ = recover() }()
		_ = do(ctx, db, func(ctx context.Context, tx T) error {
			_ = insert(ctx, tx)
			panic(errStop)
		})
	}()
	rows("after a panic", "1")

	outside.Hold()
	never := func(context.Context, T) error {
		t.Error("the function runs without the lock")
		return nil
	}
	if err := do(ctx, db, never, pglock.NoWait()); !errors.Is(err, pglock.ErrNotAcquired) {
		t.Errorf("a lock held by another session: %v, want ErrNotAcquired", err)
	}
	if err := do(ctx, db, never, pglock.NoWait(), pglock.SkipIfHeld()); err != nil {
		t.Errorf("a lock held by another session, with SkipIfHeld: %v", err)
	}
	outside.Release()
	rows("after a lock that was not acquired", "1")
}
