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

// A waitHistory records how a lock has waited in Postgres so far. The zero value means not
// at all.
type waitHistory struct {
	since    time.Time // when the first wait began
	waits    int       // number of waits that ended since, without the lock
	cuts     int       // number of those that were ended for other keys of this process
	turnover bool      // the lock changed holders meanwhile
	sampled  bool      // holders is set
	holders  string    // the holders at the last sample
}

// record records a wait that ended without the lock.
func (p *waitHistory) record(why cutReason) {
	switch why {
	case cutAwaited:
		// Start again with short waits.
		*p = waitHistory{since: time.Now()}
	case cutForTurn:
		p.cuts++
	}
	p.waits++
}

// sampleDue reports whether to query the holders between two waits. The query reads
// pg_locks, so it is run less and less often, unless waits are long anyway.
func (l *localLock) sampleDue() bool {
	now := time.Now()
	for h := l.queue.front(); h != nil; h = h.next {
		if h.deadline.IsZero() || now.Before(h.deadline) {
			n := l.history.waits + 1
			return l.history.turnover || n&(n-1) == 0
		}
	}
	return false
}

// sample records the holders at the end of a wait, and whether they have changed.
func (l *localLock) sample(holders string) {
	p := &l.history
	p.turnover = p.sampled && (holders == "" || holders != p.holders)
	p.holders, p.sampled = holders, true
}

// length returns how long the next wait may be if it can be watched.
func (p *waitHistory) length(shortest time.Duration) time.Duration {
	if !p.turnover {
		return shortest
	}
	return min(max(shortest, time.Since(p.since)/2), maxWait)
}

// beginWait sets how long s waits for l: as its history allows, but no longer than the
// longest deadline in the queue.
func (e *Engine) beginWait(s *session, l *localLock) {
	now := time.Now()
	length := l.history.length(e.config.Slice)
	if length > e.config.Slice && e.idleSession(s) == nil {
		length = e.config.Slice // no session could watch it or end it
		if e.canOpen() {
			e.openSession() // for the next time
		}
	}
	var longest time.Duration
	for h := l.queue.front(); h != nil; h = h.next {
		if h.deadline.IsZero() {
			longest = length
			break
		}
		longest = max(longest, h.deadline.Sub(now))
	}
	s.waitStart, s.waitEnd = now, now.Add(min(longest, length))
	if min(longest, length) > e.config.Slice {
		e.monitor()
	}
}

// longWaits returns the sessions in long waits by PID.
func (e *Engine) longWaits() map[int32]*session {
	long := make(map[int32]*session)
	for _, s := range e.sessions {
		if s.waiting != nil && s.waitEnd.Sub(s.waitStart) > e.config.Slice {
			long[s.pid] = s
		}
	}
	return long
}

// monitor starts checking whether other sessions wait for our long waits, until no long
// wait is left.
func (e *Engine) monitor() {
	if !e.monitoring {
		e.monitoring = true
		e.scheduleMonitor(monitorInterval)
	}
}

// monitorDone handles the end of a check, and schedules the next one.
func (e *Engine) monitorDone(pause time.Duration) {
	if e.closed || len(e.longWaits()) == 0 {
		e.monitoring = false
		return
	}
	e.scheduleMonitor(pause)
}

// scheduleMonitor schedules a check.
func (e *Engine) scheduleMonitor(pause time.Duration) {
	time.AfterFunc(pause, func() {
		e.mu.Lock()
		defer e.unlockMu()
		long := e.longWaits()
		if e.closed || len(long) == 0 {
			e.monitoring = false
			return
		}
		if s := e.idleSession(nil); s != nil {
			s.push(op{kind: opMonitor})
			return
		}
		// No session is free to check, so the waits start again as short ones.
		for _, s := range long {
			s.cut = cutForTurn
			e.interruptWait(s.waiting)
		}
		e.scheduleMonitor(pause)
	})
}

// endTurn ends a long wait that has had its turn, in favor of a key that is only polled
// because no session is free to wait for it.
func (e *Engine) endTurn() {
	for _, s := range e.sessions {
		if s.waiting == nil || s.cut != notCut || s.waitEnd.Sub(s.waitStart) <= e.config.Slice {
			continue
		}
		turn := e.config.Slice << min(s.waiting.history.cuts, 10)
		if time.Since(s.waitStart) >= turn && len(s.queue) == 0 {
			s.cut = cutForTurn
			e.interruptWait(s.waiting)
			return
		}
	}
}
