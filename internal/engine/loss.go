package engine

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// markLost removes a lost session. It notifies the holders of its locks, and moves or
// fails its operations.
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
		for _, h := range l.holders {
			e.stats.Lost++
			s.losses++
			h.markLost(s.cause)
		}
		clear(l.holders)
		l.holders = l.holders[:0]
		// Only a reply of Postgres proves that it was held until now.
		if errors.Is(err, errStillHeld) {
			l.notifyReleaser(fmt.Errorf("%w: %w", ErrUnconfirmed, err))
		} else {
			l.notifyReleaser(s.cause)
		}
		l.retry, l.deferred, l.contended = false, false, false
		l.goIdle()
		l.notifySettled()
	}
	if l := s.waiting; l != nil {
		s.waiting = nil
		l.requeue(s, err)
	}
	for _, ops := range [][]op{s.batch, s.queue} {
		for _, o := range ops {
			switch {
			case o.kind == opTry && o.lock.state == trying && o.lock.session == s:
				o.lock.requeue(s, err)
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
				if o.query.err = err; s.open {
					o.query.err = fmt.Errorf("%w: %w", ErrUnavailable, err)
				}
				close(o.query.ready)
			}
		}
	}
	s.batch, s.queue = nil, nil
	for _, h := range append(s.confirming, s.unconfirmed...) {
		h.notify(s.cause)
	}
	s.confirming, s.unconfirmed = nil, nil
}

// maxRetries is how often a request moves to another session after its session was
// lost.
const maxRetries = 2

// requeue moves a request from a lost session to another one, or refuses it after too many
// attempts. If the session never opened, the request is refused only if no other session
// can take it.
func (l *localLock) requeue(s *session, err error) {
	l.contended = false
	if s.open {
		l.attempts++
	}
	if !s.open && len(l.engine.sessions) == 0 || l.attempts > maxRetries || l.engine.closed {
		if s.open {
			err = fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		l.refuse(err, anyHold)
		l.attempts = 0
	}
	l.goIdle()
	l.notifySettled()
}
