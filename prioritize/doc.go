// Package prioritize clears the way for statements that must not wait behind other
// sessions, such as a migration.
//
// [Retry] waits politely: it runs a function under a short lock_timeout, and runs it
// again after a pause if the function did not get its locks. Nobody waits long behind
// it. Its error names the blockers.
//
//	db := pgxlock.Pool(pool) // or sqllock.DB(sqlDB)
//	err := prioritize.Retry(ctx, db, migrate, prioritize.Budget(10*time.Minute))
//
// [Run] acts: while a function runs on a connection, Run cancels or terminates the
// sessions that block that connection, under rules.
//
//	err := prioritize.Run(ctx, db, migrate,
//		prioritize.After(time.Second), prioritize.CancelThenTerminate(5*time.Second))
//
// Both acquire a connection and hand the driver's own to the function. [RetryOn] and
// [RunOn] work on the caller's connection or transaction. [RunFor] acts for sessions that
// the caller has no connection to, such as those of another program.
//
// # Which sessions it ends
//
// None, unless a policy is given: without one, Run only reports. With a policy it
// ends only a session that blocks the connection at the moment of the signal, has
// blocked it for the whole grace, and holds a conflicting lock. A session that is
// only ahead in the lock queue is a blocker too, but it is spared unless [ClearQueue]
// is given. A session that blocks a blocker is never touched. Sessions of superusers
// (other than our own role), autovacuum and other background processes are spared
// unless [Allow] names them. The sessions of the run itself are always spared.
//
// Other runs of this package, and their sessions, are spared as well: the blocked
// session waits until that run has ended. Runs recognize each other by advisory locks
// that their watchers hold, not by name. If runs wait for each other in a cycle that
// Postgres does not see as a deadlock, the oldest one acts after a while, and the
// younger ones yield.
//
// # What it costs
//
// The watcher has its own session. Until something blocks, it reads the wait state of
// one backend a few times a second, which takes no lock of the server's lock manager.
// A wait is noticed even if the watcher's role may not see that state; it then calls
// pg_blocking_pids each time, which costs more.
package prioritize
