// Package trace runs the statements of a migration on a copy of a schema, and reports what
// each of them locks and does before it is run where it matters.
//
//	script, err := trace.Read("0042_orders.sql")
//	report, err := trace.Run(ctx, pgxlock.ConnString(copy), script)
//	for _, s := range report.Statements { ... }
//
// [Parse] cuts a file into statements by the rules of psql, and knows the files of goose,
// golang-migrate, Flyway and Django. It refuses what it would have to guess.
//
// Nothing is concluded from the words of a statement. [Run] measures, so it also sees what
// a function or a trigger does, and needs no rows for it:
//
//   - the locks, read by another session while the statement's transaction is open;
//   - the file node of each table before and after, which a rewrite changes;
//   - the counters of scans in the transaction;
//   - the changes in the catalogs: constraints that became valid, new indexes, NOT NULL;
//   - the routines that sent notices of level DEBUG1, if the driver passes them on (see
//     [driver.Scripter]). Without them, a few words are missing, and the second scan of
//     CREATE INDEX CONCURRENTLY.
//
// Statements that cannot run in a transaction, such as CREATE INDEX CONCURRENTLY and
// VACUUM, run outside of one. Prepared transactions lock all tables meanwhile, and another
// session holds a snapshot; when the statement waits for one of them, its locks are read,
// and it may go on.
//
// [Compare] reads, on the database that the migration is for, how large and how busy the
// tables are, and which sessions would block it now.
package trace
