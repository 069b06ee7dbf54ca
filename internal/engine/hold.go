package engine

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// A Hold is a request for a lock and, once granted, the held lock.
type Hold struct {
	engine  *Engine
	mode    Mode
	noWait  bool
	partial bool // see Wait.Part
	step    bool // see Wait.Step

	// ready receives once when the request has its result, and once when the release has.
	// It is one of Engine.readyChans, and nil while the lock is held.
	ready chan struct{}

	// Guarded by Engine.mu.
	state      holdState
	index      int32 // index in lock.holders
	lock       *localLock
	session    *session  // the session that holds or held it
	deadline   time.Time // refused at this time at the latest; zero for none
	prev, next *Hold     // in lock.queue, later in Engine.ready
	err        error     // the reason of a refusal, or of a failed release
	lease      *leaseHold
	onLoss     []func(error)
	done       chan struct{} // created by Done
}

// A leaseHold is what a Hold of a lease has besides.
type leaseHold struct {
	terms LeaseTerms
	key   Key
	token int64
	again bool // see Hold.Retry
}

type holdState uint8

const (
	requested holdState = iota // in the lock's queue
	refused                    // not granted
	granted                    // held
	released                   // was held, and has been released
	lost                       // was held, and its session was lost
)

func notAcquired(cause error) error {
	if cause == nil {
		return ErrNotAcquired
	}
	return fmt.Errorf("%w: %w", ErrNotAcquired, cause)
}

func (e *Engine) newHold(mode Mode, noWait bool) *Hold {
	return &Hold{engine: e, mode: mode, noWait: noWait, ready: e.readyChans.Get().(chan struct{})}
}

// notify sets the result of h, which is notified when Engine.mu is unlocked, because a
// woken goroutine needs the mutex next. Engine.mu must be held, and h must not be in a
// queue.
func (h *Hold) notify(err error) {
	h.err = err
	h.engine.ready.push(h)
}

// putReady returns the channel to the pool until h needs it again.
func (h *Hold) putReady() {
	h.engine.readyChans.Put(h.ready)
	h.ready = nil
}

// leaseReleaseLimit is how long a caller waits for the release of a lease: it could be as long as
// the lease lasts.
const leaseReleaseLimit = 10 * time.Second

// awaitRelease waits for the result of a release that began at began.
func (h *Hold) awaitRelease(began time.Time) error {
	if h.lease != nil {
		timer := time.NewTimer(time.Until(began.Add(leaseReleaseLimit)))
		defer timer.Stop()
		select {
		case <-h.ready:
		case <-timer.C:
			// The release goes on, and its result comes into a channel that nobody reads.
			return fmt.Errorf("%w: no reply within %v; it is released as soon as the server replies, or expires", ErrUnconfirmed, leaseReleaseLimit)
		}
	} else {
		<-h.ready // the watchdog guarantees that it comes
	}
	h.putReady()
	return h.err
}

// releaseBegan returns the time, if the callers of a release wait for a limited time.
func (e *Engine) releaseBegan() (now time.Time) {
	if e.config.Lease != nil {
		now = time.Now()
	}
	return now
}

// setDeadline sets the deadline to the earlier one of wait and ctx.
func (h *Hold) setDeadline(ctx context.Context, wait Wait) {
	if wait.For > 0 {
		h.deadline = time.Now().Add(wait.For)
	}
	if d, ok := ctx.Deadline(); ok && (h.deadline.IsZero() || d.Before(h.deadline)) {
		h.deadline = d
	}
}

// settleTimeout is how long a caller that gave up waits for operations still under way
// for it. They take a round trip or two, unless the server is silent.
const settleTimeout = time.Second

// awaitSettled waits until no operation is under way that could acquire a lock for
// nobody. If the server is silent, it stops waiting and returns false. The engine then
// unlocks whatever is granted later.
func awaitSettled(underWay ...<-chan struct{}) bool {
	timer := time.NewTimer(settleTimeout)
	defer timer.Stop()
	for _, settled := range underWay {
		select {
		case <-settled:
		case <-timer.C:
			return false
		}
	}
	return true
}

// killWait ends a wait in Postgres that nobody wants any more and that could not be
// canceled in time. It closes the session, which holds nothing.
func (h *Hold) killWait(settled chan struct{}) {
	h.engine.mu.Lock()
	defer h.engine.unlockMu()
	l := h.lock
	if slices.Contains(l.settled, settled) && l.state == waiting && l.queue.len() == 0 {
		l.session.kill()
	}
}

// awaitRequest waits for the result of the request. If it gives up while an operation is
// still under way, it returns a channel that is closed when that is over.
func (h *Hold) awaitRequest(ctx context.Context, wait Wait) (_ *Hold, settled chan struct{}, _ error) {
	select {
	case <-h.ready:
		return h.requestResult(ctx)
	default:
	}
	if ctx.Done() == nil && wait.For == 0 {
		<-h.ready // costs less than a select
		return h.requestResult(ctx)
	}
	var timeout <-chan time.Time
	if wait.For > 0 {
		timer := time.NewTimer(time.Until(h.deadline))
		defer timer.Stop()
		timeout = timer.C
	}
	select {
	case <-h.ready:
		return h.requestResult(ctx)
	case <-ctx.Done():
	case <-timeout:
	}

	e := h.engine
	e.mu.Lock()
	if h.state != requested { // the result came at the same moment
		e.mu.Unlock()
		<-h.ready
		return h.requestResult(ctx)
	}
	l := h.lock
	l.queue.remove(h)
	h.state = refused
	if (ctx.Err() != nil || !h.partial) && !h.step {
		e.stats.Refused++
	}
	// Only Postgres can tell whether the lock is held.
	err := l.refusal()
	if cause := ctx.Err(); cause != nil {
		err = fmt.Errorf("%w: %w", err, cause)
	}
	if !l.contended {
		err = noReplyError(ctx)
	}
	if l.abandon() {
		settled = make(chan struct{})
		l.settled = append(l.settled, settled)
	}
	e.unlockMu()
	h.putReady()
	return nil, settled, err
}

