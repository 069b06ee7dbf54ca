package engine

// A queue is a first-in, first-out list of Holds.
type queue struct {
	first, last *Hold
	n           int
	exclusive   int // number of exclusive Holds in it
}

func (q *queue) front() *Hold { return q.first }

func (q *queue) len() int { return q.n }

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
