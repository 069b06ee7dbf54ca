package inspect

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/driver"
)

// A Pair is a waiting session and one of its blockers. A session with several
// blockers is in several pairs.
//
// Parallel workers count as their leader, on both sides.
type Pair struct {
	// Lock is the awaited lock; its Session is the waiter. Never nil.
	*Lock

	// Blocking is the blocker: a session, or a prepared transaction, which has PID 0
	// and Prepared. Never nil.
	Blocking *Session

	// Hard reports whether Blocking holds a lock that conflicts with the awaited one,
	// so that ending it helps. Otherwise Blocking waits for a conflicting lock itself,
	// ahead in the lock queue: ending its own blocker helps both.
	Hard bool

	// Held is the conflicting lock that Blocking holds, or one of them. It is nil if
	// Hard is not set, and for some prepared transactions.
	Held *Lock

	waiter int32 // PID of the waiting process: the session or a parallel worker
}

// Blocked returns the pairs of waiters and blockers that match all filters, the
// longest wait first. A filter is about the awaited lock and its session; a field
// that begins with blocking_ is about the blocking session.
//
// pg_blocking_pids is called once for each session whose wait matches, and for no
// other (PostgreSQL manual, 9.26.1 "Session Information Functions"). In a queue of
// 100 or more sessions it would take long. There the blockers are computed from pg_locks,
// from Postgres 14 on, if our role may see the activity of all sessions. Those that hold
// a lock are always right. Of two sessions whose waits began within a millisecond, the
// wrong one may be ahead. [Cancel] and [Terminate] ask Postgres again.
//
// ctx covers the reading, as for [Locks].
func Blocked(ctx context.Context, q driver.Querier, filters ...Filter) ([]Pair, error) {
	ctx, cancel := withDeadline(ctx)
	defer cancel()
	r, err := readMatching(ctx, q, true, filters)
	if err != nil {
		return nil, fmt.Errorf("inspect: reading who blocks whom: %w", err)
	}
	pairs, err := r.matchedPairs(ctx, q, filters)
	if err != nil {
		return nil, fmt.Errorf("inspect: reading who blocks whom: %w", err)
	}
	return pairs, nil
}

// pairs joins the waits to their blockers. The result stays valid if the locks are
// moved.
//
// In a lock queue each session waits for all before it, so a few hundred sessions can
// have many thousands of pairs: the cost of each pair is limited to looking up two
// sessions.
func (r *reading) pairs() []Pair {
	var waits []Lock
	most := 0
	for i := range r.locks {
		if l := &r.locks[i]; !l.Granted && len(r.waits[l.PID]) > 0 {
			waits = append(waits, *l)
			most += len(r.waits[l.PID])
		}
	}
	if len(waits) == 0 {
		return nil
	}
	slices.SortFunc(waits, func(a, b Lock) int { return compareWaits(&a, &b) })
	holders := r.holders()

	waitCount := map[*Session]int{} // a leader may wait through several workers
	for i := range waits {
		waitCount[r.leader(waits[i].Session)]++
	}
	seen := map[[2]*Session]bool{} // pairs of such leaders

	type wanted struct {
		object
		mode string
	}
	byWait := map[wanted]conflictHolders{}
	pairs := make([]Pair, 0, most)
	var blockers []*Session
	for i := range waits {
		wait := &waits[i]
		want := wanted{wait.object(), wait.Mode}
		in, ok := byWait[want]
		if !ok {
			in = r.conflictHolders(conflictingLocks(holders[want.object], wait.Mode))
			byWait[want] = in
		}
		waiter := wait.PID
		wait.Session = r.leader(wait.Session)
		blockers = r.blockers(blockers[:0], r.waits[waiter], in)
		for n, blocking := range blockers {
			if blocking == wait.Session || containsSorted(blockers[:n], blocking) {
				continue
			}
			if waitCount[wait.Session] > 1 {
				key := [2]*Session{wait.Session, blocking}
				if seen[key] {
					continue
				}
				seen[key] = true
			}
			p := Pair{Lock: wait, Blocking: blocking, waiter: waiter}
			if held := in.held[blocking]; held != nil || blocking.Prepared != nil {
				p.Hard, p.Held = true, held
			}
			pairs = append(pairs, p)
		}
	}
	return pairs
}

// containsSorted reports whether list, which is sorted by PID, contains s.
func containsSorted(list []*Session, s *Session) bool {
	for i := len(list) - 1; i >= 0 && list[i].PID == s.PID; i-- {
		if list[i] == s {
			return true
		}
	}
	return false
}

// blockers appends the sessions with these PIDs to list, sorted by PID; 0 is a prepared
// transaction. A session may be in it more than once.
func (r *reading) blockers(list []*Session, pids []int32, in conflictHolders) []*Session {
	for _, pid := range pids {
		switch {
		case r.blocking != nil && !r.blocking[pid]:
		case pid != 0:
			list = append(list, r.leader(r.session(pid)))
		case len(in.prepared) > 0:
			list = append(list, in.prepared...)
		default: // it came or went between the reads
			list = append(list, &Session{Prepared: &Prepared{}})
		}
	}
	// The PIDs are sorted, but a leader that replaces its worker may be out of order.
	if byPID := func(a, b *Session) int { return cmp.Compare(a.PID, b.PID) }; !slices.IsSortedFunc(list, byPID) {
		slices.SortStableFunc(list, byPID)
	}
	return list
}

// conflictHolders are the sessions whose locks conflict with a wait. pg_blocking_pids does
// not distinguish them from sessions that are ahead in the lock queue.
type conflictHolders struct {
	held     map[*Session]*Lock // a conflicting lock of each
	prepared []*Session         // reading.waits has them as 0
}

func (r *reading) conflictHolders(locks []*Lock) conflictHolders {
	in := conflictHolders{held: map[*Session]*Lock{}}
	for _, l := range locks {
		s := r.leader(l.Session)
		if in.held[s] != nil {
			continue
		}
		in.held[s] = l
		if s.Prepared != nil {
			in.prepared = append(in.prepared, s)
		}
	}
	return in
}

// holders returns the held locks on each awaited object.
func (r *reading) holders() map[object][]*Lock {
	if r.held != nil {
		return r.held
	}
	holders := map[object][]*Lock{}
	for i := range r.locks {
		if l := &r.locks[i]; !l.Granted {
			holders[l.object()] = nil
		}
	}
	for _, locks := range [][]Lock{r.locks, r.sideLocks} {
		for i := range locks {
			if l := &locks[i]; l.Granted {
				o := l.object()
				if others, ok := holders[o]; ok {
					held := *l
					holders[o] = append(others, &held)
				}
			}
		}
	}
	r.held = holders
	return holders
}

// conflictingLocks returns the locks that conflict with mode.
func conflictingLocks(locks []*Lock, mode string) []*Lock {
	wanted, err := pglock.ParseMode(mode)
	if err != nil {
		return nil
	}
	var conflicting []*Lock
	for _, l := range locks {
		if l.conflicts(wanted) {
			conflicting = append(conflicting, l)
		}
	}
	return conflicting
}

// leader returns the leader of s if s is a parallel worker, or else s.
func (r *reading) leader(s *Session) *Session {
	if s.LeaderPID == 0 {
		return s
	}
	return r.session(s.LeaderPID)
}
