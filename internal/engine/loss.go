package engine

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// markLost removes a session that has ended, or must end, because of err. It notifies the
// holders of its locks, and moves or fails its operations.
func (s *session) markLost(err error) {
	e := s.engine
	if s.lost != nil {
		return
	}
	s.lost = err
	s.wake()
	e.sessions = slices.DeleteFunc(e.sessions, func(other *session) bool { return other == s })
	if !s.open && len(e.sessions) > 0 {
		e.noOpenUntil = time.Now().Add(openPause)
	}

	s.cause = fmt.Errorf("%w: %w", ErrLost, err)
	held := s.held
	s.held = nil
	for _, l := range held {
		l.markLost(s)
	}
	if l := s.waiting; l != nil {
		s.waiting = nil
		l.requeue(s)
	}
	for _, ops := range [][]op{s.batch, s.queue} {
		for _, o := range ops {
			s.moveOp(o)
		}
	}
	s.batch, s.queue = nil, nil
	for _, h := range append(s.confirming, s.unconfirmed...) {
		h.notify(s.cause)
	}
	s.confirming, s.unconfirmed = nil, nil
}

// markLost handles the loss of s, which held the lock.
func (l *localLock) markLost(s *session) {
	for _, h := range l.holders {
		l.engine.stats.Lost++
		s.losses++
		h.markLost(s.cause)
	}
	clear(l.holders)
	l.holders = l.holders[:0]
	// Only a reply of Postgres proves that it was held until now.
	if errors.Is(s.lost, errStillHeld) {
		l.notifyReleaser(fmt.Errorf("%w: %w", ErrUnconfirmed, s.lost))
	} else {
		l.notifyReleaser(s.cause)
	}
	l.retry, l.deferred, l.contended = false, false, false
	l.goIdle()
	l.notifySettled()
}

// moveOp moves an operation of a lost session to another one, or fails it.
func (s *session) moveOp(o op) {
	e := s.engine
	switch {
	case o.kind == opTry && o.lock.state == trying && o.lock.session == s:
		o.lock.requeue(s)
	case (o.kind == opProbe || o.kind == opQueued) && o.lock.probing:
		o.lock.probeDone(false)
	case o.kind == opMonitor:
		// Sessions that are not checked may be gone like this one.
		for _, waiting := range e.longWaits() {
			waiting.kill()
		}
		e.monitor.done(monitorInterval)
	case o.kind == opCancel:
		close(o.done)
	case o.kind == opQuery && !s.open && len(e.sessions) > 0 && !e.closed:
		e.servingSession(nil).push(o)
	case o.kind == opQuery:
		if o.query.err = s.lost; s.open {
			o.query.err = fmt.Errorf("%w: %w", ErrUnavailable, s.lost)
		}
		close(o.query.ready)
	}
}

// maxRetries is how often a request moves to another session after its session was
// lost.
const maxRetries = 2

// requeue moves a request from a lost session to another one, or refuses it after too many
// attempts. If the session never opened, the request is refused only if no other session
// can take it.
func (l *localLock) requeue(s *session) {
	l.contended = false
	if s.open {
		l.attempts++
	}
	if !s.open && len(l.engine.sessions) == 0 || l.attempts > maxRetries || l.engine.closed {
		err := s.lost
		if s.open {
			err = fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		l.refuse(err, anyHold)
		l.attempts = 0
	}
	l.goIdle()
	l.notifySettled()
}
