// Package pgxlock lets pglock work through [github.com/jackc/pgx/v5].
//
// # For a Locker
//
// A Locker opens its sessions through [Pool], [Config] or [ConnString]. They are separate
// connections with the same configuration, so locks never use up the pool's connections:
//
//	locker, err := pglock.New(pgxlock.Pool(pool))
//
// # For your own transaction
//
// Functions that lock in the caller's transaction accept it as [Tx], and functions that
// work on one connection accept it as [Conn]:
//
//	tx, err := pool.Begin(ctx)
//	err = pglock.LockTx(ctx, pgxlock.Tx(tx), pglock.Name("report"), pglock.Wait(time.Second))
//
// [Begin] is for [pglock.DoTx] and [pglock.DoTables], which begin the transaction
// themselves.
//
// # For package inspect
//
// Pool, Conn and Tx also run queries: inspect.Locks(ctx, pgxlock.Pool(pool)).
package pgxlock
