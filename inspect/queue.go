package inspect

import (
	"cmp"
	"context"
	"slices"
	"strconv"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/driver"
)

// crowd is how many sessions must wait for the same lock before their blockers are
// computed from the rows of pg_locks. pg_blocking_pids is called for each session in the
// queue and takes longer the longer it is, so the cost grows almost with the cube of the
// length. It is exact, so it is asked about shorter queues, in which both cost the same to
// within a millisecond.
const crowd = 100

// noCrowd is longer than any queue.
const noCrowd = 1 << 30

// readEdges is like read, and sets the blockers of all waits. sql has the parameter
// crowd, which is added to values. If the blockers in a long queue cannot be computed,
// everything is read again, with pg_blocking_pids for every wait.
func readEdges(ctx context.Context, q driver.Querier, sql string, values map[string]string, crowd int) (*reading, error) {
	values["crowd"] = strconv.Itoa(crowd)
	r, err := read(ctx, q, sql, values)
	if err != nil || r.computeBlockers() {
		return r, err
	}
	values["crowd"] = strconv.Itoa(noCrowd)
	return read(ctx, q, sql, values)
}

// computeBlockers sets the blockers of the waits for which pg_blocking_pids was not
// called. It returns false if only pg_blocking_pids can find them. A session is blocked
// by those that hold a conflicting lock, and by those that wait for one ahead of it in
// the lock queue.
//
// pg_locks does not have the order of the queue. It is the order in which the waits
// began, with two exceptions. A session that holds a lock on the same object goes ahead
// of the first that this lock blocks (src/backend/storage/lmgr/proc.c). And the deadlock
// check changes the order if that avoids a deadlock (src/backend/storage/lmgr/README).
// The latter leaves no trace, but in the order before, the sessions are in a cycle: then
// the result is false. So the holders are always right. The sessions ahead may be wrong if
// two waits began at almost the same time, or if the other sessions that caused an
// exception do not wait any more.
//
// Parallel workers count as their leader, which pg_locks does not have, so if one is
// involved, the result is false.
func (r *reading) computeBlockers() bool {
	waits := map[object][]*Lock{}
	for i := range r.locks {
		if l := &r.locks[i]; r.unasked(l) {
			waits[l.object()] = append(waits[l.object()], l)
		}
	}
	if len(waits) == 0 {
		return true
	}
	matched := map[object]int{}
	for o, list := range waits {
		matched[o] = len(list)
	}
	for i := range r.sideLocks {
		if l := &r.sideLocks[i]; r.unasked(l) {
			if o := l.object(); matched[o] > 0 {
				waits[o] = append(waits[o], l)
			}
		}
	}
	holders, conflicts := r.holders(), newConflictTable()
	var queues []*queue
	blockers := map[int32][]int32{}
	for o, list := range waits {
		q, ok := newQueue(list, holders[o], conflicts)
		if !ok {
			return false
		}
		for _, wait := range list[:matched[o]] {
			if blockers[wait.PID], ok = q.blockers(wait.Session); !ok {
				return false
			}
		}
		queues = append(queues, q)
	}
	if r.reordered(queues) {
		return false
	}
	for pid, list := range blockers {
		r.waits[pid] = list
	}
	return true
}

// unasked reports whether l is a wait for which pg_blocking_pids was not called.
func (r *reading) unasked(l *Lock) bool {
	if l.Granted || l.PID == 0 {
		return false
	}
	_, asked := r.waits[l.PID]
	return !asked
}

// A queue is the lock queue of an object and the holders of its locks.
type queue struct {
	members   []*member // sorted by PID
	waiters   []*member // in the order of the queue
	bySession map[*Session]*member
	conflicts conflictTable
}

// A member is a session that holds a lock on the object of a queue, waits for one, or
// both.
type member struct {
	*Session
	held     modeSet
	wanted   pglock.Mode // 0 if it does not wait
	position int         // in the queue, if it waits
}

