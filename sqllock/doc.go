// Package sqllock lets pglock work through database/sql and libraries built on it: GORM,
// Bun, ent, sqlx and others. It imports only the standard library, and is tested with the
// drivers of pgx ([github.com/jackc/pgx/v5/stdlib]) and lib/pq.
//
// One value, made by [DB], [Connector] or [ConnString], serves every package:
//
//	db := sqllock.DB(sqlDB)
//	locker, err := pglock.New(db)
//	err = pglock.DoTx(ctx, db, key, func(ctx context.Context, tx *sql.Tx) error { ... })
//	err = prioritize.Run(ctx, db, func(ctx context.Context, conn *sql.Conn) error { ... })
//	locks, err := inspect.Locks(ctx, db)
//
// With DB, the sessions of a Locker are connections of the application's pool. With the
// other two they are separate connections.
//
// # For your own transaction
//
// Functions that lock in the caller's transaction accept it as [Tx], and functions that
// work on one connection accept it as [Conn]:
//
//	tx, err := db.BeginTx(ctx, nil)
//	err = pglock.LockTx(ctx, sqllock.Tx(tx), pglock.Name("report"), pglock.Wait(time.Second))
//
// With [BeginFunc], [pglock.DoTx] and [pglock.DoTables] begin the transactions of an ORM.
// docs/orms.md in the repository has a program for each.
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
