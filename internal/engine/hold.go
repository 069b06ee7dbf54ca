package engine

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// A Hold is one request for a lock and, once granted, the lock.
type Hold struct {
	engine *Engine
	mode   Mode
	noWait bool
	part   bool // of a request that goes on when the time of this one is over

	// Told once when asking has its answer, and once when unlocking has, which is
	// in err then. One of Engine.channels, and nil while held.
	ready chan struct{}

	// Guarded by Engine.mu.
	state      holdState
	place      int32 // in ent.holders
	ent        *entry
	conn       *conn     // that holds it, or held it
	deadline   time.Time // when it is refused at the latest, zero for never
	prev, next *Hold     // in ent.queue, and then in Engine.woken
	err        error     // why it was refused, or not unlocked
	notify     []func(error)
	done       chan struct{} // made when asked for
}

type holdState uint8

const (
	asked    holdState = iota // in the entry's queue
	refused                   // has its answer, which is no
	granted                   // held
	released                  // was held, and was unlocked
	lost                      // was held, and its session was lost
)

func notAcquired(cause error) error {
	if cause == nil {
		return ErrNotAcquired
	}
	return fmt.Errorf("%w: %w", ErrNotAcquired, cause)
}

func (e *Engine) newHold(mode Mode, noWait bool) *Hold {
	return &Hold{engine: e, mode: mode, noWait: noWait, ready: e.channels.Get().(chan struct{})}
}

// tell gives h its answer, of which it hears once Engine.mu is given up: those who
// wake up want it next. Engine.mu is held, and h is in no queue any more.
func (e *Engine) tell(h *Hold, err error) {
	h.err = err
	e.woken.push(h)
}

// giveUp gives up Engine.mu and wakes those who have been told something.
func (e *Engine) giveUp() {
	h := e.woken.first
	e.woken = queue{}
	e.mu.Unlock()
	for h != nil {
		next := h.next
		h.prev, h.next = nil, nil
		h.ready <- struct{}{} // has room, and from here on h is its owner's
		h = next
	}
}

// unready gives back the channel, which is of no use until h asks again.
func (h *Hold) unready() {
	h.engine.channels.Put(h.ready)
	h.ready = nil
}

// answer waits for the answer to unlocking, which is the last one.
func (h *Hold) answer() error {
	<-h.ready // the watchdog sees to it that it comes
	h.unready()
	return h.err
}

// bound sets the deadline to the earlier one of what wait and ctx say.
func (h *Hold) bound(ctx context.Context, wait Wait) {
	if wait.For > 0 {
		h.deadline = time.Now().Add(wait.For)
	}
	if d, ok := ctx.Deadline(); ok && (h.deadline.IsZero() || d.Before(h.deadline)) {
		h.deadline = d
	}
}

// settleTimeout is how long a caller who gave up waits for what is under way on its
// behalf to end: a round trip or two, unless the server is silent.
const settleTimeout = time.Second

