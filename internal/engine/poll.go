package engine

import "time"

// One timer serves all locks that are tried or probed again and again. At each of its ticks
// the next maxPolls of them have their turn, so that a crowd costs no more than that, on
// either side, and each of its locks is tried less often: 1,000 locks every 80 ms, 10,000
// every 0.7 s.
const (
	pollInterval = 20 * time.Millisecond
	maxPolls     = 300
)

// A pollList is a list of locks that are polled by turns. Engine.mu must be held for all its
// methods. A lock is in one list at most.
type pollList struct {
	first, last *localLock
	next        *localLock // is polled next; nil for first
	n           int
}

// add adds l, which must not be in a list, at the end.
func (p *pollList) add(l *localLock) {
	l.polls, l.pollPrev, l.pollNext = p, p.last, nil
	if p.last != nil {
		p.last.pollNext = l
	} else {
		p.first = l
	}
	p.last = l
	p.n++
}

func (p *pollList) remove(l *localLock) {
	if p.next == l {
		p.next = l.pollNext
	}
	if l.pollPrev != nil {
		l.pollPrev.pollNext = l.pollNext
	} else {
		p.first = l.pollNext
	}
	if l.pollNext != nil {
		l.pollNext.pollPrev = l.pollPrev
	} else {
		p.last = l.pollPrev
	}
	l.polls, l.pollPrev, l.pollNext = nil, nil, nil
	p.n--
}

// poll calls f for the next locks, each once and maxPolls at most. f may remove its lock.
func (p *pollList) poll(f func(*localLock)) {
	for range min(p.n, maxPolls) {
		l := p.next
		if l == nil {
			l = p.first
		}
		if l == nil {
			return
		}
		p.next = l.pollNext
		f(l)
	}
}

// poll tries again from time to time. If the lock was polled before, it keeps its place in
// the list, in which locks get their turn to wait in Postgres.
func (l *localLock) poll() {
	l.state, l.session = polling, nil
	l.pollIn(&l.engine.pollers)
	l.engine.giveTurns()
}

// pollIn moves the lock to the end of p, or out of its list if p is nil.
func (l *localLock) pollIn(p *pollList) {
	if l.polls == p {
		return
	}
	if l.polls != nil {
		l.polls.remove(l)
	}
	if p != nil {
		p.add(l)
		l.engine.startPolling()
	}
}

// startPolling starts the timer, which runs until no lock is polled.
func (e *Engine) startPolling() {
	if !e.polling {
		e.polling = true
		time.AfterFunc(e.pollPause(), e.pollNext)
	}
}

// pollPause returns the time until the next locks are polled.
func (e *Engine) pollPause() time.Duration {
	if e.config.Lease != nil {
		return e.leasePollPause()
	}
	return pollInterval
}

// pollNext tries and probes the locks whose turn it is.
func (e *Engine) pollNext() {
	e.mu.Lock()
	defer e.unlockMu()
	if e.pollers.n > 0 {
		e.endTurn()
	}
	e.giveTurns() // the first lock may have left the list
	e.pollers.poll(func(l *localLock) {
		if l.state == polling && !l.isEarly() { // its last try may still be under way
			l.try()
		}
	})
	e.joiners.poll(func(l *localLock) {
		l.pollIn(nil)
		l.tryJoin()
	})
	if e.polling = false; e.pollers.n+e.joiners.n > 0 {
		e.startPolling()
	}
}

// giveTurns makes the reserved sessions wait for the first polled locks. If the first one is
// being tried, its session stays reserved: another lock would get more than its share,
// since tries and turns may well keep step with each other.
func (e *Engine) giveTurns() {
	for _, s := range e.sessions {
		if !s.reserved {
			continue
		}
		first := e.pollers.first
		if first != nil && first.state != polling {
			return
		}
		s.reserved = false
		if first != nil {
			first.waitOn(s)
		}
	}
}

// takePoller gives work to a session that was just opened.
func (s *session) takePoller() {
	e := s.engine
	if e.pollers.n > 0 && len(s.queue) == 0 && e.waitSession() == s {
		s.reserved = true
		e.giveTurns()
	}
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
			s.waiting.interruptWait()
			return
		}
	}
}
