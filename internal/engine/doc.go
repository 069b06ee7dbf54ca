// Package engine is the engine behind a Locker: many advisory locks on few Postgres
// sessions.
//
// # Structure
//
// An [Engine] has a localLock for each key that the process holds or wants, and a few
// sessions. Engine.mu guards the state of both; no goroutine blocks while holding it.
// Each session has a goroutine that uses its connection: it takes operations from its
// queue, runs them in Postgres, and passes the results to the locks, which decide what to
// do next. Callers block on their own Hold meanwhile.
//
//	engine.go     what callers use, and Engine.mu
//	hold.go       a caller's request and, once granted, its held lock; queue.go has their queue
//	locallock.go  the states of a lock: try, grant, hand over, unlock
//	wait.go       waiting in Postgres; cancel.go ends a wait early, monitor.go watches long ones
//	poll.go       waiting while no session is free for it, all such locks by one timer
//	probe.go      whether more readers may join those that hold a shared lock
//	session.go    a session's goroutine; connect.go sets the session up, loss.go ends it
//	sessions.go   which session serves what
//	op.go         the operations; batch.go runs many in one statement, fastpath.go a lone one
//	lease.go      the session of leases: a row that is renewed; leasebatch.go its operations,
//	              leaselock.go its locks, leaselisten.go its notifications, trust.go its clocks
//
// The methods of localLock are named after what they start (try, wait, poll, probe,
// unlock). A session runs that (runWait), and the result goes to a method called Done
// (tryDone, waitDone).
//
// # States of a lock
//
//	idle ──request──> trying ──yes──> held ──last unlock──> releasing ──> idle
//	                    │               ^ ↻ handed over within the process
//	                    no              │
//	                    v               │
//	                 waiting ──granted──┘      (or polling, if no session is free to wait)
//
// A process has at most one request per key in Postgres. Other requests of the process
// queue in the lock, first come, first served. A try never blocks, so the tries and
// unlocks of all keys share one session, and concurrent ones share a round trip. A
// session that waits for a lock holds nothing; it waits for a short or a long time
// (wait.go). When the lock is granted, the session keeps it and also serves tries.
//
// # Leases
//
// With Config.Lease, a lock is a row of a table, and so is the session that holds it. Keys,
// queues, Holds and the states of locks are the same. What differs: there is one session,
// which takes any number of leases; a lease is never waited for in Postgres, but polled; it is
// not handed over within the process, because each holder has a token of its own; and the
// session does not end with its connection, but when it cannot be renewed in time.
//
// # Performance
//
// A round trip costs far more than a lock, so operations share round trips. A session
// takes everything that was queued during its last statement. After replying to several
// callers, it lets them run for some microseconds first, over a network a sixteenth of a
// round trip, because they are about to make their next request (session.gather). A single
// caller has no others to wait for, and runs its statement itself (Engine.unlockMuAndHelp).
//
// No goroutine is woken while Engine.mu is held: Holds with a result are put on a list
// and notified when the mutex is unlocked (Hold.notify, Engine.unlockMuAndNotify).
//
// A backend that holds very many locks is slow in everything it does, so new locks then
// go to another one (Engine.servingSession).
//
// # Invariants
//
//   - A Hold is granted only after Postgres granted the lock on a session that has not
//     been lost since, and never while another Hold of the key conflicts.
//   - A session that fails in any way except an error with an SQLSTATE is closed, and all
//     its holders are notified before the same key is granted again.
//   - The release of a Hold succeeds only after a later reply of the session that held the
//     lock. The next holder in this process does not wait for that reply (localLock.release).
//   - "Not acquired" is always based on a reply of Postgres (localLock.contended).
//   - After an error with an SQLSTATE, the session's locks are queried, and locks without
//     a Hold are unlocked before any caller gets a result. (After a wait, a try that fails is
//     proof enough: session.checkGranted.)
package engine
