package engine

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// errExpired is the refusal of a request whose own time is over.
var errExpired = errors.New("expired")

// An entry is a key that some goroutine of this process holds or wants. Engine.mu must be
// held for all methods of Engine in this file.
type entry struct {
	key     Key
	state   entryState
	want    Mode      // the mode that is tried or waited for
	mode    Mode      // the mode held in Postgres, while held or releasing
	conn    *conn     // the session that tries, waits or holds
	since   time.Time // when Postgres granted it, or reported no other waiters
	queue   queue     // waiting requests of this process
	holders []*Hold   // one exclusive Hold, or any number of shared ones
	first   [1]*Hold  // initial array of holders, which saves an allocation
	slot    int       // in conn.held

	contended bool // Postgres reported that another session holds it, or a Hold of this process does
	patience  patience

	releaser *Hold           // to be notified of the unlock, or nil
	retry    bool            // a try is queued directly after the unlock
	probing  bool            // a probe for other waiters is running
	deferred bool            // the unlock waits for the probe to finish
	attempts int             // sessions lost in a row during requests
	turned   time.Time       // when it last waited in Postgres, or began to poll
	timer    *time.Timer     // of the next poll or probe
	settle   []chan struct{} // closed for callers that gave up, once nothing is under way
}

type entryState uint8

const (
	idle      entryState = iota // not requested, not held
	trying                      // a try is queued or running
	waiting                     // a session waits for it in Postgres
	polling                     // no session is free to wait, so it is tried periodically
	held                        // held in Postgres
	releasing                   // an unlock is queued or running
)

// ask starts a request.
func (e *Engine) ask(ent *entry, h *Hold) {
	h.ent = ent
	switch ent.state {
	case idle:
		ent.queue.push(h)
		e.try(ent)
	case trying, releasing:
		ent.queue.push(h) // the running operation decides
	case held:
		alike := h.mode == Shared && ent.mode == Shared && ent.queue.exclusive == 0
		switch {
		case alike && ent.queue.len() == 0 && time.Since(ent.since) < e.config.HandOver:
			e.grant(ent, h)
		case alike:
			ent.queue.push(h)
			e.probe(ent)
		case h.noWait:
			h.refuse(ErrNotAcquired)
		default:
			ent.queue.push(h)
			ent.contended = true
		}
	case waiting, polling: // another session holds it
		if h.noWait {
			h.refuse(ErrNotAcquired)
		} else {
			ent.queue.push(h)
		}
	}
}

// rest makes the entry idle, or requests its lock again if its queue is not empty.
func (e *Engine) rest(ent *entry) {
	ent.state, ent.conn = idle, nil
	if ent.queue.len() > 0 {
		e.try(ent)
		return
	}
	e.drop(ent)
}

// settled signals callers that gave up that nothing is under way for them any more.
func (e *Engine) settled(ent *entry) {
	if ent.state == releasing {
		return // a lock that was granted too late may be being unlocked
	}
	for _, c := range ent.settle {
		close(c)
	}
	ent.settle = nil
}

// try requests the lock without waiting, in the mode of the first request in the queue.
func (e *Engine) try(ent *entry) {
	c := e.serving(nil)
	ent.state, ent.want, ent.conn = trying, ent.queue.front().mode, c
	c.push(op{kind: opTry, ent: ent, mode: ent.want})
}

// tried handles the result of a try.
func (e *Engine) tried(ent *entry, c *conn, ok bool) {
	ent.attempts = 0
	if ok {
		e.granted(ent, c)
		return
	}
	ent.contended = true
	// If a shared lock is refused, so is an exclusive one.
	e.refuseNoWait(ent, func(h *Hold) bool { return ent.want == Shared || h.mode == ent.want })
	switch head := ent.queue.front(); {
	case head == nil:
		e.rest(ent)
	case head.noWait, head.mode == Shared && ent.want == Exclusive:
		e.try(ent)
	default:
		e.wait(ent)
	}
	e.settled(ent)
}

// failed handles the error of a try. The first request in the queue gets the error, and
// the others try again.
func (e *Engine) failed(ent *entry, err error) {
	if head := ent.queue.front(); head != nil {
		ent.queue.remove(head)
		head.refuse(err)
	}
	e.rest(ent)
	e.settled(ent)
}

// refuseNoWait refuses the queued requests that do not wait and match which.
func (e *Engine) refuseNoWait(ent *entry, which func(*Hold) bool) {
	for h := ent.queue.front(); h != nil; {
		next := h.next
		if h.noWait && which(h) {
			ent.queue.remove(h)
			h.refuse(ErrNotAcquired)
		}
		h = next
	}
}

func anyHold(*Hold) bool { return true }

