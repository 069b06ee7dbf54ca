//go:build unix

package chaos

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"
)

// How a history is checked.
//
// Each key has its own history of locks that were acquired and released, each at some
// moment between the call and its return. porcupine searches for an order of these
// moments in which no exclusive lock is acquired while the key is locked, and no shared
// lock while it is locked exclusively.
//
// A lock is held until its holder releases it or is notified that it is lost. Postgres
// can break this rule: when it ends a session, it frees the locks at once, and the
// holder is notified a moment later, or much later if it is suspended. So a lost lock,
// and only a lost lock, may have ended as soon as a fault began that ends sessions of
// its worker. The time in which two operations claimed the same lock for this reason is
// measured and reported. It is an error if it exceeds the time that the holder has to
// notice.
//
// The same applies to a lock that was released without a statement: a shared lock that
// others in the process still hold, and a lock that was handed over within the process.
// The loss was not yet known, so Unlock had no error to return.
//
// Black holes, slow networks and suspended processes do not end sessions: in these cases
// the client gives up, and it notifies its holders before it closes the session.

// A fault is something that the nemesis did to the system.
type fault struct {
	Name  string `json:"name"`
	Begin int64  `json:"begin"`
	End   int64  `json:"end"`

	// Ends is when the fault began to end sessions, or 0 if it does not end any.
	Ends   int64  `json:"ends,omitempty"`
	Worker string `json:"worker,omitempty"` // the affected worker; "" means all
	PID    int32  `json:"pid,omitempty"`    // the affected session; 0 means all of Worker

	// Untold is since when leases of the worker may end before their holders are notified,
	// or 0.
	Untold int64 `json:"untold,omitempty"`
	// Asleep is the end of the time in which the worker was stopped and could not
	// notice anything.
	Asleep int64 `json:"asleep,omitempty"`
	// Part means that the fault is a part of the previous one, and is not counted.
	Part bool `json:"part,omitempty"`
}

// A record is everything that is known about a round.
type record struct {
	ops    []*op
	faults []fault
	rests  []int64       // moments when no lock was held, as confirmed by Postgres
	notice time.Duration // limit for a running holder to notice a loss
	ttl    time.Duration // of leases; 0 means advisory locks
	log    []logged      // the committed writes that leases fenced
	// anyLoss is true if a loss needs no fault to explain it.
	anyLoss bool
}

// A claim is the time in which an operation claimed to hold a lock.
type claim struct {
	op       *op
	key      string
	acquired int64 // the lock was certainly held from here
	free     int64 // the lock may have been free from here
	until    int64 // the holder claimed the lock until here
	freed    int64 // the lock was certainly free from here
	cause    *fault
}

func (c *claim) String() string {
	s := fmt.Sprintf("%s, key %s, held from %d, perhaps until %d, claimed until %d", c.op, c.key, c.acquired, c.free, c.until)
	if c.cause != nil {
		s += fmt.Sprintf(", because of %q at %d", c.cause.Name, c.cause.Ends)
	}
	return s
}

// conflicts reports whether the two claims exclude each other.
func (c *claim) conflicts(d *claim) bool {
	return c.key == d.key && c.op != d.op && (!c.op.shared || !d.op.shared)
}

// A verdict is the result of a check.
type verdict struct {
	wrong    []string
	overlaps []overlap
	losses   []loss
}

// An overlap is a time in which two operations claimed the same lock, because the first
// had lost it and was not notified yet.
type overlap struct {
	cause *fault
	long  time.Duration
}

// A loss is an operation that lost its locks.
type loss struct {
	op    *op
	cause *fault // nil if no fault explains it
}

// check checks a round. It draws each wrong history into dir.
func (r *record) check(dir string) verdict {
	var v verdict
	claims := r.claims(&v)
	for key, history := range byKey(claims) {
		// Check twice: conflicts names the wrong pair, and porcupine is independent.
		pairs := conflicts(history)
		for _, pair := range pairs {
			v.wrong = append(v.wrong, fmt.Sprintf("two held %s at the same time:\n    %v\n    %v", key, pair[0], pair[1]))
		}
		for n, segment := range r.segments(history) {
			result, info := porcupine.CheckOperationsVerbose(lockModel(), operations(segment), time.Minute)
			if result == porcupine.Ok {
				continue
			}
			path := filepath.Join(dir, fmt.Sprintf("%s-%d.html", strings.ReplaceAll(key, "/", "-"), n))
			if err := porcupine.VisualizePath(lockModel(), info, path); err != nil {
				path = err.Error()
			}
			v.wrong = append(v.wrong, fmt.Sprintf("the history of %s is not linearizable (%s); see %s", key, result, path))
		}
		v.overlaps = append(v.overlaps, r.overlapping(history, &v)...)
	}
	r.checkTokens(&v)
	r.checkWrites(&v)
	return v
}

