package top

import (
	"cmp"
	"slices"
	"time"

	"github.com/pglock-go/pglock/inspect"
)

const (
	// historySpan is how long incidents are remembered.
	historySpan = 15 * time.Minute

	// maxIncidents is how many incidents are remembered.
	maxIncidents = 1000

	// maxGap is how long a session may block nobody, or not be seen, within an incident.
	maxGap = 30 * time.Second
)

// An incident is a session that blocked others without a longer pause, as a root.
type incident struct {
	root     *inspect.Session // as it was seen last
	target   string           // what its longest waiter waited for
	began    time.Time        // when the first wait began
	seen     time.Time        // when it was seen blocking last
	peak     int              // how many sessions waited at once
	longest  time.Duration    // the longest wait
	finished time.Duration    // the sum of waits that have ended
	waits    map[waitKey]time.Duration
	open     bool // it blocks others now
}

// A waitKey identifies one wait of a session. The beginning is rounded, because before
// Postgres 14 it is an estimate.
type waitKey struct {
	session sessionKey
	target  string
}

// waited returns how long sessions waited behind the root, in all.
func (i *incident) waited() time.Duration {
	sum := i.finished
	for _, d := range i.waits {
		sum += d
	}
	return sum
}

// A history is what blocked whom in the last 15 minutes, from the pictures that were read.
type history struct {
	incidents []*incident
	seen      time.Time // the time of the last picture
}

// add adds the trees of a picture that was read at a time. The trees must be all.
func (h *history) add(at time.Time, trees []*inspect.Tree) {
	h.seen = at
	for _, i := range h.incidents {
		i.open = false
	}
	for _, t := range trees {
		h.addTree(at, t)
	}
	for _, i := range h.incidents {
		if !i.open {
			i.finished = i.waited()
			clear(i.waits)
		}
	}
	h.incidents = slices.DeleteFunc(h.incidents, func(i *incident) bool { return at.Sub(i.seen) > historySpan })
	if n := len(h.incidents) - maxIncidents; n > 0 {
		slices.SortStableFunc(h.incidents, func(a, b *incident) int { return a.seen.Compare(b.seen) })
		h.incidents = slices.Delete(h.incidents, 0, n)
	}
}

func (h *history) addTree(at time.Time, t *inspect.Tree) {
	key := keyOf(t.Session)
	n := slices.IndexFunc(h.incidents, func(i *incident) bool {
		return keyOf(i.root) == key && at.Sub(i.seen) <= maxGap
	})
	if n < 0 {
		n = len(h.incidents)
		h.incidents = append(h.incidents, &incident{began: at, waits: map[waitKey]time.Duration{}})
	}
	i := h.incidents[n]
	i.root, i.seen, i.open = t.Session, at, true
	i.peak = max(i.peak, t.Behind)
	if began := at.Add(-t.Longest); began.Before(i.began) {
		i.began = began
	}
	waits := map[waitKey]time.Duration{}
	var visit func(t *inspect.Tree)
	visit = func(t *inspect.Tree) {
		for _, b := range t.Blocked {
			if b.Again {
				continue
			}
			target := b.Pair.Target()
			if b.Pair.WaitDuration >= i.longest {
				i.longest, i.target = b.Pair.WaitDuration, target
			}
			k := waitKey{keyOf(b.Session), target}
			if before := i.waits[k]; b.Pair.WaitDuration < before {
				i.finished += before // the session waits anew
			}
			delete(i.waits, k)
			waits[k] = b.Pair.WaitDuration
			visit(b)
		}
	}
	visit(t)
	for _, d := range i.waits { // those that have ended
		i.finished += d
	}
	i.waits = waits
}

// latest returns the incidents, the open ones first, and then the last ones.
func (h *history) latest() []*incident {
	sorted := slices.Clone(h.incidents)
	slices.SortStableFunc(sorted, func(a, b *incident) int {
		if a.open != b.open {
			if a.open {
				return -1
			}
			return 1
		}
		return cmp.Or(b.seen.Compare(a.seen), a.began.Compare(b.began), cmp.Compare(a.root.PID, b.root.PID))
	})
	return sorted
}