// settle waits until nothing is under way any more that could bring a lock with nobody
// to hold it. If the server is silent it does not wait for long, and returns false: the
// engine gives back what comes later.
func settle(underWay ...<-chan struct{}) bool {
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

// hurry ends a wait in Postgres that nobody wants any more and that could not be
// canceled in time: it closes the session, which holds nothing.
func (e *Engine) hurry(ent *entry, settled chan struct{}) {
	e.mu.Lock()
	defer e.unlock()
	if slices.Contains(ent.settle, settled) && ent.state == waiting && ent.queue.len() == 0 {
		ent.conn.kill()
	}
}

// await waits for the answer. If it gives up, settled is closed when nothing is under
// way any more on its behalf; nil says that nothing is.
func (h *Hold) await(ctx context.Context, wait Wait) (_ *Hold, settled chan struct{}, _ error) {
	select {
	case <-h.ready:
		return h.answered(ctx)
	default:
	}
	var timeout <-chan time.Time
	if wait.For > 0 {
		timer := time.NewTimer(time.Until(h.deadline))
		defer timer.Stop()
		timeout = timer.C
	}
	select {
	case <-h.ready:
		return h.answered(ctx)
	case <-ctx.Done():
	case <-timeout:
	}

	e := h.engine
	e.mu.Lock()
	if h.state != asked { // the answer came at the same moment
		e.mu.Unlock()
		<-h.ready
		return h.answered(ctx)
	}
	ent := h.ent
	ent.queue.remove(h)
	h.state = refused
	if ctx.Err() != nil || !h.part {
		e.stats.Refused++
	}
	// Whether the lock is held is for Postgres to say.
	err := notAcquired(ctx.Err())
	if !ent.contended {
		err = unanswered(ctx)
	}
	if e.abandon(ent) {
		settled = make(chan struct{})
		ent.settle = append(ent.settle, settled)
	}
	e.unlock()
	h.unready()
	return nil, settled, err
}

// unanswered returns the error of a request that ended before any server said whether
// the lock is held.
func unanswered(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return fmt.Errorf("%w: no answer in time", ErrUnavailable)
}

func (h *Hold) answered(ctx context.Context) (*Hold, chan struct{}, error) {
	h.unready()
	if h.err == nil {
		return h, nil, nil
	}
	err := h.err
	if err == errExpired {
		// Postgres was told to wait no longer than ctx: the two end together.
		err = ErrNotAcquired
		if d, ok := ctx.Deadline(); ok && !d.After(h.deadline) {
			err = notAcquired(context.DeadlineExceeded)
		}
	}
	return nil, nil, err
}

// refuse answers no. The Hold is in no queue any more. Engine.mu is held.
func (h *Hold) refuse(err error) {
	h.state = refused
	if err != errExpired || !h.part {
		h.engine.stats.Refused++
	}
	h.engine.tell(h, err)
}

// lose tells everyone who has to do with the Hold that it is held no longer.
// Engine.mu is held.
func (h *Hold) lose(err error) {
	h.end(lost)
	for _, f := range h.notify {
		f(err)
	}
}

// end makes the Hold one that is not held. Engine.mu is held.
func (h *Hold) end(state holdState) {
	h.state = state
	if h.done != nil {
		close(h.done)
	}
	h.engine.held--
}

// Release gives the lock back, to the next in this process or to Postgres. Nil means
// that the lock was held until now, by Postgres' word (of a lock that others in this
// process hold on: until freshTime ago at the least), and that somebody else can have it. Otherwise Release returns why it was not held any more ([ErrNotHeld], [ErrLost]),
// or [ErrUnconfirmed]: it was held until now, but could not be unlocked, so its session
// was closed, which frees it.
func (h *Hold) Release() error {
	h.engine.mu.Lock()
	asked, err := h.begin()
	h.engine.unlockAndHelp()
	if asked {
		return h.answer()
	}
	return err
}

// begin begins to give the lock back. It reports whether Postgres was asked, whose
// answer comes through ready; otherwise err is the outcome. Engine.mu is held.
func (h *Hold) begin() (asked bool, err error) {
	switch h.state {
	case granted:
		h.end(released)
		if asked = h.engine.release(h.ent, h); asked {
			h.ready = h.engine.channels.Get().(chan struct{})
		}
		return asked, nil
	case lost:
		return false, h.conn.cause
	}
	return false, ErrNotHeld
}

// Done is closed when the lock is not held any more, lost or released.
func (h *Hold) Done() <-chan struct{} {
	h.engine.mu.Lock()
	defer h.engine.mu.Unlock()
	if h.done == nil {
		h.done = make(chan struct{})
		if h.state != granted {
			close(h.done)
		}
	}
	return h.done
}

// Err is nil while the lock is held, and then why it is not.
func (h *Hold) Err() error {
	h.engine.mu.Lock()
	defer h.engine.mu.Unlock()
	switch h.state {
	case granted:
		return nil
	case lost:
		return h.conn.cause
	}
	return ErrNotHeld
}

// PID is the backend that holds the lock, or held it.
func (h *Hold) PID() int32 {
	h.engine.mu.Lock()
	defer h.engine.mu.Unlock()
	return h.conn.pid
}

// Notify has f called with [ErrLost] at the moment when the lock is lost, before
// anybody else in this process can get it, and with [ErrClosed] when the Engine
// begins to close. f must return at once and must not use the Engine. It is
// called now when the lock is lost already.
func (h *Hold) Notify(f func(error)) {
	e := h.engine
	e.mu.Lock()
	defer e.mu.Unlock()
	h.notify = append(h.notify, f)
	switch {
	case h.state == lost:
		f(h.conn.cause)
	case e.closed:
		f(ErrClosed)
	}
}

// queue is a list of Holds, first come first served.
type queue struct {
	first, last *Hold
	n           int
	exclusive   int // how many of them are
}

func (q *queue) front() *Hold { return q.first }
func (q *queue) len() int     { return q.n }

func (q *queue) push(h *Hold) {
	h.prev, h.next = q.last, nil
	if q.last != nil {
		q.last.next = h
	} else {
		q.first = h
	}
	q.last = h
	q.count(h, 1)
}

func (q *queue) remove(h *Hold) {
	if h.prev != nil {
		h.prev.next = h.next
	} else {
		q.first = h.next
	}
	if h.next != nil {
		h.next.prev = h.prev
	} else {
		q.last = h.prev
	}
	h.prev, h.next = nil, nil
	q.count(h, -1)
}

func (q *queue) count(h *Hold, by int) {
	q.n += by
	if h.mode == Exclusive {
		q.exclusive += by
	}
}
