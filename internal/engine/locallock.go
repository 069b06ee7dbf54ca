package engine

import (
	"errors"
	"time"
)

// errExpired is the refusal of a request whose own time is over.
var errExpired = errors.New("expired")

// A localLock is a lock that some goroutine of this process holds or wants, like Postgres'
// LOCALLOCK of a backend. Engine.mu must be held for all its methods.
type localLock struct {
	engine  *Engine
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
	settled  []chan struct{} // closed for callers that gave up, once nothing is under way

	polls              *pollList // the list that it is in, or nil
	pollPrev, pollNext *localLock

	lease lockLease
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

// localLock returns the lock of key, and creates it if necessary.
func (e *Engine) localLock(key Key) *localLock {
	if l := e.locks[key]; l != nil {
		return l
	}
	var l *localLock
	if last := len(e.unusedLocks) - 1; last >= 0 {
		l = e.unusedLocks[last]
		e.unusedLocks[last] = nil
		e.unusedLocks = e.unusedLocks[:last]
	} else {
		l = new(localLock)
	}
	*l = localLock{engine: e, key: key}
	l.holders = l.first[:0]
	e.locks[key] = l
	return l
}

// maxUnusedLocks is how many unused localLocks are kept for reuse.
const maxUnusedLocks = 1024

// remove removes the lock, which must be idle and wanted by nobody, from the Engine.
func (l *localLock) remove() {
	e := l.engine
	l.pollIn(nil)
	delete(e.locks, l.key)
	if !l.probing && len(e.unusedLocks) < maxUnusedLocks { // no operation under way points to it
		e.unusedLocks = append(e.unusedLocks, l)
	}
	if len(e.locks) == 0 && e.drained != nil {
		close(e.drained)
		e.drained = nil
	}
}

// request starts the request h.
func (l *localLock) request(h *Hold) {
	h.lock = l
	switch l.state {
	case idle:
		l.queue.push(h)
		l.try()
	case trying, releasing:
		l.queue.push(h) // the running operation decides
	case held:
		alike := h.mode == Shared && l.mode == Shared && l.queue.exclusive == 0
		switch {
		case alike && l.queue.len() == 0 && time.Since(l.since) < l.engine.config.HandOver:
			l.grant(h)
		case alike:
			l.queue.push(h)
			l.probe()
		case h.noWait:
			h.refuse(ErrNotAcquired)
		default:
			l.queue.push(h)
			l.contended = true
		}
	case waiting, polling: // another session holds it
		if h.noWait {
			h.refuse(l.refusal())
		} else {
			l.queue.push(h)
		}
	}
}

// goIdle makes the lock idle, or requests its lock again if its queue is not empty.
func (l *localLock) goIdle() {
	l.state, l.session = idle, nil
	if l.queue.len() > 0 {
		l.try()
		return
	}
	l.remove()
}

// notifySettled signals callers that gave up that nothing is under way for them any more.
func (l *localLock) notifySettled() {
	if l.state == releasing {
		return // a lock that was granted too late may be being unlocked
	}
	for _, c := range l.settled {
		close(c)
	}
	l.settled = nil
}

// try requests the lock without waiting, in the mode of the first request in the queue.
func (l *localLock) try() {
	s := l.engine.servingSession(nil)
	l.state, l.session = trying, s
	l.pushTry(s)
}

// pushTry queues a try on s, in the mode and on the terms of the first request in the queue.
func (l *localLock) pushTry(s *session) {
	head := l.queue.front()
	l.want = head.mode
	s.push(op{kind: opTry, lock: l, mode: l.want, lease: l.tryArgs(head)})
}

// tryDone handles the result of a try.
func (l *localLock) tryDone(s *session, ok bool) {
	l.attempts = 0
	if ok {
		l.acquired(s)
		return
	}
	l.contended = true
	// If a shared lock is refused, so is an exclusive one.
	l.refuse(l.refusal(), func(h *Hold) bool {
		return h.noWait && (l.want == Shared || h.mode == l.want)
	})
	switch head := l.queue.front(); {
	case head == nil:
		l.goIdle()
	case head.noWait, head.mode == Shared && l.want == Exclusive:
		l.try()
	default:
		l.wait()
	}
	l.notifySettled()
}

// tryFailed handles the error of a try. The first request in the queue gets the error, and
// the others try again.
func (l *localLock) tryFailed(err error) {
	if head := l.queue.front(); head != nil {
		l.queue.remove(head)
		head.refuse(err)
	}
	l.goIdle()
	l.notifySettled()
}

// refuse refuses the queued requests that match which.
func (l *localLock) refuse(err error, which func(*Hold) bool) {
	for h := l.queue.front(); h != nil; {
		next := h.next
		if which(h) {
			l.queue.remove(h)
			h.refuse(err)
		}
		h = next
	}
}

func anyHold(*Hold) bool      { return true }
func noWaitHold(h *Hold) bool { return h.noWait }

// acquired handles a grant by Postgres: s holds the lock in mode l.want.
func (l *localLock) acquired(s *session) {
	l.pollIn(nil)
	l.state, l.mode, l.session = held, l.want, s
	l.since = s.lastReply
	l.contended, l.history = false, waitHistory{}
	l.slot = len(s.held)
	s.held = append(s.held, l)
	l.grantQueued()
	l.notifySettled()
}

// grantQueued grants a lock that Postgres granted to the first request in the queue, and to
// all that can share it. If no request wants it in this mode, it is unlocked again.
func (l *localLock) grantQueued() {
	for h := l.queue.front(); h != nil && h.mode == l.mode && l.suits(h); h = l.queue.front() {
		if l.mode == Exclusive && len(l.holders) > 0 {
			break
		}
		l.queue.remove(h)
		l.grant(h)
	}
	if len(l.holders) == 0 {
		l.unlock(nil)
		return
	}
	l.refuse(ErrNotAcquired, noWaitHold)
	l.contended = l.queue.len() > 0
}

// grant grants the lock to h.
func (l *localLock) grant(h *Hold) {
	h.state, h.session, h.index = granted, l.session, int32(len(l.holders))
	if h.lease != nil {
		h.lease.key, h.lease.token = l.key, l.lease.token
	}
	l.holders = append(l.holders, h)
	l.engine.held++
	if !h.step {
		l.engine.stats.Acquired++
	}
	h.notify(nil)
}

// release removes h from the holders. It reports whether an operation was started, to
// unlock or to confirm that the lock was held until now; h is notified of its result. The
// next holder in this process does not wait for it.
func (l *localLock) release(h *Hold) (pending bool) {
	last := len(l.holders) - 1
	l.holders[h.index] = l.holders[last]
	l.holders[h.index].index = h.index
	l.holders[last] = nil
	l.holders = l.holders[:last]
	if last > 0 {
		return l.session.confirm(h)
	}
	if next := l.queue.front(); next != nil && next.mode == l.mode && time.Since(l.since) < l.engine.config.HandOver {
		l.engine.stats.HandOvers++
		pending = l.session.confirm(h)
		l.grantQueued()
		return pending
	}
	l.unlock(h)
	return true
}

// unlock unlocks the lock in Postgres, which grants it to the first session in its lock
// queue. If requests of this process wait, a try follows the unlock directly.
func (l *localLock) unlock(releaser *Hold) {
	l.state, l.releaser = releasing, releaser
	if l.probing {
		// The probe holds the lock for an instant. Another process would be refused
		// a lock that our caller has released.
		l.deferred = true
		return
	}
	l.session.push(op{kind: opUnlock, lock: l, mode: l.mode, lease: l.unlockArgs(releaser)})
	if l.queue.len() > 0 {
		l.retry = true
		l.pushTry(l.session)
	}
}

// unlockDone handles the result of an unlock. If ok is false, the session did not hold the
// lock: another client unlocked it, or a pooler swaps sessions. Then nothing on this
// session can be relied on.
func (l *localLock) unlockDone(s *session, ok bool) {
	if !ok {
		s.markLost(errUnlockDenied)
		return
	}
	l.removeHeld()
	l.notifyReleaser(nil)
	if l.retry {
		l.retry, l.state, l.session = false, trying, s
		return // the result of the try comes next
	}
	l.goIdle()
	l.notifySettled()
}

// removeHeld removes the lock from those that its session holds.
func (l *localLock) removeHeld() {
	s := l.session
	last := len(s.held) - 1
	s.held[l.slot] = s.held[last]
	s.held[l.slot].slot = l.slot
	s.held[last] = nil
	s.held = s.held[:last]
}

// notifyReleaser notifies the Hold whose release started the unlock, if any.
func (l *localLock) notifyReleaser(err error) {
	if l.releaser != nil {
		l.releaser.notify(err)
		l.releaser = nil
	}
}

// abandon handles a request that gave up. It reports whether an operation is still under
// way that could acquire the lock for nobody.
func (l *localLock) abandon() bool {
	nobody := l.queue.len() == 0
	switch l.state {
	case trying:
		if nobody && l.session.withdraw(l) {
			l.goIdle()
			return false
		}
		return nobody
	case releasing:
		return nobody && l.retry
	case waiting:
		if nobody || l.queue.front().mode != l.want {
			l.interruptWait()
			return l.state == waiting && l.queue.len() == 0
		}
	case polling:
		if nobody {
			l.goIdle()
		}
	case held:
		l.tryJoin() // it may have blocked readers
	}
	return false
}
