package engine

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// errExpired is how a request is refused whose own time is over.
var errExpired = errors.New("expired")

// An entry is a key that somebody in this process holds or wants. All of its
// methods, which are the Engine's, are called with Engine.mu held.
type entry struct {
	key     Key
	state   entryState
	want    Mode      // what is tried or waited for
	mode    Mode      // as which Postgres has it, while held or releasing
	conn    *conn     // that has been asked, or that holds it
	since   time.Time // when Postgres granted it, or said that nobody else wants it
	queue   queue     // those in this process who want it
	holders []*Hold   // those who have it: one exclusive or any number of shared ones
	first   [1]*Hold  // where holders begins, so that one costs nothing more
	slot    int       // in conn.held

	contended bool // by Postgres' word another session holds it, or one of ours does
	patience  patience

	releaser *Hold           // that waits to hear of the unlock, if one does
	retry    bool            // a try stands right behind the unlock
	probing  bool            // Postgres is being asked whether others wait for it
	deferred bool            // the unlock stands back until that is answered
	attempts int             // sessions lost in a row while asking
	turned   time.Time       // when it last had its turn to wait in Postgres, or was first refused it
	timer    *time.Timer     // of the next poll, or probe
	settle   []chan struct{} // of those who gave up and wait until nothing is under way
}

type entryState uint8

const (
	idle      entryState = iota // not asked for, not held
	trying                      // a try is queued or under way
	waiting                     // a session waits for it in Postgres
	polling                     // no session is free to wait: it is tried now and then
	held                        // held
	releasing                   // an unlock is queued or under way
)

// ask is how a request begins.
func (e *Engine) ask(ent *entry, h *Hold) {
	h.ent = ent
	switch ent.state {
	case idle:
		ent.queue.push(h)
		e.try(ent)
	case trying, releasing:
		ent.queue.push(h) // the answer that is under way decides
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
	case waiting, polling: // another process has it
		if h.noWait {
			h.refuse(ErrNotAcquired)
		} else {
			ent.queue.push(h)
		}
	}
}

// rest makes the entry idle, or asks for its lock when somebody wants it.
func (e *Engine) rest(ent *entry) {
	ent.state, ent.conn = idle, nil
	if ent.queue.len() > 0 {
		e.try(ent)
		return
	}
	e.drop(ent)
}

// settled tells those who gave up that nothing is under way on their behalf.
func (e *Engine) settled(ent *entry) {
	if ent.state == releasing {
		return // it may be their lock, which came too late
	}
	for _, c := range ent.settle {
		close(c)
	}
	ent.settle = nil
}

// try asks for the lock as the first in the queue wants it, without waiting.
func (e *Engine) try(ent *entry) {
	c := e.serving(nil)
	ent.state, ent.want, ent.conn = trying, ent.queue.front().mode, c
	c.push(op{kind: opTry, ent: ent, mode: ent.want})
}

// tried is the answer to a try.
func (e *Engine) tried(ent *entry, c *conn, ok bool) {
	ent.attempts = 0
	if ok {
		e.granted(ent, c)
		return
	}
	ent.contended = true
	// What is refused a shared lock is refused an exclusive one too.
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

// failed is an error instead of an answer to a try: it is the first one's, and
// the others try again.
func (e *Engine) failed(ent *entry, err error) {
	if head := ent.queue.front(); head != nil {
		ent.queue.remove(head)
		head.refuse(err)
	}
	e.rest(ent)
	e.settled(ent)
}

// refuseNoWait answers no to those in the queue who do not wait.
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

// wait has a session wait for the lock in Postgres. Those who do not wait are
// refused: it is held by another, and then queued for by us.
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

func (e *Engine) waitOn(ent *entry, c *conn) {
	ent.state, ent.want, ent.conn = waiting, ent.queue.front().mode, c
	c.waiting, c.cut = ent, uncut
	if ent.patience.since.IsZero() {
		ent.patience.since = time.Now()
	}
	c.push(op{kind: opWait, ent: ent, mode: ent.want})
}

// poll tries again in a while.
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

// later calls f in a while, if the entry is in the same state then.
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

func (e *Engine) unpoll(ent *entry) {
	ent.timer.Stop()
	ent.timer = nil
	if i := slices.Index(e.pollers, ent); i >= 0 {
		e.pollers = slices.Delete(e.pollers, i, i+1)
	}
}

// waited is the end of a wait in Postgres: the lock is held by c, or err says why it
// failed, or neither: then its time was over, or it was cut short.
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
		// Every key that is waited for gets its turn in Postgres' own queue.
		e.waitOn(e.nextPoller(), c)
		e.poll(ent)
	default:
		e.wait(ent)
	}
	e.settled(ent)
}

