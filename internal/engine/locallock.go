package engine

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// errExpired is the refusal of a request whose own time is over.
var errExpired = errors.New("expired")

// A localLock is a lock that some goroutine of this process holds or wants, like Postgres'
// LOCALLOCK of a backend. Engine.mu must be
// held for all methods of Engine in this file.
type localLock struct {
	key     Key
	state   lockState
	want    Mode      // the mode that is tried or waited for
	mode    Mode      // the mode held in Postgres, while held or releasing
	session *session  // the session that tries, waits or holds
	since   time.Time // when Postgres granted it, or reported no other waiters
	queue   queue     // waiting requests of this process
	holders []*Hold   // one exclusive Hold, or any number of shared ones
	first   [1]*Hold  // initial array of holders, which saves an allocation
	slot    int       // in session.held

	contended bool // Postgres reported that another session holds it, or a Hold of this process does
	history   waitHistory

	releaser *Hold           // to be notified of the unlock, or nil
	retry    bool            // a try is queued directly after the unlock
	probing  bool            // a probe for other waiters is running
	deferred bool            // the unlock waits for the probe to finish
	attempts int             // sessions lost in a row during requests
	lastTurn time.Time       // when it last waited in Postgres, or began to poll
	timer    *time.Timer     // of the next poll or probe
	settled  []chan struct{} // closed for callers that gave up, once nothing is under way
}

type lockState uint8

const (
	idle      lockState = iota // not requested, not held
	trying                     // a try is queued or running
	waiting                    // a session waits for it in Postgres
	polling                    // no session is free to wait, so it is tried periodically
	held                       // held in Postgres
	releasing                  // an unlock is queued or running
)

// request starts a request.
func (e *Engine) request(l *localLock, h *Hold) {
	h.lock = l
	switch l.state {
	case idle:
		l.queue.push(h)
		e.try(l)
	case trying, releasing:
		l.queue.push(h) // the running operation decides
	case held:
		alike := h.mode == Shared && l.mode == Shared && l.queue.exclusive == 0
		switch {
		case alike && l.queue.len() == 0 && time.Since(l.since) < e.config.HandOver:
			e.grant(l, h)
		case alike:
			l.queue.push(h)
			e.probe(l)
		case h.noWait:
			h.refuse(ErrNotAcquired)
		default:
			l.queue.push(h)
			l.contended = true
		}
	case waiting, polling: // another session holds it
		if h.noWait {
			h.refuse(ErrNotAcquired)
		} else {
			l.queue.push(h)
		}
	}
}

// goIdle makes the lock idle, or requests its lock again if its queue is not empty.
func (e *Engine) goIdle(l *localLock) {
	l.state, l.session = idle, nil
	if l.queue.len() > 0 {
		e.try(l)
		return
	}
	e.dropLock(l)
}

// notifySettled signals callers that gave up that nothing is under way for them any more.
func (e *Engine) notifySettled(l *localLock) {
	if l.state == releasing {
		return // a lock that was granted too late may be being unlocked
	}
	for _, c := range l.settled {
		close(c)
	}
	l.settled = nil
}

// try requests the lock without waiting, in the mode of the first request in the queue.
func (e *Engine) try(l *localLock) {
	s := e.servingSession(nil)
	l.state, l.want, l.session = trying, l.queue.front().mode, s
	s.push(op{kind: opTry, lock: l, mode: l.want})
}

// tryDone handles the result of a try.
func (e *Engine) tryDone(l *localLock, s *session, ok bool) {
	l.attempts = 0
	if ok {
		e.lockGranted(l, s)
		return
	}
	l.contended = true
	// If a shared lock is refused, so is an exclusive one.
	e.refuseNoWait(l, func(h *Hold) bool { return l.want == Shared || h.mode == l.want })
	switch head := l.queue.front(); {
	case head == nil:
		e.goIdle(l)
	case head.noWait, head.mode == Shared && l.want == Exclusive:
		e.try(l)
	default:
		e.startWait(l)
	}
	e.notifySettled(l)
}

// tryFailed handles the error of a try. The first request in the queue gets the error, and
// the others try again.
func (e *Engine) tryFailed(l *localLock, err error) {
	if head := l.queue.front(); head != nil {
		l.queue.remove(head)
		head.refuse(err)
	}
	e.goIdle(l)
	e.notifySettled(l)
}

// refuseNoWait refuses the queued requests that do not wait and match which.
func (e *Engine) refuseNoWait(l *localLock, which func(*Hold) bool) {
	for h := l.queue.front(); h != nil; {
		next := h.next
		if h.noWait && which(h) {
			l.queue.remove(h)
			h.refuse(ErrNotAcquired)
		}
		h = next
	}
}

func anyHold(*Hold) bool { return true }

