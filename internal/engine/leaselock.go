package engine

import (
	"fmt"
	"slices"
	"time"
)

// A lockLease is the part of a localLock that is a lease.
type lockLease struct {
	token int64      // while held
	terms LeaseTerms // on which it was taken

	broken string // leaseSession.broken when it was taken

	// What the last refusal said.
	at   time.Time // when that was
	due  time.Time // when it may be taken again, or zero
	left time.Time // when the holder's session expires if it is not renewed, or zero
}

// refused records why a try was refused.
func (l *lockLease) refused(r takeReply) {
	l.at, l.due, l.left = time.Now(), time.Time{}, time.Time{}
	at := time.Now().Add(time.Duration(min(r.value, int64((1<<62)/time.Millisecond))) * time.Millisecond)
	switch r.kind {
	case 'd':
		l.due = at
	case 'h':
		l.left = at
	}
}

// A NotDueError means that a lease may not be taken yet. It is an ErrNotAcquired.
type NotDueError struct {
	Due time.Duration // until it may be taken
}

func (e *NotDueError) Error() string {
	return fmt.Sprintf("%v: it is not due for %v", ErrNotAcquired, e.Due.Round(time.Millisecond))
}

func (e *NotDueError) Unwrap() error { return ErrNotAcquired }

// refusal returns the error of a request that the lock was refused to.
func (l *localLock) refusal() error {
	if due := time.Until(l.lease.due); due > 0 {
		return &NotDueError{due}
	}
	return ErrNotAcquired
}

// tryArgs returns the arguments of a try for the request h, or nil for an advisory lock.
func (l *localLock) tryArgs(h *Hold) *leaseArgs {
	if h.lease == nil {
		return nil
	}
	return &leaseArgs{terms: h.lease.terms}
}

// unlockArgs returns the arguments of an unlock for releaser, or nil for an advisory lock. If
// nobody has used the lease, it may be taken again at once.
func (l *localLock) unlockArgs(releaser *Hold) *leaseArgs {
	if l.engine.config.Lease == nil {
		return nil
	}
	return &leaseArgs{token: l.lease.token, again: releaser == nil || releaser.lease.again}
}

// suits reports whether the lock was taken on the terms of h.
func (l *localLock) suits(h *Hold) bool {
	return h.lease == nil || h.lease.terms == l.lease.terms
}

// leaseGone handles that the lease is not held any more, although its session is not lost:
// because of err, which says what that means for the holder.
func (l *localLock) leaseGone(err error) {
	s := l.session
	l.removeHeld()
	for _, h := range l.holders {
		l.engine.stats.Lost++
		s.losses++
		h.err = err
		h.markLost(err)
	}
	clear(l.holders)
	l.holders = l.holders[:0]
	l.notifyReleaser(err)
	l.contended = false
	if l.retry {
		l.retry, l.state, l.session = false, trying, s
		return // the result of the try comes next
	}
	l.goIdle()
	l.notifySettled()
}

// setTerms sets the terms of a request for a lease.
func (h *Hold) setTerms(terms LeaseTerms) {
	if h.engine.config.Lease != nil {
		h.lease = &leaseHold{terms: terms}
	}
}

// Token returns the token of a lease, which grows with each holder, and 0 for an advisory
// lock.
func (h *Hold) Token() int64 {
	if h.lease == nil {
		return 0
	}
	h.engine.mu.Lock()
	defer h.engine.mu.Unlock()
	return h.lease.token
}

// Retry makes the release of a lease end the time for which nobody may take it again.
func (h *Hold) Retry() {
	h.engine.mu.Lock()
	defer h.engine.mu.Unlock()
	if h.lease != nil {
		h.lease.again = true
	}
}

// lossCause returns why a lost lock was lost. Engine.mu must be held.
func (h *Hold) lossCause() error {
	if h.lease != nil && h.err != nil {
		return h.err
	}
	return h.session.cause
}

// checkTrust is called before any answer is given about h. Engine.mu must be held, and be
// unlocked by Engine.unlockMu.
func (h *Hold) checkTrust() {
	if h.lease != nil && h.state == granted {
		h.session.checkTrust()
	}
}

// wasGranted reports whether the lease was granted, after it has made sure that h does not
// claim to hold one that is lost since.
func (h *Hold) wasGranted() bool {
	h.engine.mu.Lock()
	defer h.engine.unlockMu()
	h.checkTrust()
	return h.state == granted || h.state == lost
}

const (
	// leasePollInterval is the time between two tries if nobody notifies us of a release:
	// behind a pooler.
	leasePollInterval = 225 * time.Millisecond
	// leaseSafetyInterval is the time if somebody does.
	leaseSafetyInterval = 5 * time.Second
)

// leasePollPause returns the time until the leases that are waited for are tried again: all
// of them in one statement.
func (e *Engine) leasePollPause() time.Duration {
	if len(e.sessions) == 0 || e.sessions[0].lease == nil || !e.sessions[0].lease.listener.active() {
		return jitter(leasePollInterval)
	}
	pause := leaseSafetyInterval
	for l := e.pollers.first; l != nil; l = l.pollNext {
		for _, at := range []time.Time{l.lease.due, l.lease.left} {
			if !at.IsZero() {
				pause = min(pause, time.Until(at))
			}
		}
	}
	return jitter(max(pause, pollInterval)) + pollInterval
}

// isEarly reports whether it is too early to poll the lock, because it is a lease that is not
// due. It may be due sooner than it was, if the work that it protects fails.
func (l *localLock) isEarly() bool {
	return time.Now().Before(l.lease.due) && time.Since(l.lease.at) < leaseSafetyInterval
}

// tryNamed tries the leases with a name that are waited for, because one of them may have
// been released.
func (e *Engine) tryNamed(name string) {
	e.mu.Lock()
	defer e.unlockMu()
	var polled []*localLock
	for l := e.pollers.first; l != nil; l = l.pollNext {
		if l.state == polling && (name == "" || l.key.Name == name) {
			polled = append(polled, l)
		}
	}
	for _, l := range slices.Clip(polled) {
		l.try()
	}
}

// Key returns the key of the lock.
func (h *Hold) Key() Key {
	h.engine.mu.Lock()
	defer h.engine.mu.Unlock()
	return h.lease.key
}
