package engine

// Stats are counters since the Engine was created. The first three are current values
// instead.
type Stats struct {
	Sessions int // open sessions, and those being opened
	Held     int // locks held
	Waiting  int // requests waiting for a lock

	Acquired   uint64 // locks granted
	Refused    uint64 // requests that ended without the lock
	Lost       uint64 // locks lost with their session
	Dropped    uint64 // locks still held whose handle was dropped
	HandOvers  uint64 // locks passed from one holder to the next without Postgres
	RoundTrips uint64 // statements run
}

// Count counts a request of which the engine knows only steps.
func (e *Engine) Count(granted bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if granted {
		e.stats.Acquired++
	} else {
		e.stats.Refused++
	}
}

// Stats returns the current statistics.
func (e *Engine) Stats() Stats {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.stats
	s.Sessions, s.Held, s.RoundTrips = len(e.sessions), e.held, e.roundTrips.Load()
	for _, l := range e.locks {
		s.Waiting += l.queue.len()
	}
	return s
}