// startWait makes a session wait for the lock in Postgres. Requests that do not wait are
// refused, because another session holds the lock, and then this process queues for it.
func (e *Engine) startWait(l *localLock) {
	e.refuseNoWait(l, anyHold)
	if l.queue.len() == 0 {
		e.goIdle(l)
		return
	}
	if s := e.waitSession(); s != nil {
		e.waitOn(l, s)
		return
	}
	e.startPoll(l)
}

// waitOn makes s wait for the lock in Postgres.
func (e *Engine) waitOn(l *localLock, s *session) {
	l.state, l.want, l.session = waiting, l.queue.front().mode, s
	s.waiting, s.cut = l, notCut
	if l.history.since.IsZero() {
		l.history.since = time.Now()
	}
	s.push(op{kind: opWait, lock: l, mode: l.want})
}

// startPoll tries again after pollInterval.
func (e *Engine) startPoll(l *localLock) {
	l.state, l.session = polling, nil
	if l.lastTurn.IsZero() {
		l.lastTurn = time.Now()
	}
	e.pollers = append(e.pollers, l)
	e.later(l, func() {
		e.endTurn()
		if l.state == polling {
			e.stopPoll(l)
			e.try(l)
		}
	})
}

// later calls f after pollInterval, if the lock is still in the same state.
func (e *Engine) later(l *localLock, f func()) {
	state := l.state
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
func (e *Engine) stopPoll(l *localLock) {
	l.timer.Stop()
	l.timer = nil
	if i := slices.Index(e.pollers, l); i >= 0 {
		e.pollers = slices.Delete(e.pollers, i, i+1)
	}
}

// waitDone handles the end of a wait in Postgres. If ok, s holds the lock. Otherwise err is
// the failure, or nil if the wait timed out or was cut short.
func (e *Engine) waitDone(l *localLock, s *session, ok bool, err error) {
	s.waiting = nil
	l.attempts = 0
	if ok {
		e.lockGranted(l, s)
		return
	}
	l.session, l.lastTurn = nil, time.Now()
	l.history.record(s.cut)
	if head := l.queue.front(); err != nil && head != nil {
		l.queue.remove(head)
		head.refuse(err)
	}
	e.expire(l)
	switch {
	case l.queue.len() == 0:
		e.goIdle(l)
	case err == nil && len(e.pollers) > 0 && len(s.queue) == 0:
		// Every key with waiting requests gets its turn in Postgres' lock queue.
		e.waitOn(e.nextPoller(), s)
		e.startPoll(l)
	default:
		e.startWait(l)
	}
	e.notifySettled(l)
}

// nextPoller returns the polled lock whose turn it is to wait in Postgres, and stops
// polling it.
func (e *Engine) nextPoller() *localLock {
	next := slices.MinFunc(e.pollers, func(a, b *localLock) int { return a.lastTurn.Compare(b.lastTurn) })
	e.stopPoll(next)
	return next
}

// expire refuses the requests whose own time is over.
func (e *Engine) expire(l *localLock) {
	now := time.Now()
	for h := l.queue.front(); h != nil; {
		next := h.next
		if !h.deadline.IsZero() && !now.Before(h.deadline) {
			l.queue.remove(h)
			h.refuse(errExpired)
		}
		h = next
	}
}

// lockGranted handles a grant: s holds the lock in mode l.want.
func (e *Engine) lockGranted(l *localLock, s *session) {
	l.state, l.mode, l.session = held, l.want, s
	l.since, l.lastTurn = s.lastReply, time.Time{}
	l.contended, l.history = false, waitHistory{}
	l.slot = len(s.held)
	s.held = append(s.held, l)
	e.grantQueued(l)
	e.notifySettled(l)
}

// grantQueued grants a lock that Postgres granted to the first request in the queue, and to
// all that can share it. If no request wants it in this mode, it is unlocked again.
func (e *Engine) grantQueued(l *localLock) {
	for h := l.queue.front(); h != nil && h.mode == l.mode; h = l.queue.front() {
		if l.mode == Exclusive && len(l.holders) > 0 {
			break
		}
		l.queue.remove(h)
		e.grant(l, h)
	}
	if len(l.holders) == 0 {
		e.unlockInPostgres(l, nil)
		return
	}
	e.refuseNoWait(l, anyHold)
	l.contended = l.queue.len() > 0
}

// grant grants the lock to h.
func (e *Engine) grant(l *localLock, h *Hold) {
	h.state, h.session, h.index = granted, l.session, int32(len(l.holders))
	l.holders = append(l.holders, h)
	e.held++
	e.stats.Acquired++
	e.notify(h, nil)
}

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

// release removes h from the holders. It reports whether an operation was started, to
// unlock or to confirm that the lock was held until now; h is notified of its result. The
// next holder in this process does not wait for it.
func (e *Engine) release(l *localLock, h *Hold) (asked bool) {
	last := len(l.holders) - 1
	l.holders[h.index] = l.holders[last]
	l.holders[h.index].index = h.index
	l.holders[last] = nil
	l.holders = l.holders[:last]
	if last > 0 {
		return l.session.confirm(h)
	}
	if next := l.queue.front(); next != nil && next.mode == l.mode && time.Since(l.since) < e.config.HandOver {
		e.stats.HandOvers++
		asked = l.session.confirm(h)
		e.grantQueued(l)
		return asked
	}
	e.unlockInPostgres(l, h)
	return true
}

// unlockInPostgres unlocks the lock in Postgres, which grants it to the first session in
// its lock queue. If requests of this process wait, a try follows the unlock directly.
func (e *Engine) unlockInPostgres(l *localLock, releaser *Hold) {
	l.state, l.releaser = releasing, releaser
	if l.probing {
		// The probe holds the lock for an instant. Another process would be refused
		// a lock that our caller has released.
		l.deferred = true
		return
	}
	l.session.push(op{kind: opUnlock, lock: l, mode: l.mode})
	if next := l.queue.front(); next != nil {
		l.retry, l.want = true, next.mode
		l.session.push(op{kind: opTry, lock: l, mode: l.want})
	}
}

// unlockDone handles the result of an unlock. If ok is false, the session did not hold the
// lock: another client unlocked it, or a pooler swaps sessions. Then nothing on this
// session can be relied on.
func (e *Engine) unlockDone(l *localLock, s *session, ok bool) {
	if !ok {
		e.sessionLost(s, errUnlockDenied)
		return
	}
	last := len(s.held) - 1
	s.held[l.slot] = s.held[last]
	s.held[l.slot].slot = l.slot
	s.held[last] = nil
	s.held = s.held[:last]
	e.notifyReleaser(l, nil)
	if l.retry {
		l.retry, l.state, l.session = false, trying, s
		return // the result of the try comes next
	}
	e.goIdle(l)
	e.notifySettled(l)
}

// notifyReleaser notifies the Hold whose release started the unlock, if any.
func (e *Engine) notifyReleaser(l *localLock, err error) {
	if l.releaser != nil {
		e.notify(l.releaser, err)
		l.releaser = nil
	}
}

// abandon handles a request that gave up. It reports whether an operation is still under
// way that could acquire the lock for nobody.
func (e *Engine) abandon(l *localLock) bool {
	nobody := l.queue.len() == 0
	switch l.state {
	case trying:
		if nobody && l.session.withdraw(l) {
			e.goIdle(l)
			return false
		}
		return nobody
	case releasing:
		return nobody && l.retry
	case waiting:
		if nobody || l.queue.front().mode != l.want {
			e.interruptWait(l)
			return l.state == waiting && l.queue.len() == 0
		}
	case polling:
		if nobody {
			e.stopPoll(l)
			e.goIdle(l)
		}
	case held:
		e.tryJoin(l) // it may have blocked readers
	}
	return false
}

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

// minWait is a remaining wait that is too short to be worth canceling.
const minWait = 10 * time.Millisecond

// sessionLost removes a lost session. It notifies the holders of its locks, and moves or
// fails its operations.
func (e *Engine) sessionLost(s *session, err error) {
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
			e.notifyReleaser(l, fmt.Errorf("%w: %w", ErrUnconfirmed, err))
		} else {
			e.notifyReleaser(l, s.cause)
		}
		l.retry, l.deferred, l.contended = false, false, false
		e.goIdle(l)
		e.notifySettled(l)
	}
	if l := s.waiting; l != nil {
		s.waiting = nil
		e.requeue(l, s, err)
	}
	for _, ops := range [][]op{s.batch, s.queue} {
		for _, o := range ops {
			switch {
			case o.kind == opTry && o.lock.state == trying && o.lock.session == s:
				e.requeue(o.lock, s, err)
			case (o.kind == opProbe || o.kind == opQueued) && o.lock.probing:
				e.probeDone(o.lock, false)
			case o.kind == opMonitor:
				// Sessions that are not checked may be gone like this one.
				for _, waiting := range e.longWaits() {
					waiting.kill()
				}
				e.monitorDone(monitorInterval)
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
		e.notify(h, s.cause)
	}
	s.confirming, s.unconfirmed = nil, nil
}

// requeue moves a request from a lost session to another one, or refuses it after too many
// attempts. If the session never opened, the request is refused only if no other session
// can take it.
func (e *Engine) requeue(l *localLock, s *session, err error) {
	l.contended = false
	if s.open {
		l.attempts++
	}
	if !s.open && len(e.sessions) == 0 || l.attempts > maxRetries || e.closed {
		if s.open {
			err = fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		for h := l.queue.front(); h != nil; h = l.queue.front() {
			l.queue.remove(h)
			h.refuse(err)
		}
		l.attempts = 0
	}
	e.goIdle(l)
	e.notifySettled(l)
}
