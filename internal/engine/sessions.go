package engine

import "time"

// maxLocksPerSession limits how many locks a session holds before new ones go to another
// session. At the end of every transaction Postgres walks through all locks of the
// backend (LockReleaseAll in lock.c), so they slow down every later statement: 10,000
// locks cost a millisecond, 50,000 ten.
const maxLocksPerSession = 10_000

// canOpen reports whether another session may be opened.
func (e *Engine) canOpen() bool {
	return len(e.sessions) < e.config.Sessions && (len(e.sessions) == 0 || !time.Now().Before(e.noOpenUntil))
}

// waits reports whether s waits for a lock, or is about to.
func (s *session) waits() bool { return s.waiting != nil || s.reserved }

// servingSession returns a session other than except that is not waiting for a lock, or
// that will soon not be. It returns nil if there is no other session.
func (e *Engine) servingSession(except *session) *session {
	var opening, lightest, waiting *session
	for _, s := range e.sessions {
		switch {
		case s == except:
		case s.waits():
			if waiting == nil {
				waiting = s
			}
		case len(s.held)+len(s.queue) >= maxLocksPerSession && e.config.Lease == nil:
			if lightest == nil || len(s.held)+len(s.queue) < len(lightest.held)+len(lightest.queue) {
				lightest = s
			}
		case s.open:
			return s
		case opening == nil:
			opening = s
		}
	}
	switch {
	case opening != nil:
		return opening
	case lightest != nil && len(e.sessions) >= e.config.Sessions/2:
		return lightest // the other half is for waiting
	case e.canOpen():
		return e.openSession()
	case lightest != nil:
		return lightest
	}
	return waiting // its queue is served between two waits
}

// idleSession returns an open session other than except that waits for nothing and can be
// used at once, or nil.
func (e *Engine) idleSession(except *session) *session {
	for _, s := range e.sessions {
		if s != except && s.open && !s.waits() {
			return s
		}
	}
	return nil
}

// waitSession returns an open session that holds nothing and has nothing to do. If there is
// none, it opens one if there is room, and returns nil. If there may be more than one
// session, it keeps one free for requests that do not wait.
func (e *Engine) waitSession() *session {
	waiting := 0
	var idle *session
	opening := false
	for _, s := range e.sessions {
		switch {
		case s.waits():
			waiting++
		case !s.open:
			opening = true
		case len(s.held) == 0 && len(s.queue) == 0 && len(s.batch) == 0:
			idle = s
		}
	}
	most := e.config.Sessions
	if !e.canOpen() {
		most = len(e.sessions)
	}
	switch {
	case most > 1 && waiting >= most-1:
		return nil
	case idle != nil:
		return idle
	case !opening && e.canOpen():
		e.openSession()
	}
	return nil
}

// sideSession returns a session for a statement that may take long. It prefers one that
// holds nothing, so that no lock is lost if the statement takes too long.
func (e *Engine) sideSession() *session {
	for _, s := range e.sessions {
		if !s.waits() && len(s.held) == 0 {
			return s
		}
	}
	if e.canOpen() {
		return e.openSession()
	}
	return e.servingSession(nil)
}

// openSession starts a new session. Queued operations run when it is open.
func (e *Engine) openSession() *session {
	s := &session{engine: e, owner: runner, busy: true, wakeup: make(chan struct{}, 1), forgetBackend: func() {}}
	e.sessions = append(e.sessions, s)
	e.wg.Add(1)
	if e.config.Lease != nil {
		s.shared = true // a last statement removes its row
		go s.runLeases()
		return s
	}
	go s.run()
	return s
}