// claims turns the operations into claims, and checks the outcome of each.
func (r *record) claims(v *verdict) []*claim {
	var claims []*claim
	for _, o := range r.ops {
		if o.outcome == outOther {
			v.wrong = append(v.wrong, fmt.Sprintf("%s returned an unexpected error: %s", o, o.text))
		}
		if o.acquired == 0 {
			continue // it never held a lock
		}
		c := claim{op: o, acquired: o.acquired, freed: o.released}
		for _, t := range []int64{o.notified, o.releasing, o.died} {
			if t != 0 && (c.until == 0 || t < c.until) {
				c.until = t
			}
		}
		if c.until == 0 {
			v.wrong = append(v.wrong, fmt.Sprintf("%s never stopped holding", o))
			continue
		}
		c.free = c.until
		if r.ttl != 0 {
			r.claimLease(&c, v)
		} else {
			r.claimLock(&c, v)
		}
		for _, key := range o.keys {
			one := c
			one.key = key
			claims = append(claims, &one)
		}
	}
	return claims
}

// claimLock sets when an advisory lock of a claim may have been free, and was.
func (r *record) claimLock(c *claim, v *verdict) {
	o := c.op
	if o.notified != 0 || o.released == 0 || o.outcome != outOK {
		c.freed = r.restAfter(c.until)
		if c.cause = r.ended(o, c.until); c.cause != nil {
			c.free = min(c.free, c.cause.Ends)
		}
		if o.transaction() {
			c.until = c.free // its later work was rolled back
		}
	} else if c.cause = r.unnoticed(o); c.cause != nil {
		c.free = c.cause.Ends
	}
	if o.lost() || o.outcome == outBroken {
		l := loss{op: o, cause: r.explain(o)}
		v.losses = append(v.losses, l)
		text := o.notifiedText + o.text
		if l.cause == nil && !silent(text) && !r.anyLoss {
			v.wrong = append(v.wrong, fmt.Sprintf("%s lost its locks without a fault: %s", o, text))
		}
	}
}

// lost reports whether the holder learned that its locks are lost.
func (o *op) lost() bool {
	return o.notified != 0 || o.outcome == outLost || o.outcome == outUnconfirmed
}

// silent reports whether the text of a loss says that the server did not respond in time.
// It also happens on an overloaded machine, which does not break a promise.
func silent(text string) bool {
	return strings.Contains(text, "no answer within the heartbeat") || strings.Contains(text, "could not be renewed in time")
}

// ended returns the first fault that may have ended the session that held o's locks, at
// or before the time until.
func (r *record) ended(o *op, until int64) *fault {
	var first *fault
	for i := range r.faults {
		f := &r.faults[i]
		if f.Ends != 0 && f.Ends <= until && r.reaches(f, o) && (first == nil || f.Ends < first.Ends) {
			first = f
		}
	}
	return first
}

// unnoticed returns the first fault that may have ended the session that held o's locks
// although they were released without an error.
func (r *record) unnoticed(o *op) *fault {
	var first *fault
	for i := range r.faults {
		f := &r.faults[i]
		switch {
		case o.transaction(), f.Ends == 0, f.Ends > o.releasing, !r.reaches(f, o):
		case !o.shared && f.End < o.releasing-int64(maxHandOver):
			// Locks that Postgres granted longer ago are not handed over.
		case first == nil || f.Ends < first.Ends:
			first = f
		}
	}
	return first
}

// maxHandOver is the longest HandOver of a worker.
const maxHandOver = 25 * time.Millisecond

// explain returns the last fault that may have made o lose its locks.
func (r *record) explain(o *op) *fault {
	var last *fault
	for i := range r.faults {
		f := &r.faults[i]
		if f.Begin <= o.over() && r.touches(f, o, int64(r.notice)) && (last == nil || f.Begin > last.Begin || f.Ends != 0 && last.Ends == 0) {
			last = f
		}
	}
	return last
}

// reaches reports whether f can have ended the session that held o's locks.
func (r *record) reaches(f *fault, o *op) bool {
	// Within a process, a lock can be handed over after its session ended, until that
	// is noticed: an exclusive lock for HandOver, a shared one without that limit.
	late := int64(maxHandOver)
	if o.shared {
		late = int64(r.notice)
	}
	return r.touches(f, o, late)
}

// touches reports whether f affected the worker and session of o, at most late before o
// began.
func (r *record) touches(f *fault, o *op, late int64) bool {
	if f.Worker != "" && f.Worker != o.worker {
		return false
	}
	if f.PID != 0 && o.pid != 0 && f.PID != o.pid {
		return false
	}
	// At a rest, all locks had been released by living sessions.
	for _, rest := range r.rests {
		if f.End < rest && rest < o.requested {
			return false
		}
	}
	return o.requested-f.End <= late
}

// restAfter returns the first rest after t, when all locks were certainly free.
func (r *record) restAfter(t int64) int64 {
	for _, rest := range r.rests {
		if rest > t {
			return rest
		}
	}
	return 1<<63 - 1
}

func byKey(claims []*claim) map[string][]*claim {
	keys := make(map[string][]*claim)
	for _, c := range claims {
		keys[c.key] = append(keys[c.key], c)
	}
	return keys
}

