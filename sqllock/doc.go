// Package sqllock lets pglock work through database/sql and libraries built on it: GORM,
// Bun, ent, sqlx and others. It imports only the standard library, and is tested with the
// drivers of pgx ([github.com/jackc/pgx/v5/stdlib]) and lib/pq.
//
// # For a Locker
//
// A Locker opens its sessions through [Connector] or [ConnString], as separate
// connections, or through [DB], which takes connections from the application's pool:
//
//	locker, err := pglock.New(sqllock.ConnString("pgx", dsn)) // or sqllock.DB(db)
//
// # For your own transaction
//
// Functions that lock in the caller's transaction accept it as [Tx], and functions that
// work on one connection accept it as [Conn]:
//
//	tx, err := db.BeginTx(ctx, nil)
//	err = pglock.LockTx(ctx, sqllock.Tx(tx), pglock.Name("report"), pglock.Wait(time.Second))
//
// [Begin] and [BeginFunc] are for [pglock.DoTx] and [pglock.DoTables], which begin the
// transaction themselves. docs/orms.md in the repository has a program for each of the
// ORMs.
//
// # Drivers
//
// database/sql cannot read from an idle connection. With pgx, the Locker reads from the
// underlying connection and detects the loss of a session at once; with lib/pq, it polls
// the session.
//
// pglock leaves no prepared statement on a connection or in a transaction of the program.
// lib/pq prepares none, and pglock tells pgx not to prepare, whatever the connection
// string says. That needs pgx's own driver. If it is wrapped, for example by a tracing
// driver, pgx prepares pglock's statements like the program's. Behind a transaction
// pooler, set default_query_exec_mode=exec in the connection string to prevent that.
//
// If a context ends while a statement runs, both drivers close the connection and ask the
// server to cancel the statement. A transaction on the connection is then over.
package sqllock
