package engine

import (
	"slices"
	"time"
)

// pollInterval is the time between two tries if no session is free to wait.
const pollInterval = 20 * time.Millisecond

// poll tries again after pollInterval.
func (l *localLock) poll() {
	e := l.engine
	l.state, l.session = polling, nil
	if l.lastTurn.IsZero() {
		l.lastTurn = time.Now()
	}
	e.pollers = append(e.pollers, l)
	l.later(func() {
		e.endTurn()
		if l.state == polling {
			l.stopPoll()
			l.try()
		}
	})
}

// later calls f after pollInterval, if the lock is still in the same state.
func (l *localLock) later(f func()) {
	e, state := l.engine, l.state
	var timer *time.Timer
	timer = time.AfterFunc(pollInterval, func() {
		e.mu.Lock()
		defer e.unlockMu()
		if l.timer == timer && l.state == state {
			f()
		}
	})
	l.timer = timer
}

// stopPoll stops polling.
func (l *localLock) stopPoll() {
	e := l.engine
	l.timer.Stop()
	l.timer = nil
	if i := slices.Index(e.pollers, l); i >= 0 {
		e.pollers = slices.Delete(e.pollers, i, i+1)
	}
}

// nextPoller returns the polled lock whose turn it is to wait in Postgres, and stops
// polling it.
func (e *Engine) nextPoller() *localLock {
	next := slices.MinFunc(e.pollers, func(a, b *localLock) int { return a.lastTurn.Compare(b.lastTurn) })
	next.stopPoll()
	return next
}

// takePoller gives work to a session that was just opened.
func (s *session) takePoller() {
	e := s.engine
	if len(e.pollers) == 0 || len(s.queue) > 0 {
		return
	}
	if e.waitSession() == s {
		e.nextPoller().waitOn(s)
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
