package engine

import "time"

// How long one statement waits in Postgres is a compromise. While it waits, it holds
// VACUUM back, and CREATE INDEX CONCURRENTLY waits for it, which is a deadlock if the
// holder of the lock runs that. But each new wait starts at the end of Postgres' lock
// queue, behind all sessions that keep their places.
//
// So waits are short, shorter than Postgres' deadlock_timeout, while the same session
// holds the lock: then a place in the queue does not help. If the lock changes holders
// without us, waits grow to half of the time since the first one, until we get the lock.
// A long wait is watched from another session, and ended as soon as any session waits
// for it.

// A patience records how an entry has waited in Postgres so far. The zero value means not
// at all.
type patience struct {
	since    time.Time // when the first wait began
	waits    int       // number of waits that ended since, without the lock
	cuts     int       // number of those that were ended for other keys of this process
	turnover bool      // the lock changed holders meanwhile
	sampled  bool      // holders is set
	holders  string    // the holders at the last sample
}

// ended records a wait that ended without the lock.
func (p *patience) ended(why cut) {
	switch why {
	case awaited:
		// Start again with short waits.
		*p = patience{since: time.Now()}
	case forOther:
		p.cuts++
	}
	p.waits++
}

// sampleDue reports whether to query the holders between two waits. The query reads
// pg_locks, so it is run less and less often, unless waits are long anyway.
func (ent *entry) sampleDue() bool {
	now := time.Now()
	for h := ent.queue.front(); h != nil; h = h.next {
		if h.deadline.IsZero() || now.Before(h.deadline) {
			n := ent.patience.waits + 1
			return ent.patience.turnover || n&(n-1) == 0
		}
	}
	return false
}

// sample records the holders at the end of a wait, and whether they have changed.
func (ent *entry) sample(holders string) {
	p := &ent.patience
	p.turnover = p.sampled && (holders == "" || holders != p.holders)
	p.holders, p.sampled = holders, true
}

// length returns how long the next wait may be if it can be watched.
func (p *patience) length(shortest time.Duration) time.Duration {
	if !p.turnover {
		return shortest
	}
	return min(max(shortest, time.Since(p.since)/2), maxWait)
}

// beginWait sets how long c waits for ent: as patience allows, but no longer than the
// longest deadline in the queue.
func (e *Engine) beginWait(c *conn, ent *entry) {
	now := time.Now()
	length := ent.patience.length(e.config.Slice)
	if length > e.config.Slice && e.idle(c) == nil {
		length = e.config.Slice // no session could watch it or end it
		if e.room() {
			e.open() // for the next time
		}
	}
	var longest time.Duration
	for h := ent.queue.front(); h != nil; h = h.next {
		if h.deadline.IsZero() {
			longest = length
			break
		}
		longest = max(longest, h.deadline.Sub(now))
	}
	c.waitFrom, c.waitEnds = now, now.Add(min(longest, length))
	if min(longest, length) > e.config.Slice {
		e.watch()
	}
}

// waitingLong returns the sessions in long waits by PID.
func (e *Engine) waitingLong() map[int32]*conn {
	long := make(map[int32]*conn)
	for _, c := range e.conns {
		if c.waiting != nil && c.waitEnds.Sub(c.waitFrom) > e.config.Slice {
			long[c.pid] = c
		}
	}
	return long
}

// watch starts checking whether other sessions wait for our long waits, until no long
// wait is left.
func (e *Engine) watch() {
	if !e.looking {
		e.looking = true
		e.lookIn(lookInterval)
	}
}

// looked handles the end of a check, and schedules the next one.
func (e *Engine) looked(pause time.Duration) {
	if e.closed || len(e.waitingLong()) == 0 {
		e.looking = false
		return
	}
	e.lookIn(pause)
}

// lookIn schedules a check.
func (e *Engine) lookIn(pause time.Duration) {
	time.AfterFunc(pause, func() {
		e.mu.Lock()
		defer e.unlock()
		long := e.waitingLong()
		if e.closed || len(long) == 0 {
			e.looking = false
			return
		}
		if c := e.idle(nil); c != nil {
			c.push(op{kind: opLook})
			return
		}
		// No session is free to check, so the waits start again as short ones.
		for _, c := range long {
			c.cut = forOther
			e.interrupt(c.waiting)
		}
		e.lookIn(pause)
	})
}

// takeTurn ends a long wait that has had its turn, in favor of a key that is only polled
// because no session is free to wait for it.
func (e *Engine) takeTurn() {
	for _, c := range e.conns {
		if c.waiting == nil || c.cut != uncut || c.waitEnds.Sub(c.waitFrom) <= e.config.Slice {
			continue
		}
		turn := e.config.Slice << min(c.waiting.patience.cuts, 10)
		if time.Since(c.waitFrom) >= turn && len(c.queue) == 0 {
			c.cut = forOther
			e.interrupt(c.waiting)
			return
		}
	}
}
