// Package inspect sees the locks of a Postgres server and ends the sessions
// behind them: what is locked, by whom, since when, who waits for whom, and whom
// to end.
//
// [Locks] are the rows of pg_locks with what their sessions do. They are read
// through a [pglock.Querier]: package pgxlock and package sqllock make one from
// a pool, a connection or a transaction.
//
//	locks, err := inspect.Locks(ctx, pgxlock.Pool(pool))
//
// Reading locks nothing but the catalogs it reads, and changes no setting. Like
// every reader of pg_locks it stops the server's lock manager for the moment of
// the copy, so it is not for a tight loop.
package inspect
