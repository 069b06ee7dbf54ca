package engine

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/pglock-go/pglock/internal/sqlstate"
)

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
	nextDue  int       // number of waits at which the next sample is due
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
	if now.Before(l.engine.nextSample) {
		return false
	}
	for h := l.queue.front(); h != nil; h = h.next {
		if h.deadline.IsZero() || now.Before(h.deadline) {
			return l.history.turnover || l.history.waits+1 >= l.history.nextDue
		}
	}
	return false
}

// sample records the holders at the end of a wait, and whether they have changed. The query
// took some time, and the next one, for any lock, waits many times as long.
func (l *localLock) sample(holders string, took time.Duration) {
	l.engine.nextSample = time.Now().Add(monitorPause * took)
	p := &l.history
	p.nextDue = 2 * (p.waits + 1)
	p.turnover = p.sampled && (holders == "" || holders != p.holders)
	p.holders, p.sampled = holders, true
}

// maxWait limits how long one statement waits for a lock.
const maxWait = 15 * time.Minute

// length returns how long the next wait may be if it can be watched.
func (p *waitHistory) length(shortest time.Duration) time.Duration {
	if !p.turnover {
		return shortest
	}
	return min(max(shortest, time.Since(p.since)/2), maxWait)
}

// wait makes a session wait for the lock in Postgres. Requests that do not wait are
// refused, because another session holds the lock, and then this process queues for it.
func (l *localLock) wait() {
	l.refuse(l.refusal(), noWaitHold)
	if l.queue.len() == 0 {
		l.goIdle()
		return
	}
	if l.engine.config.Lease == nil {
		if s := l.engine.waitSession(); s != nil {
			if l.engine.pollers.n == 0 {
				l.waitOn(s)
				return
			}
			s.reserved = true
		}
	}
	l.poll()
}

// waitOn makes s wait for the lock in Postgres.
func (l *localLock) waitOn(s *session) {
	l.pollIn(nil)
	l.state, l.want, l.session = waiting, l.queue.front().mode, s
	s.waiting, s.cut = l, notCut
	if l.history.since.IsZero() {
		l.history.since = time.Now()
	}
	s.push(op{kind: opWait, lock: l, mode: l.want})
}

// limitWait sets how long s waits for l: as its history allows, but no longer than the
// longest deadline in the queue.
func (s *session) limitWait(l *localLock) {
	e := s.engine
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
		e.monitor.start()
	}
}

// runWait waits for one lock, until s.waitEnd at the latest.
func (s *session) runWait(o op) error {
	e := s.engine
	e.mu.Lock()
	slice := max(time.Until(s.waitEnd), time.Millisecond)
	e.mu.Unlock()
	// Rounded up, since 0 would mean no timeout.
	millis := strconv.FormatInt(int64((slice+time.Millisecond-1)/time.Millisecond), 10)
	_, err := s.queryText(slice+e.config.Heartbeat/2, waitSQL[letter(o.kind, o.key, o.mode)], s.keyText(o.key), millis)

	// A late order to cancel this wait must not hit the next statement. It is withdrawn
	// if it has not begun, and waited for otherwise.
	e.mu.Lock()
	s.waitEnd = time.Time{} // so no new cancel order is given
	s.withdrawCancel()
	canceled := s.canceled
	e.mu.Unlock()
	if canceled != nil {
		<-canceled
	}

	got := err == nil
	var holders string
	var took time.Duration
	sampled, awaited := false, false
	if err != nil {
		state := sqlstate.Of(err)
		if state == "" {
			return err
		}
		// The lock may have been granted just as the wait ended.
		var lost error
		if got, lost = s.checkGranted(o, err); lost != nil {
			return lost
		}
		// This session holds nothing, so a deadlock means that the holder waits for our
		// statement, and the server noticed it sooner than the monitor.
		awaited = state == sqlstate.DeadlockDetected && slice > e.config.Slice
		if got || awaited || state == sqlstate.LockNotAvailable || state == sqlstate.QueryCanceled {
			err = nil
		}
		e.mu.Lock()
		sampled = s.lost == nil && !got && err == nil && o.lock.sampleDue()
		e.mu.Unlock()
		if sampled {
			classid, objid, objsubid := o.key.columns()
			var failed error
			began := time.Now()
			holders, failed = s.queryText(e.config.Heartbeat/2, holdersSQL, classid, objid, objsubid)
			if failed != nil && sqlstate.Of(failed) == "" {
				return failed
			}
			sampled, took = failed == nil, time.Since(began)
		}
	}
	e.mu.Lock()
	defer e.unlockMu()
	s.canceled = nil
	if s.lost == nil {
		s.batch = nil
		if sampled {
			o.lock.sample(holders, took)
		}
		if awaited {
			s.cut = cutAwaited
		}
		o.lock.waitDone(s, got, err)
	}
	return s.lost
}

// checkGranted reports whether a wait was granted its lock although Postgres replied with the
// error after, because the wait ended just then. A try that fails proves that it was not.
// That is almost always so, and costs far less than a look at pg_locks if there are many
// locks. If checkGranted fails, the session must be closed, which holds nothing else.
func (s *session) checkGranted(o op, after error) (bool, error) {
	o.kind = opTry
	reply, err := s.queryOne(o)
	switch {
	case err == nil && reply == "0":
		return false, nil
	case err == nil:
		// The lock is held once or twice. What is left after one unlock was granted
		// to the wait.
		o.kind = opUnlock
		if reply, err = s.queryOne(o); err == nil && reply != "1" {
			err = errUnlockDenied
		}
		if err != nil {
			return false, err
		}
	case sqlstate.Of(err) == "" && strings.HasPrefix(sqlstate.Of(after), "57P"):
		return false, after // with this error Postgres ends the session
	case sqlstate.Of(err) == "":
		return false, err
	}
	has, lost := s.queryHeld(after)
	if lost != nil {
		return false, lost
	}
	granted := has[heldLock{o.key, o.mode}]
	if granted && err != nil {
		return false, fmt.Errorf("a lock may be left by a try that failed: %w", err)
	}
	return granted, nil
}

// waitDone handles the end of a wait in Postgres. If ok, s holds the lock. Otherwise err is
// the failure, or nil if the wait timed out or was cut short.
func (l *localLock) waitDone(s *session, ok bool, err error) {
	s.waiting = nil
	l.attempts = 0
	if ok {
		l.acquired(s)
		return
	}
	l.session = nil
	l.history.record(s.cut)
	if head := l.queue.front(); err != nil && head != nil {
		l.queue.remove(head)
		head.refuse(err)
	}
	now := time.Now()
	l.refuse(errExpired, func(h *Hold) bool { return !h.deadline.IsZero() && !now.Before(h.deadline) })
	switch {
	case l.queue.len() == 0:
		l.goIdle()
	case err == nil && l.engine.pollers.n > 0 && len(s.queue) == 0:
		// Every key with waiting requests gets its turn in Postgres' lock queue.
		s.reserved = true
		l.poll()
	default:
		l.wait()
	}
	l.notifySettled()
}
