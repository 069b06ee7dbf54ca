// Package inspect reads the locks of a Postgres server and ends the sessions behind
// them: what is locked, by which session, since when, which sessions wait for which,
// and which ones to end.
//
// It reads through a [driver.Querier]: package pgxlock and package sqllock make one
// from a pool, a connection or a transaction.
//
// # A server that hangs
//
// Find the sessions that have waited for longer than five seconds, and end their
// blockers that are idle in a transaction:
//
//	q := pgxlock.Pool(pool) // or sqllock.DB(db)
//	pairs, err := inspect.Blocked(ctx, q,
//		inspect.Where("wait_duration", ">", "5s"),
//		inspect.Where("blocking_state", "=", "idle in transaction"))
//	outcomes, err := inspect.Terminate(ctx, q, inspect.BlockersOf(pairs), inspect.OnlyRoots())
//
// Each session gets an [Outcome]. A session that waits itself is left alone, since it
// goes on when the others have ended. A session that has released its lock meanwhile, or
// that we may not end, is left alone, and its Outcome reports that. Only the session
// that was seen is ended, never another one with the same PID.
//
// # Overview
//
//   - [Locks] returns the rows of pg_locks together with their sessions; [Where], [On]
//     and [PIDs] select among them.
//   - [Blocked] returns pairs of sessions of which one waits for the other.
//   - [Sessions] returns sessions, also those that hold no lock.
//   - [Leases] returns the leases of pglock.Leases, which are no locks of the server.
//   - [ReadSnapshot] returns locks and pairs at once, and [Snapshot.Forest] the trees
//     of waiting sessions.
//   - [Cancel] and [Terminate] end what [SessionsOf], [BlockersOf] and [VictimsOf]
//     select, and return an outcome for each.
//   - [Annotate] lets an application record what its statements are for.
//
// # What it costs
//
// Reading locks nothing but the catalogs it reads, and changes no setting. Like every
// read of pg_locks it blocks the server's lock manager while the locks are copied, so
// it is not for a tight loop. pg_blocking_pids, which does the same, is called once
// for each waiting session, except in long queues: see [Blocked].
//
// # What it may see
//
// Any role sees all locks and blockers. Only superusers and members of
// pg_read_all_stats see the activity of other roles' sessions, and only some roles
// may end them: [Server.Grants] returns the statements that would help.
package inspect
