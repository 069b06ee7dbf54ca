// Package engine is the engine behind a Locker: many advisory locks on few
// Postgres sessions.
//
// # Who does what
//
// An [Engine] has an entry for each key that somebody in this process holds or
// asks for (entry.go), and a few sessions (conn.go). All that is known of both
// is guarded by one mutex, Engine.mu; nothing waits while holding it. Every
// session has one goroutine, the only one to use its connection: it takes what
// is queued for it, asks Postgres, and tells the entries what came of it, which
// decide what to ask next. Callers sleep on their own Hold meanwhile.
//
// # The life of an entry
//
//	idle ──ask──> trying ──yes──> held ──last unlock──> releasing ──> idle
//	                │               ^ ↻ handed over within the process
//	                no              │
//	                v               │
//	             waiting ──granted──┘      (or polling, when no session is free to wait)
//
// Postgres sees one request for a key from one process at a time: whoever else
// wants it queues in the entry, first come first served. A try never blocks, so
// tries and unlocks of all keys share one session, and those that are asked for
// at the same time share one round trip. A lock that another process holds is
// waited for on a session that holds nothing, for a short time or a long one
// (patience.go); granted, that session keeps the lock and serves like any other.
//
// # What makes it quick
//
// A round trip costs far more than a lock, so that as many as possible should
// share one. A session takes whatever was queued while it asked; and when it has
// answered several, it lets them run for some microseconds first, because they are
// about to ask again (conn.gather). A caller who is alone has nobody to wait for
// and runs its statement itself (Engine.unlockAndHelp).
//
// Nobody is woken while Engine.mu is held: who has an answer is put on a list, and
// told when the mutex is given up (Engine.tell, Engine.giveUp).
//
// A backend that holds very many locks is slow in all that it does. New locks go to
// another one then (Engine.serving).
//
// # What is kept true
//
//   - A Hold is granted only after Postgres said yes on a session that has not
//     been lost since, and never while another Hold of the key conflicts.
//   - A session that fails in any way but a proper error from Postgres is closed,
//     and everything that it held is told so before anybody else is granted the
//     same key.
//   - A Hold that is released is told nil only when Postgres has answered after that,
//     on the session that held the lock; whoever has the lock next in this process
//     does not wait for it (Engine.release).
//   - "Not acquired" is Postgres' word (entry.contended).
//   - After a proper error, Postgres is asked what the session holds, and what
//     nobody stands for is given back before anybody hears of the outcome.
package engine
