// Package pgxlock lets pglock work through [github.com/jackc/pgx/v5].
//
// One value, made by [Pool], [Config] or [ConnString], serves every package:
//
//	db := pgxlock.Pool(pool)
//	locker, err := pglock.New(db)
//	err = pglock.DoTx(ctx, db, key, func(ctx context.Context, tx pgx.Tx) error { ... })
//	err = prioritize.Run(ctx, db, func(ctx context.Context, conn *pgx.Conn) error { ... })
//	locks, err := inspect.Locks(ctx, db)
//
// The sessions of a Locker are separate connections with the same configuration, so locks
// never use up the pool's connections. Transactions and the connections of package
// prioritize come from the pool.
//
// # For your own transaction
//
// Functions that lock in the caller's transaction accept it as [Tx], and functions that
// work on one connection accept it as [Conn]:
//
//	tx, err := pool.Begin(ctx)
//	err = pglock.LockTx(ctx, pgxlock.Tx(tx), pglock.Name("report"), pglock.Wait(time.Second))
//
// Both also run queries for package inspect.
package pgxlock