// newQueue returns the queue of an object. ok is false if the order is not known.
func newQueue(waits, holders []*Lock, conflicts conflictTable) (q *queue, ok bool) {
	q = &queue{bySession: make(map[*Session]*member, len(waits)+len(holders)), conflicts: conflicts}
	for _, l := range holders {
		mode, err := pglock.ParseMode(l.Mode)
		// A lock acquired by the fast path conflicts with no wait: before a session waits,
		// it moves such locks to the main table. If it is still here, it was read before.
		if err == nil && !l.FastPath {
			m := q.member(l.Session)
			m.held |= setOf(mode)
		}
	}
	for _, l := range slices.SortedFunc(slices.Values(waits), func(a, b *Lock) int {
		return cmp.Or(a.WaitStart.Compare(b.WaitStart), cmp.Compare(a.PID, b.PID))
	}) {
		mode, err := pglock.ParseMode(l.Mode)
		if err != nil || l.WaitApprox || l.LeaderPID != 0 {
			return nil, false
		}
		m := q.member(l.Session)
		m.wanted = mode
		at := len(q.waiters)
		if m.held != 0 {
			if i := slices.IndexFunc(q.waiters, func(other *member) bool { return conflicts[other.wanted]&m.held != 0 }); i >= 0 {
				at = i
			}
		}
		q.waiters = slices.Insert(q.waiters, at, m)
	}
	for i, m := range q.waiters {
		m.position = i
	}
	slices.SortFunc(q.members, func(a, b *member) int { return cmp.Compare(a.PID, b.PID) })
	return q, true
}

func (q *queue) member(s *Session) *member {
	m := q.bySession[s]
	if m == nil {
		m = &member{Session: s}
		q.bySession[s] = m
		q.members = append(q.members, m)
	}
	return m
}

// blockers returns the PIDs of the blockers of a session that waits, sorted, with 0 for
// each prepared transaction. ok is false if one may be a parallel worker.
func (q *queue) blockers(s *Session) (pids []int32, ok bool) {
	waiter := q.bySession[s]
	conflicts := q.conflicts[waiter.wanted]
	pids = make([]int32, 0, len(q.members))
	for _, m := range q.members {
		switch {
		case m == waiter:
		case m.held&conflicts != 0:
			// If pg_stat_activity does not have it any more, it may have been a worker.
			if m.LeaderPID != 0 || m.Hidden {
				return nil, false
			}
			pids = append(pids, m.PID)
		case m.wanted != 0 && m.position < waiter.position && setOf(m.wanted)&conflicts != 0:
			pids = append(pids, m.PID)
		}
	}
	return pids, true
}

// reordered reports whether a deadlock check may have changed the order of one of the
// queues: whether a session in it waits, directly or not, for one behind it.
func (r *reading) reordered(queues []*queue) bool {
	g := &graph{index: map[*Session]int{}}
	wait := func(from, to int) { g.waiters[from] = append(g.waiters[from], edge{to: to}) }
	for pid, blockers := range r.waits {
		waiter := g.node(r.leader(r.session(pid)))
		for _, blocker := range blockers {
			if blocker != 0 {
				wait(waiter, g.node(r.leader(r.session(blocker))))
			}
		}
	}
	for _, q := range queues {
		// A node for each mode saves edges from all waiters to all holders, and an edge to
		// the next one ahead those to all ahead. That may find a cycle too many.
		var modes [len(conflictTable{})]int
		for i, m := range q.waiters {
			waiter := g.node(m.Session)
			if i > 0 {
				wait(waiter, g.node(q.waiters[i-1].Session))
			}
			if modes[m.wanted] == 0 {
				node := g.node(new(Session))
				modes[m.wanted] = node
				for _, holder := range q.members {
					if holder.held&q.conflicts[m.wanted] != 0 && holder.PID != 0 {
						wait(node, g.node(holder.Session))
					}
				}
			}
			wait(waiter, modes[m.wanted])
		}
	}
	g.findComponents()
	for _, q := range queues {
		for i := 1; i < len(q.waiters); i++ {
			if g.component[g.node(q.waiters[i].Session)] == g.component[g.node(q.waiters[i-1].Session)] {
				return true
			}
		}
	}
	return false
}

// A modeSet is a set of lock modes: bit 1<<m for the mode m.
type modeSet uint16

func setOf(m pglock.Mode) modeSet { return 1 << m }

// A conflictTable has the modes with which each mode conflicts.
type conflictTable [pglock.AccessExclusive + 1]modeSet

func newConflictTable() (t conflictTable) {
	for _, m := range pglock.Modes() {
		for _, other := range pglock.Modes() {
			if m.Conflicts(other) {
				t[m] |= setOf(other)
			}
		}
	}
	return t
}