// nextPoller takes the key out of the pollers whose turn it is to wait in Postgres.
func (e *Engine) nextPoller() *entry {
	next := slices.MinFunc(e.pollers, func(a, b *entry) int { return a.turned.Compare(b.turned) })
	e.unpoll(next)
	return next
}

// expire refuses those whose own time is over.
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

// granted is Postgres' yes: c holds the lock as ent.want.
func (e *Engine) granted(ent *entry, c *conn) {
	ent.state, ent.mode, ent.conn = held, ent.want, c
	ent.since, ent.turned = c.heard, time.Time{}
	ent.contended, ent.patience = false, patience{}
	ent.slot = len(c.held)
	c.held = append(c.held, ent)
	e.deliver(ent)
	e.settled(ent)
}

// deliver gives the lock that Postgres granted to the first in the queue, and to
// all who may share it with them. Nobody left who wants it, or not like this, it
// is given back.
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

func (e *Engine) grant(ent *entry, h *Hold) {
	h.state, h.conn, h.place = granted, ent.conn, int32(len(ent.holders))
	ent.holders = append(ent.holders, h)
	e.held++
	e.stats.Acquired++
	e.tell(h, nil)
}

// probe asks whether others wait for a lock that is held shared. While nobody does, any
// number may join those who hold it; once somebody does, the time for joining is bounded,
// so that they get their turn. Another session is asked with a try, which costs next to
// nothing; if there is none, the one that holds the lock reads pg_locks.
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

// probed is the answer to a probe: ok says that a shared lock could be had.
func (e *Engine) probed(ent *entry, ok bool) {
	ent.probing = false
	if ent.deferred {
		ent.deferred = false
		e.giveBack(ent, ent.releaser)
		return
	}
	if ent.state != held || ent.mode != Shared {
		return // those in the queue have been seen to since
	}
	if ok {
		ent.since = time.Now()
		e.deliver(ent)
		return
	}
	e.refuseNoWait(ent, anyHold)
	if ent.queue.len() > ent.queue.exclusive {
		e.later(ent, func() { e.join(ent) }) // those who are in the way may give up
	}
}

// join lets the first in the queue join those who hold the lock, if it may.
func (e *Engine) join(ent *entry) {
	if head := ent.queue.front(); head != nil && head.mode == Shared && ent.mode == Shared {
		e.probe(ent)
	}
}

// release takes h off those who hold the lock. It reports whether Postgres was asked, to
// unlock or to confirm that the lock was held to the last; h is told the answer. The next
// holder in this process does not wait for that.
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

// giveBack gives the lock back to Postgres. Whoever is first in Postgres' queue
// has it then; the first in ours asks right behind.
func (e *Engine) giveBack(ent *entry, releaser *Hold) {
	ent.state, ent.releaser = releasing, releaser
	if ent.probing {
		// The probe holds the lock for an instant, in which another process
		// would be refused what our caller says is free.
		ent.deferred = true
		return
	}
	ent.conn.push(op{kind: opUnlock, ent: ent, mode: ent.mode})
	if next := ent.queue.front(); next != nil {
		ent.retry, ent.want = true, next.mode
		ent.conn.push(op{kind: opTry, ent: ent, mode: ent.want})
	}
}

// unlocked is the answer to an unlock. No means that the session did not hold
// what we thought it did: somebody unlocked behind our back, or something between
// us and Postgres swaps sessions. Nothing that is held there can be relied on.
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
		return // its answer comes next
	}
	e.rest(ent)
	e.settled(ent)
}

func (e *Engine) answerReleaser(ent *entry, err error) {
	if ent.releaser != nil {
		e.tell(ent.releaser, err)
		ent.releaser = nil
	}
}

// abandon is called when somebody gave up. It reports whether something is still
// under way that could bring the lock with nobody to hold it.
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
		e.join(ent) // it may have stood in the way
	}
	return false
}

// interrupt ends the waiting in Postgres before its slice is over.
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
		return // it ends without us
	}
	k := e.canceler(c)
	switch {
	case k == nil && e.closed:
		return // it ends with its slice, for which Close waits
	case k == nil:
		c.kill() // there is no other session to cancel it from
		return
	}
	c.canceled = make(chan struct{})
	k.push(op{kind: opCancel, target: c, done: c.canceled})
}

// canceler is a session from which c's waiting can be cancelled, or nil. None is
// opened when the Engine closes.
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

// uncancel takes back the order to cancel c's waiting, if that has not begun.
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

// soon is a time that is not worth a round trip to shorten.
const soon = 10 * time.Millisecond

// lose is the end of a session: of what it held, and of what it was asked.
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
		// Only Postgres' word proves that it was held until now.
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
				// The sessions that nobody looks after may be gone like this one.
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

// again takes what was asked of a lost session to another one, unless that is of no use.
// A session that never opened was of no use from the beginning: the others can do its
// work.
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
