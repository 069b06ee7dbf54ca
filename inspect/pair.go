package inspect

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/pglock-go/pglock"
)

// A Pair is a session that waits for a lock and one that it waits for. A session
// that several others keep waiting is in several pairs.
//
// Parallel workers count as their leader, on both sides.
type Pair struct {
	// Lock is what is waited for; its Session is the one that waits. Never nil.
	*Lock

	// Blocking is who it waits for: a session, or a prepared transaction, which
	// has PID 0 and Prepared. Never nil.
	Blocking *Session

	// Block says whether Blocking holds the lock or only stands ahead in the queue.
	Block Block

	// Held is the lock that Blocking holds, or one of them; nil when Block is Soft.
	Held *Lock

	waiter int32 // the process that waits: the session's own, or a worker of it
}

// Block is how one session blocks another.
type Block string

const (
	// Hard is the block of one who holds a lock that conflicts with the one that
	// is waited for. Ending it helps.
	Hard Block = "hard"

	// Soft is the block of one who waits for a conflicting lock itself, ahead in
	// the queue. It is a victim too: ending whoever it waits for helps both.
	Soft Block = "soft"
)

// Blocked are the pairs of sessions of which one waits for the other, the longest
// wait first, where all filters match. A filter is about the lock that is waited
// for and its session; with a field that begins with blocking_, about the
// session that blocks.
//
// pg_blocking_pids is asked once for each session whose wait matches, and for no
// other (PostgreSQL manual, 9.26.1 "Session Information Functions"). ctx covers
// the reading, as for [Locks].
func Blocked(ctx context.Context, q pglock.Querier, filters ...Filter) ([]Pair, error) {
	ctx, cancel := bound(ctx)
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

// pairs joins the waits to their blockers. What it returns stays as it is when
// the locks are moved.
func (r *reading) pairs() []Pair {
	var waits []Lock
	for i := range r.locks {
		if l := &r.locks[i]; !l.Granted && len(r.waits[l.PID]) > 0 {
			waits = append(waits, *l)
		}
	}
	slices.SortFunc(waits, func(a, b Lock) int { return compareWaits(&a, &b) })
	holders := r.holders(waits)

	var pairs []Pair
	seen := map[[2]*Session]bool{} // a leader may wait by way of several workers
	for i := range waits {
		wait := &waits[i]
		waiter := wait.PID
		wait.Session = r.leader(wait.Session)
		first := len(pairs)
		for _, p := range r.blockers(wait, r.waits[waiter], conflicting(holders[wait.object()], wait.Mode)) {
			if key := [2]*Session{p.Session, p.Blocking}; !seen[key] && p.Session != p.Blocking {
				seen[key] = true
				p.waiter = waiter
				pairs = append(pairs, p)
			}
		}
		slices.SortStableFunc(pairs[first:], func(a, b Pair) int { return cmp.Compare(a.Blocking.PID, b.Blocking.PID) })
	}
	return pairs
}

// blockers are the pairs of one wait with those whom pg_blocking_pids names, which
// may be the same more than once.
func (r *reading) blockers(wait *Lock, pids []int32, holders []*Lock) []Pair {
	pairs := make([]Pair, 0, len(pids))
	for _, pid := range pids {
		switch {
		case r.blocking != nil && !r.blocking[pid]:
		case pid == 0:
			pairs = append(pairs, preparedPairs(wait, holders)...)
		default:
			pairs = append(pairs, r.pair(wait, r.leader(r.session(pid)), holders))
		}
	}
	return pairs
}

// holders are the locks that are held on the things that are waited for.
func (r *reading) holders(waits []Lock) map[object][]*Lock {
	if len(waits) == 0 {
		return nil
	}
	holders := map[object][]*Lock{}
	for i := range waits {
		holders[waits[i].object()] = nil
	}
	for _, locks := range [][]Lock{r.locks, r.aside} {
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
	return holders
}

// conflicting are those of the locks that shut out whoever wants mode.
func conflicting(locks []*Lock, mode string) []*Lock {
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

// leader is who s works for, if it is a parallel worker, else s.
func (r *reading) leader(s *Session) *Session {
	if s.LeaderPID == 0 {
		return s
	}
	return r.session(s.LeaderPID)
}

// pair tells a hard block from a soft one: pg_blocking_pids names both.
func (r *reading) pair(wait *Lock, blocking *Session, holders []*Lock) Pair {
	for _, held := range holders {
		if r.leader(held.Session) == blocking {
			return Pair{Lock: wait, Blocking: blocking, Block: Hard, Held: held}
		}
	}
	return Pair{Lock: wait, Blocking: blocking, Block: Soft}
}

// preparedPairs finds the prepared transactions that pg_blocking_pids calls 0.
func preparedPairs(wait *Lock, holders []*Lock) []Pair {
	var pairs []Pair
	for _, held := range holders {
		if held.Prepared != nil {
			pairs = append(pairs, Pair{Lock: wait, Blocking: held.Session, Block: Hard, Held: held})
		}
	}
	if pairs == nil { // it came or went between the readings
		pairs = append(pairs, Pair{Lock: wait, Blocking: &Session{Prepared: &Prepared{}}, Block: Hard})
	}
	return pairs
}
