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
func (l *localLock) probe() {
	e := l.engine
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
	classid, objid, objsubid := o.key.columns()
	reply, err := s.queryText(s.engine.config.Heartbeat/2, queuedSQL, classid, objid, objsubid)
	if err != nil && sqlstate.Of(err) == "" {
		return err
	}
	return s.finish(func() { o.lock.probeDone(err == nil && reply == "1") })
}

// probeDone handles the result of a probe: ok means that another session could acquire the
// lock shared.
func (l *localLock) probeDone(ok bool) {
	l.probing = false
	if l.deferred {
		l.deferred = false
		l.unlock(l.releaser)
		return
	}
	if l.state != held || l.mode != Shared {
		return // the queue has been handled since
	}
	if ok {
		l.since = time.Now()
		l.grantQueued()
		return
	}
	l.refuse(ErrNotAcquired, noWaitHold)
	if l.queue.len() > l.queue.exclusive {
		l.pollIn(&l.engine.joiners) // the other waiters may give up
	}
}

// tryJoin starts a probe if the first request in the queue may join the holders.
func (l *localLock) tryJoin() {
	if head := l.queue.front(); l.state == held && l.mode == Shared && head != nil && head.mode == Shared {
		l.probe()
	}
}
