package engine

import "time"

// How long a statement of ours waits in Postgres is a compromise. While it waits it holds
// VACUUM back, and CREATE INDEX CONCURRENTLY waits for it, which is a deadlock if the
// holder of the lock runs that. But whenever the wait is begun anew, it goes to the end
// of Postgres' queue, and other sessions that do not give up their places are always
// ahead of it.
//
// So a wait is short, shorter than Postgres' deadlock_timeout, as long as one session
// holds the lock: a place in the queue is of no use then. When the lock goes from hand to
// hand without us, waits become longer: half of all the time since the first one, until
// we are served. Such a long wait is watched from another session, and ended as soon as
// somebody waits for it.

// patience is how an entry has waited in Postgres so far. The zero value is: not at all.
type patience struct {
	since    time.Time // the first wait's beginning
	waits    int       // how many have ended since, without the lock
	cuts     int       // how many of them were ended for other keys of ours
	turnover bool      // the lock went from hand to hand meanwhile
	sampled  bool      // holders is known
	holders  string    // who held it when they were asked for last
}

// ended counts a wait that ended without the lock.
func (p *patience) ended(why cut) {
	switch why {
	case awaited:
		// Begin anew, with short waits.
		*p = patience{since: time.Now()}
	case forOther:
		p.cuts++
	}
	p.waits++
}

// sampleDue reports whether to ask for the holders now that a wait has ended and another
// one is to begin. It costs a reading of pg_locks, so it is done less and less often,
// unless waits are long anyway.
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

// sample takes the holders at the end of a wait: whether they are others than before.
func (ent *entry) sample(holders string) {
	p := &ent.patience
	p.turnover = p.sampled && (holders == "" || holders != p.holders)
	p.holders, p.sampled = holders, true
}

// length returns how long the next wait may be, if it can be watched.
func (p *patience) length(shortest time.Duration) time.Duration {
	if !p.turnover {
		return shortest
	}
	return min(max(shortest, time.Since(p.since)/2), maxWait)
}

// beginWait sets how long c waits for ent: as long as the most patient request in the
// queue, and as patience has it.
func (e *Engine) beginWait(c *conn, ent *entry) {
	now := time.Now()
	length := ent.patience.length(e.config.Slice)
	if length > e.config.Slice && e.idle(c) == nil {
		length = e.config.Slice // nobody could watch it, or end it
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

// waitingLong returns the sessions whose waits are longer than a short one, by PID.
func (e *Engine) waitingLong() map[int32]*conn {
	long := make(map[int32]*conn)
	for _, c := range e.conns {
		if c.waiting != nil && c.waitEnds.Sub(c.waitFrom) > e.config.Slice {
			long[c.pid] = c
		}
	}
	return long
}

// watch has somebody look whether the long waits keep others waiting, from now on until
// there is none left.
func (e *Engine) watch() {
	if !e.looking {
		e.looking = true
		e.lookIn(lookInterval)
	}
}

// looked is the end of a look, and the beginning of a pause.
func (e *Engine) looked(pause time.Duration) {
	if e.closed || len(e.waitingLong()) == 0 {
		e.looking = false
		return
	}
	e.lookIn(pause)
}

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
		// Nobody is left to look: the waits are begun anew, as short ones.
		for _, c := range long {
			c.cut = forOther
			e.interrupt(c.waiting)
		}
		e.lookIn(pause)
	})
}

// takeTurn ends a long wait that has had its turn, for a key that is only tried now and
// then because no session is free to wait for it.
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
