package inspect

import (
	"slices"
)

// A Victim is a session to be cancelled or terminated, and what must still be
// true of it then. Make it with [SessionsOf] or [BlockersOf].
//
// The session that is signalled is the one that was seen: a process with the same
// number that began at another moment is another. Where the beginning of a
// session is hidden from the role that asks, its role and database are compared.
type Victim struct {
	*Session

	// waiters are the processes one of which it must still block; none for one
	// that is ended for what it is.
	waiters []int32
}

// SessionsOf are the sessions of locks, each once. Parallel workers are their
// leader, if that has a lock among these too.
func SessionsOf(locks []Lock) []Victim {
	byPID := map[int32]*Session{}
	for i := range locks {
		byPID[locks[i].PID] = locks[i].Session
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
			victims = append(victims, Victim{Session: s})
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
		victims[at].waiters = append(victims[at].waiters, p.waiter)
	}
	return victims
}
