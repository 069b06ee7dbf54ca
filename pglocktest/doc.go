// Package pglocktest has helpers for tests: of programs that lock, and of adapters
// between pglock and a database driver. It imports no driver. It needs only a
// [driver.Source], such as pgxlock.ConnString(dsn) or sqllock.DB(db).
//
// # Testing a program that locks
//
// A [Lock] shows a lock as other sessions see it. A test can hold it, wait until the
// program waits for it, and release it:
//
//	func TestReportsWaitForEachOther(t *testing.T) {
//		report := pglocktest.Key(t, source, pglock.Name("report"))
//		report.Hold()
//		go app.Report(ctx)
//		report.AwaitWaiters(1) // now the program waits
//		report.Release()
//		...
//		report.WantFree() // the program has released the lock
//	}
//
// It waits for states by polling Postgres, so tests need no sleeps. After half a minute
// it fails and reports what it saw. [Table] is the same for tables:
//
//	orders := pglocktest.Table(t, source, "app.orders", pglock.Share)
//
// To test what a program does when it loses its lock, terminate the session that holds
// it, as a restart of the server would: [Lock.Terminate] finds the session by the lock,
// [TerminateApplication] by the application_name. [AwaitBlocked] waits until a session
// waits for any lock.
//
// # Testing an adapter
//
// pglock's own adapters for pgx and database/sql are tested with this package. Test your
// own in the same way:
//
//	func TestSource(t *testing.T) {
//		pglocktest.Source(t, myadapter.ConnString(dsn))
//	}
//
//	func TestTx(t *testing.T) {
//		pglocktest.Tx(t, myadapter.ConnString(dsn), myadapter.Pool(db))
//	}
//
// [Source] tests the sessions of a [pglock.Locker]. [Conn] and [Tx] test the program's
// connections and transactions, in which [pglock.LockTx], [pglock.LockTables] and similar
// functions work. [Database] tests the connections that prioritize.Run acquires. Each
// requirement is a subtest, named after it. Each subtest is known to fail for an adapter
// that breaks its requirement: the tests of this package contain a table of broken
// adapters.
//
// The tests need up to eight sessions at a time, a database that nothing else uses
// meanwhile, and a role that may create tables in it.
package pglocktest
