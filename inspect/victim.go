package inspect

import (
	"slices"
	"time"
)

// A Victim is a session to be cancelled or terminated, and what must still be
// true of it then. Make it with [SessionsOf] or [BlockersOf].
//
// The session that is signalled is the one that was seen: a process with the same
// number that began at another moment is another. If the beginning of a session is
// hidden from the role that asks (see [Session]), its role and database are compared,
// and one of these must prove that it is the same: it is still in the transaction in
// which it had its lock, or it still blocks the very wait that was seen (from Postgres
// 14 on). Neither can be proved of a session that holds an advisory lock outside of any
// transaction and keeps nobody waiting.
type Victim struct {
	*Session

	// waiters are those one of which it must still block; none for one that is ended
	// for what it is.
	waiters []waiter

	// transaction is the virtual number of the transaction of its lock.
	transaction string
}

// waiter is a process that waits, and since when; zero is not known.
type waiter struct {
	pid   int32
	began time.Time
}

// SessionsOf are the sessions of locks, each once. Parallel workers are their
// leader, if that has a lock among these too.
func SessionsOf(locks []Lock) []Victim {
	byPID, transactions := map[int32]*Session{}, map[int32]string{}
	for i := range locks {
		byPID[locks[i].PID] = locks[i].Session
		transactions[locks[i].PID] = locks[i].Transaction
	}
	var victims []Victim
	seen := map[*Session]bool{}
	for i := range locks {
		s := locks[i].Session
		if leader := byPID[s.LeaderPID]; leader != nil && s.LeaderPID != 0 {
			s = leader
		}
		if !seen[s] {
			seen[s] = true
			victims = append(victims, Victim{Session: s, transaction: transactions[s.PID]})
		}
	}
	return victims
}

// BlockersOf are the sessions that must go for the waits of pairs to go on, each
// once: for each session that waits those that hold the lock, or, when nobody
// holds a lock that conflicts, those ahead of it in the queue. They are signalled
// only if they still block one of the sessions of pairs at that very moment.
func BlockersOf(pairs []Pair) []Victim {
	hard := map[*Session]bool{}
	for i := range pairs {
		if pairs[i].Block == Hard {
			hard[pairs[i].Session] = true
		}
	}
	var victims []Victim
	for i := range pairs {
		p := &pairs[i]
		if p.Block == Soft && hard[p.Session] {
			continue
		}
		at := slices.IndexFunc(victims, func(v Victim) bool { return v.Session == p.Blocking })
		if at < 0 {
			at = len(victims)
			victims = append(victims, Victim{Session: p.Blocking})
		}
		w := waiter{pid: p.waiter}
		if !p.WaitApprox {
			w.began = p.WaitStart
		}
		victims[at].waiters = append(victims[at].waiters, w)
		if p.Held != nil && p.Held.PID == p.Blocking.PID { // and not a worker's
			victims[at].transaction = p.Held.Transaction
		}
	}
	return victims
}
