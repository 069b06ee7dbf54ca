package engine

import (
	"slices"
	"time"

	"github.com/pglock-go/pglock/internal/sqlstate"
)

// probe checks whether other sessions wait for a lock that is held shared. While none
// does, any number of readers may join. Once one does, joining is limited in time, so
// that it gets its turn. The check is a try on another session, which costs next to
// nothing. If there is none, the session that holds the lock reads pg_locks.
func (e *Engine) probe(l *localLock) {
	if l.probing {
		return
	}
	l.probing = true
	if s := e.idleSession(l.session); s != nil {
		s.push(op{kind: opProbe, lock: l, mode: Shared})
		return
	}
	if e.canOpen() && !slices.ContainsFunc(e.sessions, func(s *session) bool { return !s.open }) {
		e.openSession() // for the next time
	}
	l.session.push(op{kind: opQueued, lock: l, mode: Shared})
}

// runQueued checks whether any session waits for a lock that this session holds.
func (s *session) runQueued(o op) error {
	e := s.engine
	classid, objid, objsubid := o.key.columns()
	reply, err := s.queryText(e.config.Heartbeat/2, queuedSQL, classid, objid, objsubid)
	if err != nil && sqlstate.Of(err) == "" {
		return err
	}
	e.mu.Lock()
	defer e.unlockMu()
	if s.lost == nil {
		s.batch = nil
		e.probeDone(o.lock, err == nil && reply == "1")
	}
	return s.lost
}

// probeDone handles the result of a probe: ok means that another session could acquire the
// lock shared.
func (e *Engine) probeDone(l *localLock, ok bool) {
	l.probing = false
	if l.deferred {
		l.deferred = false
		e.unlockInPostgres(l, l.releaser)
		return
	}
	if l.state != held || l.mode != Shared {
		return // the queue has been handled since
	}
	if ok {
		l.since = time.Now()
		e.grantQueued(l)
		return
	}
	e.refuseNoWait(l, anyHold)
	if l.queue.len() > l.queue.exclusive {
		e.later(l, func() { e.tryJoin(l) }) // the other waiters may give up
	}
}

// tryJoin starts a probe if the first request in the queue may join the holders.
func (e *Engine) tryJoin(l *localLock) {
	if head := l.queue.front(); head != nil && head.mode == Shared && l.mode == Shared {
		e.probe(l)
	}
}
