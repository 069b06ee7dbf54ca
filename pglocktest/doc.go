// Package pglocktest is for tests: of programs that lock, and of adapters between
// pglock and a database driver. It imports no driver. All that it needs is a
// [pglock.Source], such as pgxlock.ConnString(dsn) or sqllock.DB(db).
//
// # Testing a program that locks
//
// A [Lock] is a lock as the rest of the world sees it. A test holds it where the
// program wants it, waits until the program waits, and lets it go:
//
//	func TestReportsWaitForEachOther(t *testing.T) {
//		report := pglocktest.Key(t, source, pglock.Name("report"))
//		report.Hold()
//		go app.Report(ctx)
//		report.AwaitWaiters(1) // now the program waits
//		report.Release()
//		...
//		report.WantFree() // and leaves nothing behind
//	}
//
// It waits for states by asking Postgres, so no test has to sleep, and gives up
// after half a minute with a word on what it saw. [Table] is the same for tables:
//
//	orders := pglocktest.Table(t, source, "app.orders", pglock.Share)
//
// What a program does when its lock is lost is seen by ending the session that has
// it, as a restart of the server would: [Lock.Terminate], or [TerminateApplication]
// by the application_name. [AwaitBlocked] waits until a session waits for whatever.
//
// # Testing an adapter
//
// pglock's own adapters for pgx and database/sql are tested with what is here, and
// one of your own is tested by as much code:
//
//	func TestSource(t *testing.T) {
//		pglocktest.Source(t, myadapter.ConnString(dsn))
//	}
//
//	func TestTx(t *testing.T) {
//		pglocktest.Tx(t, myadapter.ConnString(dsn), myadapter.Begin(db))
//	}
//
// [Source] proves what a [pglock.Locker] gets its sessions from; [Conn] and [Tx]
// prove the connections and the transactions of a program, in which
// [pglock.LockTx], [pglock.LockTables] and their kin work. Each promise is a subtest,
// named for what it is about. Each of them is known to fail for an adapter that
// breaks the promise: the tests of this package have a table of such adapters.
//
// An adapter needs no more than eight sessions of the server at a time, in a
// database that nobody else uses meanwhile, and a role that may create tables in it.
package pglocktest
