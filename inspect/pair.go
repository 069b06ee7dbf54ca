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
	holders := r.holders()
	var pairs []Pair
	for i := range r.locks {
		if r.locks[i].Granted || len(r.waits[r.locks[i].PID]) == 0 {
			continue
		}
		wait := r.locks[i]
		waiter := wait.PID
		wait.Session = r.leader(wait.Session)
		first := len(pairs)
		for _, pid := range r.waits[waiter] {
			if pid == 0 {
				pairs = append(pairs, preparedPairs(&wait, holders[wait.object()])...)
			} else if blocking := r.leader(r.session(pid)); blocking != wait.Session {
				pairs = append(pairs, r.pair(&wait, blocking, holders[wait.object()]))
			}
		}
		for j := first; j < len(pairs); j++ {
			pairs[j].waiter = waiter
		}
	}
	slices.SortStableFunc(pairs, func(a, b Pair) int {
		return cmp.Or(compareWaits(a.Lock, b.Lock), cmp.Compare(a.Blocking.PID, b.Blocking.PID))
	})
	return slices.CompactFunc(pairs, func(a, b Pair) bool {
		return a.Session == b.Session && a.Blocking == b.Blocking
	})
}

// holders are the locks that are held on the things that are waited for.
func (r *reading) holders() map[object][]*Lock {
	holders := map[object][]*Lock{}
	for i := range r.locks {
		if l := &r.locks[i]; !l.Granted {
			holders[l.object()] = nil
		}
	}
	if len(holders) == 0 {
		return nil
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
		if r.leader(held.Session) == blocking && held.conflicts(wait.Mode) {
			return Pair{Lock: wait, Blocking: blocking, Block: Hard, Held: held}
		}
	}
	return Pair{Lock: wait, Blocking: blocking, Block: Soft}
}

// preparedPairs finds the prepared transactions that pg_blocking_pids calls 0.
func preparedPairs(wait *Lock, holders []*Lock) []Pair {
	var pairs []Pair
	for _, held := range holders {
		if held.Prepared != nil && held.conflicts(wait.Mode) {
			pairs = append(pairs, Pair{Lock: wait, Blocking: held.Session, Block: Hard, Held: held})
		}
	}
	if pairs == nil { // it came or went between the readings
		pairs = append(pairs, Pair{Lock: wait, Blocking: &Session{Prepared: &Prepared{}}, Block: Hard})
	}
	return pairs
}
