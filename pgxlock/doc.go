// Package pgxlock lets pglock work through [github.com/jackc/pgx/v5].
//
// # For a Locker
//
// A Locker gets its sessions from [Pool], [Config] or [ConnString]; they are
// connections of its own, dialled with the same configuration, so that a lock
// never takes a connection from the application's work:
//
//	locker, err := pglock.New(pgxlock.Pool(pool))
//
// # For a transaction of yours
//
// What locks in a transaction of the caller's takes it as [Tx], and what works
// on one connection takes it as [Conn]:
//
//	tx, err := pool.Begin(ctx)
//	err = pglock.LockTx(ctx, pgxlock.Tx(tx), pglock.Name("report"), pglock.Wait(time.Second))
//
// [Begin] is for [pglock.DoTx] and [pglock.DoTables], which begin the transaction
// themselves.
//
// # For package inspect
//
// Pool, Conn and Tx run queries, too: inspect.Locks(ctx, pgxlock.Pool(pool)).
package pgxlock
