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

// How a history is judged.
//
// Each key has a history of its own: locks taken and given back, each at some
// moment between the call and the return of what did it. porcupine looks for an
// order of these moments in which no exclusive lock is taken while another is
// held, nor a shared one beside an exclusive one.
//
// A lock is held until its holder gives it back or is told that it is lost. That
// cannot be kept where Postgres ends a session: it frees the locks at once, and
// the holder hears of it a moment later (or, asleep, much later). So a lock that
// was lost, and only such a one, may have ended as soon as a fault began that
// ends sessions of its worker. How long two claimed to hold the same lock because
// of that is measured and reported, and it is wrong when it took longer than the
// holder may take to notice.
//
// The same goes for a lock that was given back without asking Postgres: a shared one
// that others in the process still hold, and one that went on to the next in the
// process. Nobody knew yet, so Unlock had no error to return.
//
// Black holes, slow networks and sleeping processes are no such faults: there it is
// the client who gives up, and it tells its holders before it lets go.

// A fault is something that was done to the system.
type fault struct {
	Name  string `json:"name"`
	Begin int64  `json:"begin"`
	End   int64  `json:"end"`

	// Ends says that it ends sessions, and when it began to; 0 that it does not.
	Ends   int64  `json:"ends,omitempty"`
	Worker string `json:"worker,omitempty"` // whose sessions, "" for everybody's
	PID    int32  `json:"pid,omitempty"`    // only this one, 0 for all of them

	// Asleep is until when the worker was stopped and could not notice anything.
	Asleep int64 `json:"asleep,omitempty"`
	// Part says that it belongs to the one before, and does not count as another.
	Part bool `json:"part,omitempty"`
}

// A record is all that is known of a round.
type record struct {
	ops    []*op
	faults []fault
	rests  []int64       // moments when nobody held anything, as Postgres confirmed
	notice time.Duration // within which a holder who is awake must notice a loss
}

// A claim is the time in which somebody said to hold a lock.
type claim struct {
	op    *op
	key   string
	got   int64 // since when for certain
	free  int64 // from when on the lock may have been free
	until int64 // when the holder stopped saying so
	freed int64 // by when it was free for certain
	cause *fault
}

func (c *claim) String() string {
	s := fmt.Sprintf("%s, key %s, held from %d, perhaps until %d, said to be until %d", c.op, c.key, c.got, c.free, c.until)
	if c.cause != nil {
		s += fmt.Sprintf(", because of %q at %d", c.cause.Name, c.cause.Ends)
	}
	return s
}

// conflicts reports whether the two may not hold at the same time.
func (c *claim) conflicts(d *claim) bool {
	return c.key == d.key && c.op != d.op && (!c.op.shared || !d.op.shared)
}

// A verdict is what the checker found.
type verdict struct {
	wrong    []string
	overlaps []overlap
	losses   []loss
}

// An overlap is a time in which two said to hold one lock, because the first had
// lost it and did not know yet.
type overlap struct {
	cause *fault
	long  time.Duration
}

// A loss is an operation that lost its locks.
type loss struct {
	op    *op
	cause *fault // nil when nothing was done that explains it
}

// check judges a round. Where a history is wrong it draws it into dir.
func (r *record) check(dir string) verdict {
	var v verdict
	claims := r.claims(&v)
	for key, history := range byKey(claims) {
		// Two ways to the same answer: one finds the pair that is wrong, the
		// other is not ours.
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
			v.wrong = append(v.wrong, fmt.Sprintf("the history of %s is not that of a lock (%s): see %s", key, result, path))
		}
		v.overlaps = append(v.overlaps, r.overlapping(history, &v)...)
	}
	return v
}

// claims makes claims of the operations, and looks at what came of each.
func (r *record) claims(v *verdict) []*claim {
	var claims []*claim
	for _, o := range r.ops {
		if o.outcome == outOther {
			v.wrong = append(v.wrong, fmt.Sprintf("%s ended with an error of no known kind: %s", o, o.text))
		}
		if o.got == 0 {
			continue // nobody ever said to hold it
		}
		c := claim{op: o, got: o.got, freed: o.given}
		for _, t := range []int64{o.told, o.giving, o.died} {
			if t != 0 && (c.until == 0 || t < c.until) {
				c.until = t
			}
		}
		if c.until == 0 {
			v.wrong = append(v.wrong, fmt.Sprintf("%s: its holding never ended", o))
			continue
		}
		c.free = c.until
		if o.told != 0 || o.given == 0 || o.outcome != outOK {
			c.freed = r.restAfter(c.until)
			if c.cause = r.ended(o, c.until); c.cause != nil {
				c.free = min(c.free, c.cause.Ends)
			}
			if o.transaction() {
				c.until = c.free // what it did since is undone
			}
		} else if c.cause = r.unnoticed(o); c.cause != nil {
			c.free = c.cause.Ends
		}
		if o.told != 0 || o.outcome == outLost || o.outcome == outUnconfirmed || o.outcome == outBroken {
			l := loss{op: o, cause: r.explain(o)}
			v.losses = append(v.losses, l)
			text := o.toldText + o.text
			if l.cause == nil && !strings.Contains(text, silence) {
				v.wrong = append(v.wrong, fmt.Sprintf("%s was lost though nothing was done to it: %s", o, text))
			}
		}
		for _, key := range o.keys {
			one := c
			one.key = key
			claims = append(claims, &one)
		}
	}
	return claims
}

