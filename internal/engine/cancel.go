package engine

import (
	"slices"
	"strconv"
	"time"

	"github.com/pglock-go/pglock/internal/sqlstate"
)

// A cutReason is why a wait in Postgres is ended early.
type cutReason uint8

const (
	notCut     cutReason = iota
	cutForTurn           // another key of this process gets its turn
	cutAwaited           // another session waits for our statement to end
)

// minWait is a remaining wait that is too short to be worth canceling.
const minWait = 10 * time.Millisecond

// interruptWait ends a wait in Postgres early.
func (e *Engine) interruptWait(l *localLock) {
	if l.state != waiting {
		return
	}
	s := l.session
	if s.withdraw(l) { // it has not begun
		s.waiting = nil
		if l.queue.len() == 0 {
			e.goIdle(l)
		} else {
			e.waitOn(l, s)
		}
		return
	}
	if s.canceled != nil || time.Until(s.waitEnd) < minWait {
		return // it ends by itself
	}
	k := e.canceler(s)
	switch {
	case k == nil && e.closed:
		return // it ends with its slice, and Close waits for that
	case k == nil:
		s.kill() // no other session can cancel it
		return
	}
	s.canceled = make(chan struct{})
	k.push(op{kind: opCancel, target: s, done: s.canceled})
}

// killWait ends a wait in Postgres that nobody wants any more and that could not be
// canceled in time. It closes the session, which holds nothing.
func (e *Engine) killWait(l *localLock, settled chan struct{}) {
	e.mu.Lock()
	defer e.unlockMu()
	if slices.Contains(l.settled, settled) && l.state == waiting && l.queue.len() == 0 {
		l.session.kill()
	}
}

// canceler returns a session that can cancel s's wait, or nil. It opens none while the
// Engine closes.
func (e *Engine) canceler(s *session) *session {
	if !e.closed {
		if k := e.servingSession(s); k != nil && k.waiting == nil {
			return k
		}
		return nil
	}
	for _, k := range e.sessions {
		if k != s && k.waiting == nil && k.open {
			return k
		}
	}
	return nil
}

// runCancel cancels another session's wait. If that fails, the wait ends with its slice.
func (s *session) runCancel(o op) error {
	e := s.engine
	e.mu.Lock()
	pid, start := o.target.pid, o.target.start
	e.mu.Unlock()
	_, err := s.queryText(e.config.Heartbeat/2, cancelSQL, strconv.Itoa(int(pid)), start)
	if err != nil && sqlstate.Of(err) == "" {
		return err // sessionLost closes done
	}
	e.mu.Lock()
	defer e.unlockMu()
	if s.lost == nil {
		s.batch = nil
		close(o.done)
	}
	return s.lost
}

// withdrawCancel withdraws the order to cancel s's wait, if that has not begun.
func (e *Engine) withdrawCancel(s *session) {
	if s.canceled == nil {
		return
	}
	for _, k := range e.sessions {
		if i := slices.IndexFunc(k.queue, func(o op) bool { return o.target == s }); i >= 0 {
			k.queue = slices.Delete(k.queue, i, i+1)
			s.canceled = nil
		}
	}
}
