// Package inspect sees the locks of a Postgres server and ends the sessions
// behind them: what is locked, by whom, since when, who waits for whom, and whom
// to end.
//
// It reads through a [pglock.Querier]: package pgxlock and package sqllock make
// one from a pool, a connection or a transaction.
//
// # A server that hangs
//
// Who waits, for longer than five seconds, and for whom? End those who hold what is
// waited for and do nothing:
//
//	q := pgxlock.Pool(pool) // or sqllock.DB(db)
//	pairs, err := inspect.Blocked(ctx, q,
//		inspect.Where("wait_duration", ">", "5s"),
//		inspect.Where("blocking_state", "=", "idle in transaction"))
//	outcomes, err := inspect.Terminate(ctx, q, inspect.BlockersOf(pairs))
//
// Each session has an [Outcome]; one that has let go meanwhile, or that we may not
// end, is left alone and says so. Nobody is ended but the session that was seen.
//
// # What there is
//
//   - [Locks] are the rows of pg_locks with what their sessions do; [Where], [On]
//     and [PIDs] choose among them.
//   - [Blocked] are the pairs of sessions of which one waits for the other.
//   - [Take] is both at once, and [Snapshot.Forest] the trees of who waits for whom.
//   - [Cancel] and [Terminate] end what [SessionsOf] and [BlockersOf] choose, and
//     say what became of each.
//   - [Annotate] lets an application say what its statements are for.
//
// # What it costs
//
// Reading locks nothing but the catalogs it reads, and changes no setting. Like
// every reader of pg_locks it stops the server's lock manager for the moment of
// the copy, so it is not for a tight loop. pg_blocking_pids, which does so again,
// is asked once for each session that waits.
//
// # What it may see
//
// Any role sees all locks and who blocks whom. What the sessions of other roles do
// is seen by superusers and by members of pg_read_all_stats, and who may end them
// is a matter of roles too: [Server.Grants] are the statements that would help.
package inspect