// silence is what a loss says when the server did not answer in time. That also
// happens when the machine has too much to do, and the promise is kept then.
const silence = "no answer within the heartbeat"

// ended is the first fault that may have ended the session that held o's locks by
// the time until.
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

// unnoticed is the first fault that may have ended the session that held o's locks
// although they were given back without an error.
func (r *record) unnoticed(o *op) *fault {
	var first *fault
	for i := range r.faults {
		f := &r.faults[i]
		switch {
		case o.transaction(), f.Ends == 0, f.Ends > o.giving, !r.reaches(f, o):
		case !o.shared && f.End < o.giving-int64(maxHandOver):
			// Locks that Postgres granted longer ago do not go from hand to hand.
		case first == nil || f.Ends < first.Ends:
			first = f
		}
	}
	return first
}

// maxHandOver is the longest HandOver that a worker has.
const maxHandOver = 25 * time.Millisecond

// explain is the last fault that may be why o lost its locks.
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
	// Within a process a lock goes from hand to hand, also when its session is gone
	// and nobody knows: an exclusive one for as long as HandOver says, a shared one
	// until it is noticed.
	late := int64(maxHandOver)
	if o.shared {
		late = int64(r.notice)
	}
	return r.touches(f, o, late)
}

// touches reports whether f was done to what o works with, no more than late before
// o asked.
func (r *record) touches(f *fault, o *op, late int64) bool {
	if f.Worker != "" && f.Worker != o.worker {
		return false
	}
	if f.PID != 0 && o.pid != 0 && f.PID != o.pid {
		return false
	}
	// At a rest all had been given back, to sessions that were alive.
	for _, rest := range r.rests {
		if f.End < rest && rest < o.ask {
			return false
		}
	}
	return o.ask-f.End <= late
}

// restAfter is when everything was free for certain.
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

// conflicts are the pairs of claims that exclude each other and were both held.
func conflicts(history []*claim) (pairs [][2]*claim) {
	history = slices.Clone(history)
	slices.SortFunc(history, func(a, b *claim) int { return int(a.got - b.got) })
	var held []*claim
	for _, c := range history {
		if c.free < c.got { // it may have been over before its holder knew that it had it
			continue
		}
		held = slices.DeleteFunc(held, func(h *claim) bool { return h.free <= c.got })
		for _, h := range held {
			if h.conflicts(c) {
				pairs = append(pairs, [2]*claim{h, c})
			}
		}
		held = append(held, c)
	}
	return pairs
}

// overlapping are the times in which a claim went on after its lock was lost,
// while somebody else had it.
func (r *record) overlapping(history []*claim, v *verdict) (overlaps []overlap) {
	history = slices.Clone(history)
	slices.SortFunc(history, func(a, b *claim) int { return int(a.got - b.got) })
	for i, c := range history {
		for _, d := range history[i+1:] {
			if d.got >= c.until {
				break
			}
			begin, end := d.got, min(c.until, d.until)
			if !c.conflicts(d) || begin >= end {
				continue
			}
			// Who came first has lost the lock, unless that is out of the question:
			// then these two are a conflict, too.
			loser, other := c, d
			if c.cause == nil {
				loser, other = d, c
			}
			if loser.cause == nil {
				continue
			}
			overlaps = append(overlaps, overlap{loser.cause, time.Duration(end - begin)})
			if late := time.Duration(loser.until - r.awake(loser)); late > r.notice {
				v.wrong = append(v.wrong, fmt.Sprintf("a holder went on for %v after it could know of its loss, while another held the lock:\n    %v\n    %v", late, loser, other))
			}
		}
	}
	return overlaps
}

// awake is from when on the holder could know of its loss.
func (r *record) awake(c *claim) int64 {
	awake := c.cause.Ends
	for _, f := range r.faults {
		if f.Worker == c.op.worker && f.Asleep > awake && f.Begin < c.until {
			awake = f.Asleep
		}
	}
	return awake
}

// segments cuts the history of a key at the rests, where nobody holds it.
func (r *record) segments(history []*claim) [][]*claim {
	segments := make([][]*claim, len(r.rests)+1)
	for _, c := range history {
		n, _ := slices.BinarySearch(r.rests, c.got)
		segments[n] = append(segments[n], c)
	}
	return segments
}

// A step is what porcupine gets to see: the taking of a lock, or its end.
type step struct {
	claim *claim
	id    int
	take  bool
}

// operations are the steps of the claims of one key.
func operations(claims []*claim) []porcupine.Operation {
	ops := make([]porcupine.Operation, 0, 2*len(claims))
	for i, c := range claims {
		ops = append(
			ops,
			porcupine.Operation{ClientId: i, Input: step{c, i + 1, true}, Call: c.op.ask, Return: c.got},
			// The end of what ended before its holder knew that it had it stands behind that all the same.
			porcupine.Operation{ClientId: i, Input: step{c, i + 1, false}, Call: max(c.free, c.op.ask), Return: max(c.freed, c.free, c.got)},
		)
	}
	return ops
}

// A lockState is who holds a lock: one exclusively, or some shared.
type lockState struct {
	exclusive int
	shared    []int // sorted
}

// lockModel is a lock that one may hold exclusively or any number shared.
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
			return false, s // what is not held cannot end
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
