// Package pglock takes locks in Postgres, for programs that must do a thing one
// at a time on however many machines: advisory locks, and whole tables. Its
// neighbours see and end locks (package inspect) and clear the way for work that
// cannot wait (package prioritize).
//
// # A lock around a function
//
// A [Locker] takes advisory locks. Give it the pool that the program has; it
// dials sessions of its own with the same settings, so that a lock never takes a
// connection from the program's work:
//
//	locker, err := pglock.New(pgxlock.Pool(pool))
//	defer locker.Close()
//
//	err = locker.Do(ctx, pglock.Name("nightly-report"), func(ctx context.Context) error {
//		return report(ctx)
//	})
//
// On every machine that runs this, one report runs at a time. The ctx inside is
// cancelled, with [ErrLost] as its cause, the moment the lock is lost: when its
// session was terminated, the server stopped, or the network went away. Work
// that heeds its ctx then stops, and another machine may begin.
//
// # Not waiting, and waiting for a time
//
// A lock is waited for as long as ctx lasts. Options change that, and are the
// same for all verbs:
//
//	locker.Do(ctx, key, report, pglock.NoWait(), pglock.SkipIfHeld()) // not now, then not at all
//	locker.Do(ctx, key, report, pglock.Wait(2*time.Second))           // or ErrNotAcquired
//	locker.Do(ctx, key, report, pglock.Shared())                      // with other readers
//
// That another holds the lock is an ordinary outcome, [ErrNotAcquired]; the
// [*Error] around it tells who. A connection that broke is another matter and
// never looks like it.
//
// # A handle
//
// Where a closure does not fit, [Locker.Lock] and [Locker.TryLock] return a
// [Lock], whose Done tells of its loss. [Locker.LockAll] takes several, or none,
// in an order in which callers never deadlock. [Locker.Wrap] gives a function
// its own lock, by its name.
//
// # In a transaction
//
// A lock that guards rows belongs into the transaction that changes them:
// [LockTx] takes it there, and COMMIT or ROLLBACK frees it, at the moment when
// others can see the change. It is also the form for connection poolers, which
// a Locker refuses ([ErrPooler]). [LockTables] locks whole tables.
//
// # Keys
//
// [Name] maps any text to the number that Postgres locks, in the same way as
// Python's django-pglock does; [Int] and [Pair] are Postgres' own two kinds of
// numbers. A lock belongs to a database, not to a server.
//
// # What is promised, and what is not
//
// Postgres decides who holds a lock, and pglock believes nothing else: every
// boolean that it answers is read, and a session that leaves a doubt is closed,
// which frees its locks. So no handle claims what it does not hold, and no lock
// is held for which there is no handle. But no lock can stop work that goes on
// after its loss: between the loss and the cancelled ctx lies an instant, and a
// process that sleeps through it (a paused virtual machine) notices only when it
// wakes. What must not happen twice even then needs a check of its own where it
// writes.
package pglock
