package engine

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pglock-go/pglock/internal/sqlstate"
)

// unnoticed returns how long a process may not know that it has lost a lock: until a
// reply in transit arrives, or until it is notified of the loss.
func (p program) unnoticed(r *running) time.Duration {
	const transit = 100 * time.Millisecond
	if !p.Faults.any() {
		return transit
	}
	return r.Heartbeat + transit
}

// inTime checks that a request did not take longer than it may.
func (w *world) inTime(p *running, began time.Time, wait Wait, cancel time.Duration) {
	timeout := time.Duration(-1)
	if wait.No {
		timeout = 0
	}
	if wait.For > 0 {
		timeout = wait.For
	}
	if cancel > 0 && (timeout < 0 || cancel < timeout) {
		timeout = cancel
	}
	if timeout < 0 {
		return
	}
	most := timeout + p.Slice + 2*p.Heartbeat + time.Second
	if w.p.Faults.any() {
		most += (maxRetries + 1) * (openTimeout + p.Heartbeat)
	}
	if took := time.Since(began); took > most {
		w.problem("a request with %v took %v, more than %v", timeout, took, most)
	}
}

func (w *world) acquired(p *running, key Key, mode Mode, h *Hold, err error, wait Wait, canceled bool, began time.Time, claims *[]*claim) {
	if err != nil {
		if h != nil {
			w.problem("an error and a Hold: %v", err)
		}
		w.server.mu.Lock()
		defer w.server.mu.Unlock()
		state := pgError(sqlstate.Of(err))
		switch {
		case errors.Is(err, ErrNotAcquired):
			if !wait.No && wait.For == 0 && !canceled {
				w.wrong("it was to wait forever, and got %v", err)
			}
			// A process that does not know yet of a loss sees the lock as its own.
			if w.server.locks[key] == nil && w.server.wanted[key].Before(began.Add(-w.p.unnoticed(p))) {
				w.wrong("%v was free all the time, and somebody got %v", key, err)
			}
		case errors.Is(err, ErrClosed) && p.closing:
		case errors.Is(err, ErrUnavailable) && (w.p.Faults.any() || canceled || wait.For > 0):
		case slices.Contains(serverErrors, state) && w.p.Faults.any():
		case len(w.p.Events) > 0 && state == sqlstate.QueryCanceled:
		default:
			w.wrong("an error of no kind that should be: %v", err)
		}
		w.over(p, key, err)
		return
	}
	c := &claim{p: p, h: h, key: key, mode: mode}
	*claims = append(*claims, c)
	s := w.server
	// Notify must not be called with server.mu held: it locks Engine.mu, under which
	// server.mu is locked. It takes no time.
	h.OnLoss(func(err error) {
		if errors.Is(err, ErrLost) {
			c.told = true
			p.lost++
		}
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	p.acquired++
	for _, other := range w.claims {
		if other.p == p && other.key == key && conflict(other.mode, mode) {
			if err := other.h.Err(); err == nil && h.Err() == nil {
				w.wrong("two in one process hold %v", key)
			} else if err != nil && !w.told(other) {
				w.wrong("%v was acquired by another session before its holder was notified of the loss", key)
			}
		}
	}
	w.claims = append(w.claims, c)
}

func (w *world) told(c *claim) bool {
	c.p.engine.mu.Lock()
	defer c.p.engine.mu.Unlock()
	return c.told
}

func (w *world) released(c *claim, err error) {
	w.server.mu.Lock()
	defer w.server.mu.Unlock()
	told := w.told(c)
	if c.released {
		if !errors.Is(err, ErrNotHeld) && !(told && errors.Is(err, ErrLost)) {
			w.wrong("unlocked again (told of a loss: %v): %v", told, err)
		}
		return
	}
	c.released = true
	switch {
	case err == nil || errors.Is(err, ErrUnconfirmed):
		if told {
			w.wrong("told of a loss, and unlocking says %v", err)
		}
	case errors.Is(err, ErrLost):
		// Two cancels may hit the same unlock twice.
		if !w.p.Faults.any() && !c.p.closing && len(w.p.Events) < 2 {
			w.wrong("nothing went wrong, and a lock was lost: %v", err)
		}
	default:
		w.wrong("unlocking: %v", err)
	}
	w.over(c.p, c.key, err)
}

// over records the end of a request or a Hold. After the last one of its key in the
// process, the server must have no lock or waiter of it.
func (w *world) over(p *running, key Key, err error) {
	p.pending[key]--
	if p.pending[key] == 0 && !p.closing {
		w.nothingLeft(p, key, fmt.Sprintf("after %v", err))
	}
}

func (w *world) nothingLeft(p *running, key Key, when string) {
	l := w.server.locks[key]
	if l == nil {
		return
	}
	mine := func(b *backend) bool { return !b.dead && !b.cut && !b.isClosed && p.owns(b) }
	for b, n := range l.held {
		if mine(b) {
			w.wrong("%s: %d still holds %v %v, without a Hold", when, b.pid, key, n)
		}
	}
	for _, q := range l.queue {
		if mine(q.b) {
			w.wrong("%s: %d still waits for %v, without a request", when, q.b.pid, key)
		}
	}
}

// granting checks, at a grant, that no claim conflicts with it.
func (w *world) granting(b *backend, key Key, mode Mode) {
	for _, c := range w.claims {
		if c.key == key && conflict(c.mode, mode) && c.h.Err() == nil && c.h.PID() != b.pid && !w.excused(c) {
			w.wrong("%v is granted to %d while %d holds it", key, b.pid, c.h.PID())
		}
	}
	// The try directly after a wait that failed finds out whether that was granted the lock.
	// If it was, one of both grants is unlocked at once.
	n := w.server.locks[key].held[b]
	if b.waited != nil && *b.waited == (heldLock{key, mode}) {
		n[mode]--
	}
	if n[Exclusive] > 1 || n[Shared] > 1 {
		w.wrong("%d holds %v more than once: %v", b.pid, key, n)
	}
}

// excused reports whether a holder cannot know yet that its session is gone.
func (w *world) excused(c *claim) bool {
	died, dead := w.server.dead[c.h.PID()]
	return dead && time.Since(died) <= w.grace(c)
}

func (w *world) grace(c *claim) time.Duration {
	// A silent loss is found by the heartbeat, and others by Watch.
	return c.p.Heartbeat + 50*time.Millisecond
}

// check compares all claims with the server, at a moment when nothing moves.
func (w *world) check() {
	s := w.server
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range w.claims {
		if c.h.Err() != nil {
			continue
		}
		pid := c.h.PID()
		b := s.backends[pid]
		if b == nil {
			if !w.excused(c) {
				w.wrong("%v has a Hold on %d, which is dead since %v", c.key, pid, s.dead[pid])
			}
			continue
		}
		if l := s.locks[c.key]; l == nil || l.held[b][c.mode] != 1 {
			w.wrong("%v has a Hold on %d, which does not hold it", c.key, pid)
		}
	}
	for i, p := range w.processes {
		for _, problem := range p.engine.inconsistencies() {
			w.wrong("process %d: %s", i, problem)
		}
	}
}

// atRest checks that nothing is left when nothing is wanted.
func (w *world) atRest() {
	s := w.server
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, p := range w.processes {
		for key, n := range p.pending {
			if n != 0 {
				w.wrong("the test miscounts: %v %d", key, n)
			}
		}
		if !p.closing {
			for key := range s.locks {
				w.nothingLeft(p, key, "at rest")
			}
			p.engine.mu.Lock()
			if n := len(p.engine.locks); n > 0 {
				w.wrong("process %d: %d locks are left", i, n)
			}
			p.engine.mu.Unlock()
		}
		p.engine.mu.Lock()
		lost := p.lost
		p.engine.mu.Unlock()
		st := p.engine.Stats()
		if st.Held != 0 || st.Waiting != 0 || st.Acquired != p.acquired || st.Lost != lost {
			w.wrong("process %d at rest, with %d acquired and %d lost: %+v", i, p.acquired, lost, st)
		}
	}
}

func (w *world) dump() string {
	var b strings.Builder
	for i, p := range w.processes {
		p.engine.mu.Lock()
		for _, l := range p.engine.locks {
			fmt.Fprintf(&b, "process %d: %v: %v, %d queued, %d hold, retry %v probing %v deferred %v\n", i, l.key, l.state,
				l.queue.len(), len(l.holders), l.retry, l.probing, l.deferred)
		}
		for _, s := range p.engine.sessions {
			fmt.Fprintf(&b, "process %d: session %d open %v owner %v busy %v, %d queued, %d in batch, holds %d, waiting %v\n",
				i, s.pid, s.open, s.owner, s.busy, len(s.queue), len(s.batch), len(s.held), s.waiting != nil)
		}
		p.engine.mu.Unlock()
	}
	w.server.mu.Lock()
	defer w.server.mu.Unlock()
	for key, l := range w.server.locks {
		for h, n := range l.held {
			fmt.Fprintf(&b, "%v is held by %d %v: sent %v, hung up %v, cut %v, closed %v\n", key, h.pid, n, h.sent, h.hungUp, h.cut, h.isClosed)
		}
	}
	return b.String()
}

// inconsistencies returns contradictions in the engine's state, at a moment when nothing
// moves.
func (e *Engine) inconsistencies() (found []string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	wrong := func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) }
	if len(e.sessions) > e.config.Sessions {
		wrong("%d sessions", len(e.sessions))
	}
	under := make(map[*localLock]map[opKind]int) // way
	for _, s := range e.sessions {
		if s.lost != nil {
			wrong("a lost session is in use")
		}
		for _, ops := range [][]op{s.batch, s.queue} {
			for _, o := range ops {
				if o.lock == nil {
					continue
				}
				if under[o.lock] == nil {
					under[o.lock] = make(map[opKind]int)
				}
				under[o.lock][o.kind]++
				if o.kind != opProbe && o.kind != opQueued && o.lock.session != s {
					wrong("%v: its session is not the one that is asked", o.lock.key)
				}
			}
		}
		for slot, l := range s.held {
			if l.session != s || l.slot != slot || l.state != held && l.state != releasing {
				wrong("%v: %v in the books of a session that does not hold it", l.key, l.state)
			}
		}
		if s.waiting != nil && s.waiting.session != s {
			wrong("a session waits for what waits elsewhere")
		}
		if s.reserved && (s.waiting != nil || !e.polling || e.pollers.first != nil && e.pollers.first.state == polling) {
			wrong("a session is reserved for nothing")
		}
		if len(s.queue) > 0 && !s.busy {
			wrong("a session rests with %d things to do", len(s.queue))
		}
	}
	holders := 0
	for key, l := range e.locks {
		n, exclusive := 0, 0
		for h := l.queue.front(); h != nil; h = h.next {
			n++
			if h.mode == Exclusive {
				exclusive++
			}
			if h.state != requested {
				wrong("%v: one in its queue is %v", key, h.state)
			}
		}
		if n != l.queue.n || exclusive != l.queue.exclusive {
			wrong("%v: its queue is miscounted", key)
		}
		holders += len(l.holders)
		ops := under[l]
		switch l.state {
		case idle:
			wrong("%v: an idle lock is kept", key)
		case trying:
			if ops[opTry] != 1 {
				wrong("%v: trying without a try", key)
			}
		case waiting:
			if ops[opWait] != 1 || l.session.waiting != l {
				wrong("%v: waiting without a wait", key)
			}
		case polling:
			if l.polls != &e.pollers || !e.polling || n == 0 && !e.closed {
				wrong("%v: polling for nothing", key)
			}
		case held:
			if !slices.Contains(l.session.held, l) || len(l.holders) == 0 {
				wrong("%v: held by nobody", key)
			}
			if l.mode == Exclusive && len(l.holders) > 1 {
				wrong("%v: held by %d exclusively", key, len(l.holders))
			}
		case releasing:
			if !slices.Contains(l.session.held, l) || len(l.holders) > 0 || ops[opUnlock] != 1 && !l.deferred {
				wrong("%v: releasing what is not held", key)
			}
		}
		if l.probing != (ops[opProbe]+ops[opQueued] == 1) {
			wrong("%v: probing %v with %d probes", key, l.probing, ops[opProbe])
		}
		if l.state == trying && ops[opUnlock] > 0 || l.state != trying && l.state != releasing && ops[opTry] > 0 {
			wrong("%v: %v with ops %v", key, l.state, ops)
		}
		if len(l.settled) > 0 && (l.state == held || l.state == polling) {
			wrong("%v: %v, and somebody waits for it to settle", key, l.state)
		}
	}
	if holders != e.held {
		wrong("%d hold, %d are counted", holders, e.held)
	}
	for _, list := range []*pollList{&e.pollers, &e.joiners} {
		n, next := 0, list.next == nil
		for l := list.first; l != nil; l = l.pollNext {
			n++
			next = next || l == list.next
			if l.polls != list || e.locks[l.key] != l || list == &e.pollers && l.state != polling && l.state != trying {
				wrong("%v: among those who poll, but %v", l.key, l.state)
			}
		}
		if n != list.n || !next {
			wrong("a list of %d that poll is counted as %d, and has a wrong next one", n, list.n)
		}
	}
	return found
}