// noReplyError returns the error of a request that ended before any server reported whether
// the lock is held.
func noReplyError(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return fmt.Errorf("%w: no reply in time", ErrUnavailable)
}

// requestResult returns the result of a request after its notification.
func (h *Hold) requestResult(ctx context.Context) (*Hold, chan struct{}, error) {
	h.putReady()
	if h.lease != nil && h.wasGranted() {
		return h, nil, nil
	}
	if h.err == nil {
		return h, nil, nil
	}
	err := h.err
	if err == errExpired {
		// The wait in Postgres is limited by ctx's deadline, so both end together.
		err = ErrNotAcquired
		if d, ok := ctx.Deadline(); ok && !d.After(h.deadline) {
			err = notAcquired(context.DeadlineExceeded)
		}
	}
	return nil, nil, err
}

// refuse fails the request, which must not be in a queue. Engine.mu must be held.
func (h *Hold) refuse(err error) {
	h.state = refused
	if (err != errExpired || !h.partial) && !h.step {
		h.engine.stats.Refused++
	}
	h.notify(err)
}

// markLost marks the Hold as lost and calls its OnLoss functions. Engine.mu must be held.
func (h *Hold) markLost(err error) {
	h.markEnded(lost)
	for _, f := range h.onLoss {
		f(err)
	}
}

// markEnded marks the Hold as no longer held. Engine.mu must be held.
func (h *Hold) markEnded(state holdState) {
	h.state = state
	if h.done != nil {
		close(h.done)
	}
	h.engine.held--
}

// Release passes the lock on to the next Hold in this process, or unlocks it in Postgres.
// Nil means that Postgres confirmed that the lock was held until now, and that others can
// acquire it. (If the lock stays with this process, a confirmation up to freshTime old is
// enough.) Otherwise Release returns why the lock was not held any more ([ErrNotHeld],
// [ErrLost]), or [ErrUnconfirmed]: the lock was held until now but could not be unlocked,
// so its session was closed, which releases it.
func (h *Hold) Release() error {
	h.engine.mu.Lock()
	pending, err := h.beginRelease()
	h.engine.unlockMuAndHelp()
	if pending {
		return h.awaitRelease(h.engine.releaseBegan())
	}
	return err
}

// beginRelease starts the release. It reports whether an operation was started, whose
// result comes through ready. Otherwise err is the result. Engine.mu must be held.
func (h *Hold) beginRelease() (pending bool, err error) {
	h.checkTrust()
	switch h.state {
	case granted:
		h.markEnded(released)
		if pending = h.lock.release(h); pending {
			h.ready = h.engine.readyChans.Get().(chan struct{})
		}
		return pending, nil
	case lost:
		return false, h.lossCause()
	}
	return false, ErrNotHeld
}

// Done returns a channel that is closed when the lock is lost or released.
func (h *Hold) Done() <-chan struct{} {
	h.engine.mu.Lock()
	defer h.engine.unlockMu()
	h.checkTrust()
	if h.done == nil {
		h.done = make(chan struct{})
		if h.state != granted {
			close(h.done)
		}
	}
	return h.done
}

// Err returns nil while the lock is held, and otherwise why it is not.
func (h *Hold) Err() error {
	h.engine.mu.Lock()
	defer h.engine.unlockMu()
	h.checkTrust()
	switch h.state {
	case granted:
		return nil
	case lost:
		return h.lossCause()
	}
	return ErrNotHeld
}

// Query runs a statement like [Engine.Query], but on the session that holds the lock. If there
// is a reply, the lock was held when the statement ran, since Postgres replied on the session.
func (h *Hold) Query(ctx context.Context, sql string, args ...string) (string, error) {
	if ctx.Err() != nil {
		return "", noReplyError(ctx)
	}
	e := h.engine
	e.mu.Lock()
	switch {
	case e.closed:
		e.mu.Unlock()
		return "", ErrClosed
	case h.state == lost:
		err := fmt.Errorf("%w: %w", ErrUnavailable, h.session.lost)
		e.mu.Unlock()
		return "", err
	case h.state != granted:
		e.mu.Unlock()
		return "", ErrNotHeld
	}
	q := h.session.pushQuery(sql, args)
	e.unlockMu()
	return q.await(ctx)
}

// PID returns the PID of the backend that holds or held the lock.
func (h *Hold) PID() int32 {
	h.engine.mu.Lock()
	defer h.engine.mu.Unlock()
	return h.session.pid
}

// OnLoss registers f to be called with [ErrLost] when the lock is lost, before any other
// goroutine of this process can acquire it, and with [ErrClosed] when the Engine begins
// to close. If that has already happened, f is called at once. f must not block and must
// not use the Engine.
func (h *Hold) OnLoss(f func(error)) {
	e := h.engine
	e.mu.Lock()
	defer e.mu.Unlock()
	h.onLoss = append(h.onLoss, f)
	switch {
	case h.state == lost:
		f(h.lossCause())
	case e.closed:
		f(ErrClosed)
	}
}