// wait makes a session wait for the lock in Postgres. Requests that do not wait are
// refused, because another session holds the lock, and then this process queues for it.
func (e *Engine) wait(ent *entry) {
	e.refuseNoWait(ent, anyHold)
	if ent.queue.len() == 0 {
		e.rest(ent)
		return
	}
	if c := e.waiter(); c != nil {
		e.waitOn(ent, c)
		return
	}
	e.poll(ent)
}

// waitOn makes c wait for the lock in Postgres.
func (e *Engine) waitOn(ent *entry, c *conn) {
	ent.state, ent.want, ent.conn = waiting, ent.queue.front().mode, c
	c.waiting, c.cut = ent, uncut
	if ent.patience.since.IsZero() {
		ent.patience.since = time.Now()
	}
	c.push(op{kind: opWait, ent: ent, mode: ent.want})
}

// poll tries again after pollInterval.
func (e *Engine) poll(ent *entry) {
	ent.state, ent.conn = polling, nil
	if ent.turned.IsZero() {
		ent.turned = time.Now()
	}
	e.pollers = append(e.pollers, ent)
	e.later(ent, func() {
		e.takeTurn()
		if ent.state == polling {
			e.unpoll(ent)
			e.try(ent)
		}
	})
}

// later calls f after pollInterval, if the entry is still in the same state.
func (e *Engine) later(ent *entry, f func()) {
	state := ent.state
	var timer *time.Timer
	timer = time.AfterFunc(pollInterval, func() {
		e.mu.Lock()
		defer e.unlock()
		if ent.timer == timer && ent.state == state {
			f()
		}
	})
	ent.timer = timer
}

// unpoll stops polling.
func (e *Engine) unpoll(ent *entry) {
	ent.timer.Stop()
	ent.timer = nil
	if i := slices.Index(e.pollers, ent); i >= 0 {
		e.pollers = slices.Delete(e.pollers, i, i+1)
	}
}

// waited handles the end of a wait in Postgres. If ok, c holds the lock. Otherwise err is
// the failure, or nil if the wait timed out or was cut short.
func (e *Engine) waited(ent *entry, c *conn, ok bool, err error) {
	c.waiting = nil
	ent.attempts = 0
	if ok {
		e.granted(ent, c)
		return
	}
	ent.conn, ent.turned = nil, time.Now()
	ent.patience.ended(c.cut)
	if head := ent.queue.front(); err != nil && head != nil {
		ent.queue.remove(head)
		head.refuse(err)
	}
	e.expire(ent)
	switch {
	case ent.queue.len() == 0:
		e.rest(ent)
	case err == nil && len(e.pollers) > 0 && len(c.queue) == 0:
		// Every key with waiting requests gets its turn in Postgres' lock queue.
		e.waitOn(e.nextPoller(), c)
		e.poll(ent)
	default:
		e.wait(ent)
	}
	e.settled(ent)
}

// nextPoller returns the polled entry whose turn it is to wait in Postgres, and stops
// polling it.
func (e *Engine) nextPoller() *entry {
	next := slices.MinFunc(e.pollers, func(a, b *entry) int { return a.turned.Compare(b.turned) })
	e.unpoll(next)
	return next
}

// expire refuses the requests whose own time is over.
func (e *Engine) expire(ent *entry) {
	now := time.Now()
	for h := ent.queue.front(); h != nil; {
		next := h.next
		if !h.deadline.IsZero() && !now.Before(h.deadline) {
			ent.queue.remove(h)
			h.refuse(errExpired)
		}
		h = next
	}
}

// granted handles a grant: c holds the lock in mode ent.want.
func (e *Engine) granted(ent *entry, c *conn) {
	ent.state, ent.mode, ent.conn = held, ent.want, c
	ent.since, ent.turned = c.heard, time.Time{}
	ent.contended, ent.patience = false, patience{}
	ent.slot = len(c.held)
	c.held = append(c.held, ent)
	e.deliver(ent)
	e.settled(ent)
}

// deliver grants a lock that Postgres granted to the first request in the queue, and to
// all that can share it. If no request wants it in this mode, it is unlocked again.
func (e *Engine) deliver(ent *entry) {
	for h := ent.queue.front(); h != nil && h.mode == ent.mode; h = ent.queue.front() {
		if ent.mode == Exclusive && len(ent.holders) > 0 {
			break
		}
		ent.queue.remove(h)
		e.grant(ent, h)
	}
	if len(ent.holders) == 0 {
		e.giveBack(ent, nil)
		return
	}
	e.refuseNoWait(ent, anyHold)
	ent.contended = ent.queue.len() > 0
}

// grant grants the lock to h.
func (e *Engine) grant(ent *entry, h *Hold) {
	h.state, h.conn, h.place = granted, ent.conn, int32(len(ent.holders))
	ent.holders = append(ent.holders, h)
	e.held++
	e.stats.Acquired++
	e.tell(h, nil)
}

