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
//
// In a queue each waits for all before it, so there may be many thousands of pairs
// of a few hundred sessions: what a pair costs is kept to looking two sessions up.
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
	holders := r.holders(waits)

	ways := map[*Session]int{} // a leader may wait by way of several workers
	for i := range waits {
		ways[r.leader(waits[i].Session)]++
	}
	seen := map[[2]*Session]bool{} // of those

	type wanted struct {
		object
		mode string
	}
	obstacles := map[wanted]obstacles{}
	pairs := make([]Pair, 0, most)
	var blockers []*Session
	for i := range waits {
		wait := &waits[i]
		want := wanted{wait.object(), wait.Mode}
		in, ok := obstacles[want]
		if !ok {
			in = r.obstacles(conflicting(holders[want.object], wait.Mode))
			obstacles[want] = in
		}
		waiter := wait.PID
		wait.Session = r.leader(wait.Session)
		blockers = r.blockers(blockers[:0], r.waits[waiter], in)
		for n, blocking := range blockers {
			if blocking == wait.Session || repeats(blockers[:n], blocking) {
				continue
			}
			if ways[wait.Session] > 1 {
				key := [2]*Session{wait.Session, blocking}
				if seen[key] {
					continue
				}
				seen[key] = true
			}
			p := Pair{Lock: wait, Blocking: blocking, Block: Soft, waiter: waiter}
			if held := in.held[blocking]; held != nil || blocking.Prepared != nil {
				p.Block, p.Held = Hard, held
			}
			pairs = append(pairs, p)
		}
	}
	return pairs
}

// repeats reports whether s is in list already, which is sorted by numbers.
func repeats(list []*Session, s *Session) bool {
	for i := len(list) - 1; i >= 0 && list[i].PID == s.PID; i-- {
		if list[i] == s {
			return true
		}
	}
	return false
}

// blockers appends whom pg_blocking_pids names to list, by their numbers. One may
// be in it more than once.
func (r *reading) blockers(list []*Session, pids []int32, in obstacles) []*Session {
	for _, pid := range pids {
		switch {
		case r.blocking != nil && !r.blocking[pid]:
		case pid != 0:
			list = append(list, r.leader(r.session(pid)))
		case len(in.prepared) > 0:
			list = append(list, in.prepared...)
		default: // it came or went between the readings
			list = append(list, &Session{Prepared: &Prepared{}})
		}
	}
	// The pids are sorted; a leader that takes the place of its worker may not be.
	if byPID := func(a, b *Session) int { return cmp.Compare(a.PID, b.PID) }; !slices.IsSortedFunc(list, byPID) {
		slices.SortStableFunc(list, byPID)
	}
	return list
}

// obstacles are those who hold what a wait is about in a mode that shuts it out.
// pg_blocking_pids names them and those who stand ahead in the queue alike.
type obstacles struct {
	held     map[*Session]*Lock // what each holds, or one of those
	prepared []*Session         // those that pg_blocking_pids calls 0
}

func (r *reading) obstacles(locks []*Lock) obstacles {
	in := obstacles{held: map[*Session]*Lock{}}
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
