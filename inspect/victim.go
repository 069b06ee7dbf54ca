package inspect

import (
	"slices"
	"strings"
	"time"
)

// A Victim is a session to be canceled or terminated, and what must still be true of
// it then. Make it with [SessionsOf], [BlockersOf] or [VictimsOf].
//
// Only the session that was seen is signaled: a process with the same PID but another
// start is another session. If the start is hidden from our role (see [Session]), the
// role and the database of the session are compared, and one of these must prove that
// it is the same: it is still in the transaction in which it acquired its lock, or it
// still blocks the same wait (from Postgres 14 on). Neither can be proved of a
// session outside of a transaction that blocks no other session.
type Victim struct {
	*Session

	// waiters are the sessions of which it must still block one. It is empty for a
	// victim that is ended for other reasons.
	waiters []waiter

	// transaction is the virtual transaction ID that holds its lock.
	transaction string
}

// A waiter is a waiting process and when the wait began; zero is unknown.
type waiter struct {
	pid   int32
	began time.Time
}

// SessionsOf returns the sessions of locks without duplicates. A parallel worker
// counts as its leader if that has a lock among these too.
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

// BlockersOf returns the sessions that must end for the waits of pairs to go on,
// without duplicates: for each waiter the holders of the lock, or, if no session
// holds a conflicting lock, those ahead of it in the lock queue. They are signaled
// only if they still block one of the waiters of pairs at that moment.
func BlockersOf(pairs []Pair) []Victim {
	hard := map[*Session]bool{}
	for i := range pairs {
		if pairs[i].Hard {
			hard[pairs[i].Session] = true
		}
	}
	var victims []Victim
	for i := range pairs {
		p := &pairs[i]
		if !p.Hard && hard[p.Session] {
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

// proof returns the virtual transaction ID that identifies the victim's session, or ""
// if it has none or one such as 3/0, of a session that holds its lock without a
// transaction.
func (v Victim) proof() string {
	if strings.HasSuffix(v.transaction, "/0") {
		return ""
	}
	return v.transaction
}