// probe checks whether other sessions wait for a lock that is held shared. While none
// does, any number of readers may join. Once one does, joining is limited in time, so
// that it gets its turn. The check is a try on another session, which costs next to
// nothing. If there is none, the session that holds the lock reads pg_locks.
func (e *Engine) probe(ent *entry) {
	if ent.probing {
		return
	}
	ent.probing = true
	if c := e.idle(ent.conn); c != nil {
		c.push(op{kind: opProbe, ent: ent, mode: Shared})
		return
	}
	if e.room() && !slices.ContainsFunc(e.conns, func(c *conn) bool { return !c.open }) {
		e.open() // for the next time
	}
	ent.conn.push(op{kind: opQueued, ent: ent, mode: Shared})
}

// probed handles the result of a probe: ok means that another session could acquire the
// lock shared.
func (e *Engine) probed(ent *entry, ok bool) {
	ent.probing = false
	if ent.deferred {
		ent.deferred = false
		e.giveBack(ent, ent.releaser)
		return
	}
	if ent.state != held || ent.mode != Shared {
		return // the queue has been handled since
	}
	if ok {
		ent.since = time.Now()
		e.deliver(ent)
		return
	}
	e.refuseNoWait(ent, anyHold)
	if ent.queue.len() > ent.queue.exclusive {
		e.later(ent, func() { e.join(ent) }) // the other waiters may give up
	}
}

// join starts a probe if the first request in the queue may join the holders.
func (e *Engine) join(ent *entry) {
	if head := ent.queue.front(); head != nil && head.mode == Shared && ent.mode == Shared {
		e.probe(ent)
	}
}

// release removes h from the holders. It reports whether an operation was started, to
// unlock or to confirm that the lock was held until now; h is notified of its result. The
// next holder in this process does not wait for it.
func (e *Engine) release(ent *entry, h *Hold) (asked bool) {
	last := len(ent.holders) - 1
	ent.holders[h.place] = ent.holders[last]
	ent.holders[h.place].place = h.place
	ent.holders[last] = nil
	ent.holders = ent.holders[:last]
	if last > 0 {
		return ent.conn.confirm(h)
	}
	if next := ent.queue.front(); next != nil && next.mode == ent.mode && time.Since(ent.since) < e.config.HandOver {
		e.stats.HandOvers++
		asked = ent.conn.confirm(h)
		e.deliver(ent)
		return asked
	}
	e.giveBack(ent, h)
	return true
}

// giveBack unlocks the lock in Postgres, which grants it to the first session in its lock
// queue. If requests of this process wait, a try follows the unlock directly.
func (e *Engine) giveBack(ent *entry, releaser *Hold) {
	ent.state, ent.releaser = releasing, releaser
	if ent.probing {
		// The probe holds the lock for an instant. Another process would be refused
		// a lock that our caller has released.
		ent.deferred = true
		return
	}
	ent.conn.push(op{kind: opUnlock, ent: ent, mode: ent.mode})
	if next := ent.queue.front(); next != nil {
		ent.retry, ent.want = true, next.mode
		ent.conn.push(op{kind: opTry, ent: ent, mode: ent.want})
	}
}

// unlocked handles the result of an unlock. If ok is false, the session did not hold the
// lock: another client unlocked it, or a pooler swaps sessions. Then nothing on this
// session can be relied on.
func (e *Engine) unlocked(ent *entry, c *conn, ok bool) {
	if !ok {
		e.lose(c, errNotOurs)
		return
	}
	last := len(c.held) - 1
	c.held[ent.slot] = c.held[last]
	c.held[ent.slot].slot = ent.slot
	c.held[last] = nil
	c.held = c.held[:last]
	e.answerReleaser(ent, nil)
	if ent.retry {
		ent.retry, ent.state, ent.conn = false, trying, c
		return // the result of the try comes next
	}
	e.rest(ent)
	e.settled(ent)
}

// answerReleaser notifies the Hold whose release started the unlock, if any.
func (e *Engine) answerReleaser(ent *entry, err error) {
	if ent.releaser != nil {
		e.tell(ent.releaser, err)
		ent.releaser = nil
	}
}

// abandon handles a request that gave up. It reports whether an operation is still under
// way that could acquire the lock for nobody.
func (e *Engine) abandon(ent *entry) bool {
	nobody := ent.queue.len() == 0
	switch ent.state {
	case trying:
		if nobody && ent.conn.withdraw(ent) {
			e.rest(ent)
			return false
		}
		return nobody
	case releasing:
		return nobody && ent.retry
	case waiting:
		if nobody || ent.queue.front().mode != ent.want {
			e.interrupt(ent)
			return ent.state == waiting && ent.queue.len() == 0
		}
	case polling:
		if nobody {
			e.unpoll(ent)
			e.rest(ent)
		}
	case held:
		e.join(ent) // it may have blocked readers
	}
	return false
}

