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
func (l *localLock) interruptWait() {
	if l.state != waiting {
		return
	}
	s := l.session
	if s.withdraw(l) { // it has not begun
		s.waiting = nil
		if l.queue.len() == 0 {
			l.goIdle()
		} else {
			l.waitOn(s)
		}
		return
	}
	if s.canceled != nil || time.Until(s.waitEnd) < minWait {
		return // it ends by itself
	}
	k := s.canceler()
	switch {
	case k == nil && l.engine.closed:
		return // it ends with its slice, and Close waits for that
	case k == nil:
		s.kill() // no other session can cancel it
		return
	}
	s.canceled = make(chan struct{})
	k.push(op{kind: opCancel, target: s, done: s.canceled})
}

// canceler returns a session that can cancel s's wait, or nil. It opens none while the
// Engine closes.
func (s *session) canceler() *session {
	e := s.engine
	if !e.closed {
		if k := e.servingSession(s); k != nil && !k.waits() {
			return k
		}
		return nil
	}
	for _, k := range e.sessions {
		if k != s && !k.waits() && k.open {
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
		return err // markLost closes done
	}
	return s.finish(func() { close(o.done) })
}

// withdrawCancel withdraws the order to cancel s's wait, if that has not begun.
func (s *session) withdrawCancel() {
	if s.canceled == nil {
		return
	}
	for _, k := range s.engine.sessions {
		if i := slices.IndexFunc(k.queue, func(o op) bool { return o.target == s }); i >= 0 {
			k.queue = slices.Delete(k.queue, i, i+1)
			s.canceled = nil
		}
	}
}
