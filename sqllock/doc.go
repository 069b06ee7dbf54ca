// Package sqllock lets pglock work through database/sql and what is built on it:
// GORM, Bun, ent, sqlx and others. It imports the standard library alone, and is
// tested with the drivers of pgx ([github.com/jackc/pgx/v5/stdlib]) and of lib/pq.
//
// # For a Locker
//
// A Locker gets its sessions from [Connector] or [ConnString], which open
// connections of their own, or from [DB], which takes them out of the
// application's pool:
//
//	locker, err := pglock.New(sqllock.ConnString("pgx", dsn)) // or sqllock.DB(db)
//
// # For a transaction of yours
//
// What locks in a transaction of the caller's takes it as [Tx], and what works
// on one connection takes it as [Conn]:
//
//	tx, err := db.BeginTx(ctx, nil)
//	err = pglock.LockTx(ctx, sqllock.Tx(tx), pglock.Name("report"), pglock.Wait(time.Second))
//
// [Begin] and [BeginFunc] are for [pglock.DoTx] and [pglock.DoTables], which begin
// the transaction themselves. docs/orms.md of the repository has a program for each
// of the ORMs.
//
// # Drivers
//
// database/sql has no way to listen to a connection that does nothing. With
// pgx the session of a Locker listens on the connection beneath and hears at
// once that it is lost; with lib/pq the Locker asks now and then.
//
// pglock's statements leave no prepared statement on a connection or in a transaction of
// the program's: lib/pq prepares none, and pgx is told not to, whatever the connection
// string says. That needs pgx' own driver: where another one is around it, such as one
// that traces, pgx prepares pglock's statements as it does the program's, and behind a
// pooler of transactions default_query_exec_mode=exec in the connection string keeps it
// from that.
//
// When a context ends while a statement runs, both drivers give the connection
// up and tell the server to stop. A transaction on it is over then.
package sqllock