// interrupt ends a wait in Postgres early.
func (e *Engine) interrupt(ent *entry) {
	if ent.state != waiting {
		return
	}
	c := ent.conn
	if c.withdraw(ent) { // it has not begun
		c.waiting = nil
		if ent.queue.len() == 0 {
			e.rest(ent)
		} else {
			e.waitOn(ent, c)
		}
		return
	}
	if c.canceled != nil || time.Until(c.waitEnds) < soon {
		return // it ends by itself
	}
	k := e.canceler(c)
	switch {
	case k == nil && e.closed:
		return // it ends with its slice, and Close waits for that
	case k == nil:
		c.kill() // no other session can cancel it
		return
	}
	c.canceled = make(chan struct{})
	k.push(op{kind: opCancel, target: c, done: c.canceled})
}

// canceler returns a session that can cancel c's wait, or nil. It opens none while the
// Engine closes.
func (e *Engine) canceler(c *conn) *conn {
	if !e.closed {
		if k := e.serving(c); k != nil && k.waiting == nil {
			return k
		}
		return nil
	}
	for _, k := range e.conns {
		if k != c && k.waiting == nil && k.open {
			return k
		}
	}
	return nil
}

// uncancel withdraws the order to cancel c's wait, if that has not begun.
func (e *Engine) uncancel(c *conn) {
	if c.canceled == nil {
		return
	}
	for _, k := range e.conns {
		if i := slices.IndexFunc(k.queue, func(o op) bool { return o.target == c }); i >= 0 {
			k.queue = slices.Delete(k.queue, i, i+1)
			c.canceled = nil
		}
	}
}

// soon is a remaining wait that is too short to be worth canceling.
const soon = 10 * time.Millisecond

// lose removes a lost session. It notifies the holders of its locks, and moves or fails
// its operations.
func (e *Engine) lose(c *conn, err error) {
	if c.lost != nil {
		return
	}
	c.lost = err
	c.alarm()
	e.conns = slices.DeleteFunc(e.conns, func(other *conn) bool { return other == c })
	if !c.open && len(e.conns) > 0 {
		e.full = time.Now().Add(fullPause)
	}

	c.cause = fmt.Errorf("%w: %w", ErrLost, err)
	held := c.held
	c.held = nil
	for _, ent := range held {
		for _, h := range ent.holders {
			e.stats.Lost++
			c.losses++
			h.lose(c.cause)
		}
		clear(ent.holders)
		ent.holders = ent.holders[:0]
		// Only a reply of Postgres proves that it was held until now.
		if errors.Is(err, errStillHeld) {
			e.answerReleaser(ent, fmt.Errorf("%w: %w", ErrUnconfirmed, err))
		} else {
			e.answerReleaser(ent, c.cause)
		}
		ent.retry, ent.deferred, ent.contended = false, false, false
		e.rest(ent)
		e.settled(ent)
	}
	if ent := c.waiting; ent != nil {
		c.waiting = nil
		e.again(ent, c, err)
	}
	for _, ops := range [][]op{c.batch, c.queue} {
		for _, o := range ops {
			switch {
			case o.kind == opTry && o.ent.state == trying && o.ent.conn == c:
				e.again(o.ent, c, err)
			case (o.kind == opProbe || o.kind == opQueued) && o.ent.probing:
				e.probed(o.ent, false)
			case o.kind == opLook:
				// Sessions that are not checked may be gone like this one.
				for _, waiting := range e.waitingLong() {
					waiting.kill()
				}
				e.looked(lookInterval)
			case o.kind == opCancel:
				close(o.done)
			case o.kind == opQuery && !c.open && len(e.conns) > 0 && !e.closed:
				e.serving(nil).push(o)
			case o.kind == opQuery:
				if o.query.err = err; c.open {
					o.query.err = fmt.Errorf("%w: %w", ErrUnavailable, err)
				}
				close(o.query.ready)
			}
		}
	}
	c.batch, c.queue = nil, nil
	for _, h := range append(c.sure, c.unsure...) {
		e.tell(h, c.cause)
	}
	c.sure, c.unsure = nil, nil
}

// again moves a request from a lost session to another one, or refuses it after too many
// attempts. If the session never opened, the request is refused only if no other session
// can take it.
func (e *Engine) again(ent *entry, c *conn, err error) {
	ent.contended = false
	if c.open {
		ent.attempts++
	}
	if !c.open && len(e.conns) == 0 || ent.attempts > retries || e.closed {
		if c.open {
			err = fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		for h := ent.queue.front(); h != nil; h = ent.queue.front() {
			ent.queue.remove(h)
			h.refuse(err)
		}
		ent.attempts = 0
	}
	e.rest(ent)
	e.settled(ent)
}
