package session

import (
	"context"
	"fmt"
	"time"
)

// A Hold is one request for a lock and, once granted, the lock.
type Hold struct {
	engine *Engine
	mode   Mode
	noWait bool
	ready  chan error // the one answer to asking, and then the one to unlocking; one of Engine.channels

	// Guarded by Engine.mu.
	ent        *entry
	conn       *conn // that holds it, while held
	state      holdState
	deadline   time.Time // when it is refused at the latest, zero for never
	prev, next *Hold     // in ent.queue
	place      int       // in ent.holders
	err        error     // why it is no longer held
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
	return &Hold{engine: e, mode: mode, noWait: noWait, ready: e.channels.Get().(chan error)}
}

// answer waits for the answer to unlocking, which is the last one.
func (h *Hold) answer() error {
	err := <-h.ready // the watchdog sees to it that it comes
	h.engine.channels.Put(h.ready)
	return err
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

// await waits for the answer. When it gives up, it returns only after nothing is
// under way any more that could bring the lock without anybody to hold it.
func (h *Hold) await(ctx context.Context, wait Wait) (*Hold, error) {
	var timeout <-chan time.Time
	if wait.For > 0 {
		timer := time.NewTimer(wait.For)
		defer timer.Stop()
		timeout = timer.C
	}
	select {
	case err := <-h.ready:
		return h.answered(ctx, err)
	case <-ctx.Done():
	case <-timeout:
	}

	e := h.engine
	e.mu.Lock()
	if h.state != asked { // the answer came at the same moment
		e.mu.Unlock()
		return h.answered(ctx, <-h.ready)
	}
	ent := h.ent
	ent.queue.remove(h)
	h.state = refused
	e.stats.Refused++
	var settled chan struct{}
	if e.abandon(ent) {
		settled = make(chan struct{})
		ent.settle = append(ent.settle, settled)
	}
	e.unlock()
	e.channels.Put(h.ready)
	if settled != nil {
		<-settled // a round trip; the watchdog ends the session that does not answer
	}
	return nil, notAcquired(ctx.Err())
}

func (h *Hold) answered(ctx context.Context, err error) (*Hold, error) {
	if err == nil {
		return h, nil
	}
	h.engine.channels.Put(h.ready)
	if err == errExpired {
		// Postgres was told to wait no longer than ctx: the two end together.
		err = ErrNotAcquired
		if d, ok := ctx.Deadline(); ok && !d.After(h.deadline) {
			err = notAcquired(context.DeadlineExceeded)
		}
	}
	return nil, err
}

// refuse answers no. The Hold is in no queue any more. Engine.mu is held.
func (h *Hold) refuse(err error) {
	h.state = refused
	h.engine.stats.Refused++
	h.ready <- err
}

// lose tells everyone who has to do with the Hold that it is held no longer.
// Engine.mu is held.
func (h *Hold) lose(err error) {
	h.end(lost, err)
	for _, f := range h.notify {
		f(err)
	}
}

// end makes the Hold one that is not held. Engine.mu is held.
func (h *Hold) end(state holdState, err error) {
	h.state, h.err = state, err
	if h.done != nil {
		close(h.done)
	}
	h.engine.held--
}

// Release gives the lock back, to the next in this process or to Postgres. When
// it returns nil somebody else can have the lock. Otherwise it returns why it was
// not held any more ([ErrNotHeld], [ErrLost]), or [ErrUnconfirmed]: then the
// session was closed, and the lock ends with it.
func (h *Hold) Release() error {
	h.engine.mu.Lock()
	asked, err := h.begin()
	h.engine.unlockAndHelp()
	if asked {
		return h.answer()
	}
	return err
}

// begin begins to give the lock back. It reports whether Postgres was asked to
// unlock, of which ready will tell; otherwise err is the outcome. Engine.mu is
// held.
func (h *Hold) begin() (asked bool, err error) {
	switch h.state {
	case granted:
		h.end(released, ErrNotHeld)
		if h.engine.release(h.ent, h) {
			return true, nil
		}
		h.engine.channels.Put(h.ready)
		return false, nil
	case lost:
		return false, h.err
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
	return h.err
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
		f(h.err)
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
