// Package pglock takes Postgres locks so that a job runs on one machine at a time:
// advisory locks, and locks on whole tables. Package inspect lists locks and ends
// sessions, package prioritize clears the way for urgent work, and package doctor checks
// whether a database is set up well for all this.
//
// # A lock around a function
//
// A [Locker] takes advisory locks. Give it the program's connection pool: it opens a few
// sessions with the same settings, so locks never use up the pool's connections.
//
//	locker, err := pglock.New(pgxlock.Pool(pool))
//	defer locker.Close()
//
//	err = locker.Do(ctx, pglock.Name("nightly-report"), func(ctx context.Context) error {
//		return report(ctx)
//	})
//
// If every machine runs this, only one report runs at a time. If the lock is lost,
// because its session was terminated, the server stopped or the network failed, the ctx
// passed to the function is canceled with [ErrLost] as its cause. Work that respects its
// ctx then stops, and another machine may start.
//
// # Waiting
//
// By default, a lock request waits until ctx is done. Options change that. Each function
// accepts those that it supports, so a wrong one does not compile:
//
//	locker.Do(ctx, key, report, pglock.SkipIfHeld())        // run now, or skip it
//	locker.Do(ctx, key, report, pglock.Wait(2*time.Second)) // or ErrNotAcquired
//	locker.Do(ctx, key, report, pglock.Shared())            // with other readers
//
// If another session holds the lock, the error is [ErrNotAcquired], an ordinary outcome;
// the [*Error] that wraps it lists the holders. A broken connection is a different error.
//
// # Handles
//
// Where a function does not fit, [Locker.Lock] and [Locker.TryLock] return a [Lock],
// whose Done channel is closed if the lock is lost. [Locker.LockAll] takes several locks
// or none, in an order that prevents deadlocks between its callers.
//
// # In a transaction
//
// A lock that guards rows belongs in the transaction that changes them. [LockTx] takes it
// there, and COMMIT or ROLLBACK releases it at the moment the change becomes visible. Use
// it behind a connection pooler, where a Locker refuses to work ([ErrPooler]).
// [LockTables] locks whole tables.
//
// # Keys
//
// [Name] maps any text to the number that Postgres locks, exactly as Python's
// django-pglock does. [Int] and [Pair] are the two kinds of numbers that Postgres itself
// accepts. A lock belongs to a database, not to a server.
//
// # Guarantees and limits
//
// Postgres decides who holds a lock, and pglock relies on nothing else. It checks every
// result, and closes any session whose state is uncertain, which releases its locks. So a
// handle never claims a lock that it does not hold, and no lock is held without a handle.
// But no lock can stop work that continues after the lock is lost. There is a moment
// between the loss and the canceled ctx, and a process that is suspended during it, such
// as in a paused virtual machine, notices only when it resumes. If even that must not
// cause duplicate work, check again where the work writes its result.
package pglock
