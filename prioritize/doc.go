// Package prioritize clears the way for what must not wait behind others, such as
// a migration.
//
// [Retry] is patience: it runs a function under a short lock_timeout, and again
// after a pause when that was not enough, so that nobody else waits long behind
// it. Its error says who was in the way.
//
//	err := prioritize.Retry(ctx, source, conn, migrate, prioritize.Budget(10*time.Minute))
//
// [Run] is impatience: while a function runs on a connection, whoever blocks that
// connection is cancelled or terminated, under rules.
//
//	err := prioritize.Run(ctx, source, conn, migrate,
//		prioritize.After(time.Second), prioritize.CancelThenTerminate(5*time.Second))
//
// [RunFor] does the same for sessions that are not ours to hold, such as those of
// another program.
//
// # Whom it ends
//
// Nobody, unless a policy is given: without one, Run only reports. With one, only
// who blocks the connection at the very moment of the signal, has done so for the
// whole grace, and holds what is in the way. A session that merely stands ahead
// in the queue is a victim as well, and is spared unless [ClearQueue] is given;
// one that blocks a blocker is never touched. Sessions of superusers
// (but not of our own role), autovacuum and other processes of the server's own are
// spared unless they are named with [Allow]; the sessions of the run itself always.
//
// Other runs of this package, and their sessions, are spared as well: whoever is blocked
// waits until that run has ended. They are known by advisory locks of their watchers, and
// not by name. If runs wait for each other in a way that Postgres does not see as a
// deadlock, the oldest acts after a while, and the younger yield.
//
// # What it costs
//
// The watcher has a session of its own. As long as nobody is blocked it looks at
// what the one backend waits for a few times a second, which touches no lock of
// the server's. Whether its role may see that or not, a wait is noticed: when it
// may not, it asks pg_blocking_pids each time, which is dearer.
package prioritize