// conflicts returns the pairs of claims that exclude each other and were held together.
func conflicts(history []*claim) (pairs [][2]*claim) {
	history = slices.Clone(history)
	slices.SortFunc(history, func(a, b *claim) int { return int(a.acquired - b.acquired) })
	var held []*claim
	for _, c := range history {
		if c.free < c.acquired { // it may have ended before its holder learned of the grant
			continue
		}
		held = slices.DeleteFunc(held, func(h *claim) bool { return h.free <= c.acquired })
		for _, h := range held {
			if h.conflicts(c) {
				pairs = append(pairs, [2]*claim{h, c})
			}
		}
		held = append(held, c)
	}
	return pairs
}

// overlapping returns the times in which a claim continued after its lock was lost,
// while another operation held the lock.
func (r *record) overlapping(history []*claim, v *verdict) (overlaps []overlap) {
	history = slices.Clone(history)
	slices.SortFunc(history, func(a, b *claim) int { return int(a.acquired - b.acquired) })
	for i, c := range history {
		for _, d := range history[i+1:] {
			if d.acquired >= c.until {
				break
			}
			begin, end := d.acquired, min(c.until, d.until)
			if !c.conflicts(d) || begin >= end {
				continue
			}
			// The first has lost the lock, unless no fault explains that: then these two
			// are also a conflict.
			loser, other := c, d
			if c.cause == nil {
				loser, other = d, c
			}
			if loser.cause == nil {
				continue
			}
			overlaps = append(overlaps, overlap{loser.cause, time.Duration(end - begin)})
			if late := time.Duration(loser.until - r.awake(loser)); late > r.noticeAfter(loser.cause) {
				v.wrong = append(v.wrong, fmt.Sprintf("a holder continued for %v after it could know of its loss, while another held the lock:\n    %v\n    %v", late, loser, other))
			}
		}
	}
	return overlaps
}

// noticeAfter returns for how long a running holder may not notice a loss because of f.
func (r *record) noticeAfter(f *fault) time.Duration {
	if r.ttl != 0 {
		return r.leaseNotice(f)
	}
	return r.notice
}

// awake returns when the holder was first able to know of its loss.
func (r *record) awake(c *claim) int64 {
	awake := c.cause.Ends
	if r.ttl != 0 {
		awake = c.cause.Untold
	}
	for _, f := range r.faults {
		if f.Worker == c.op.worker && f.Asleep > awake && f.Begin < c.until {
			awake = f.Asleep
		}
	}
	return awake
}

// segments cuts the history of a key at the rests, when the key is not locked.
func (r *record) segments(history []*claim) [][]*claim {
	segments := make([][]*claim, len(r.rests)+1)
	for _, c := range history {
		n, _ := slices.BinarySearch(r.rests, c.acquired)
		segments[n] = append(segments[n], c)
	}
	return segments
}

// A step is an operation for porcupine: the acquisition of a lock, or its end.
type step struct {
	claim *claim
	id    int
	take  bool
}

// operations returns the steps of the claims of one key.
func operations(claims []*claim) []porcupine.Operation {
	ops := make([]porcupine.Operation, 0, 2*len(claims))
	for i, c := range claims {
		ops = append(
			ops,
			porcupine.Operation{ClientId: i, Input: step{c, i + 1, true}, Call: c.op.requested, Return: c.acquired},
			// A lock may end before its holder learns of the grant; the end is still recorded after it.
			porcupine.Operation{ClientId: i, Input: step{c, i + 1, false}, Call: max(c.free, c.op.requested), Return: max(c.freed, c.free, c.acquired)},
		)
	}
	return ops
}

// A lockState holds the holders of a lock: one exclusive, or any number shared.
type lockState struct {
	exclusive int
	shared    []int // sorted
}

// lockModel returns the model of a lock with one exclusive or any number of shared
// holders.
func lockModel() porcupine.Model {
	return porcupine.Model{
		Init: func() any { return lockState{} },
		Step: func(state, input, _ any) (bool, any) {
			s, in := state.(lockState), input.(step)
			at, holds := slices.BinarySearch(s.shared, in.id)
			switch shared := in.claim.op.shared; {
			case in.take && s.exclusive != 0, in.take && !shared && len(s.shared) > 0:
				return false, s
			case in.take && shared:
				return true, lockState{shared: slices.Insert(slices.Clone(s.shared), at, in.id)}
			case in.take:
				return true, lockState{exclusive: in.id}
			case shared && holds:
				return true, lockState{shared: slices.Delete(slices.Clone(s.shared), at, at+1)}
			case !shared && s.exclusive == in.id:
				return true, lockState{}
			}
			return false, s // a lock that is not held cannot end
		},
		Equal: func(a, b any) bool {
			x, y := a.(lockState), b.(lockState)
			return x.exclusive == y.exclusive && slices.Equal(x.shared, y.shared)
		},
		Hash: func(state any) uint64 {
			s := state.(lockState)
			hash := uint64(s.exclusive)
			for _, id := range s.shared {
				hash = hash*31 + uint64(id)
			}
			return hash
		},
		DescribeOperation: func(input, _ any) string {
			in := input.(step)
			if in.take {
				return "take " + in.claim.op.String()
			}
			return "end " + in.claim.op.String()
		},
		DescribeState: func(state any) string { return fmt.Sprintf("%+v", state) },
	}
}
