package prioritize

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/pglock-go/pglock/inspect"
)

// A watcher watches sessions and acts on their blockers. Its fields belong to its
// goroutine while that runs, and otherwise to its caller.
type watcher struct {
	config *config
	who    Who
	open   func(context.Context) (observer, error)

	passive bool // it does not act on blockers, whatever the policy is

	tracker      *tracker
	present      map[chosen]bool   // the chosen sessions that exist
	lastBlockers map[int32][]int32 // the blockers of each session at the last poll
	pairsReadAt  time.Time         // when the last pairs were read
	pairsTime    time.Duration     // how long that took
	warmth       warmth            // of the watcher's session

	pollTime     time.Duration // how long the last poll took
	polledAt     time.Time     // when the last poll ended
	polledBefore time.Time     // when the poll before it ended
	lostReported bool          // the loss of the session was reported
	failures     int           // failures in a row

	lastPairs      []inspect.Pair // the last one that was not empty
	lastBlocked    time.Time      // when a session was last seen blocked
	began          time.Time      // when watching began
	unseenReported bool           // it was reported that no chosen session exists
	spared         []Event        // each spared blocker once, with the last reason
	calls          []failedCall   // the last error of Call's function for each blocker

	run    int64          // the number of the run, once it is registered
	marked map[int32]bool // the sessions that the watcher's session has marked

	mu       sync.Mutex // guards observer, which during may close
	observer observer
}

func newWatcher(c *config, who Who, open func(context.Context) (observer, error)) *watcher {
	return &watcher{config: c, who: who, open: open, tracker: newTracker(c), present: map[chosen]bool{}, lastBlockers: map[int32][]int32{}}
}

// connect opens the watcher's session, if it has none.
func (w *watcher) connect(ctx context.Context) error {
	if w.observer != nil {
		return nil
	}
	e, err := w.open(ctx)
	if err != nil {
		return err
	}
	if err := w.register(ctx, e); err != nil {
		e.close()
		return err
	}
	w.set(e)
	w.warmth = cold
	return nil
}

func (w *watcher) set(e observer) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.observer = e
}

// close ends the watcher's session.
func (w *watcher) close() {
	w.mu.Lock()
	e := w.observer
	w.observer = nil
	w.mu.Unlock()
	if e != nil {
		e.close()
	}
}

// stopWait is how long a statement of the watcher may go on after the function has
// returned, before its session is closed.
const stopWait = 250 * time.Millisecond

// during watches while fn runs; if late is set, it begins only after an interval. The
// watching has ended when during returns, even if fn panics.
func (w *watcher) during(ctx context.Context, late bool, fn func(context.Context) error) error {
	watching, stop := context.WithCancel(ctx)
	var panicked any
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() { panicked = recover() }() // a panic of the user's function goes to our caller
		w.watch(watching, late)
	}()
	ended, failed := false, false
	defer func() {
		stop()
		select {
		case <-done:
		case <-time.After(stopWait):
			w.mu.Lock()
			e := w.observer
			w.mu.Unlock()
			if e != nil {
				e.close()
			}
			<-done
			w.close()
		}
		if failed && len(w.lastPairs) == 0 {
			w.finalPoll(ctx)
		}
		for pid, wait := range w.tracker.waits { // fn has ended, and with it the wait
			w.tracker.noteEnd(wait, time.Now())
			w.config.emit(Event{Kind: Freed, PID: pid, Waited: time.Since(wait.began)})
		}
		if panicked != nil && ended {
			panic(panicked)
		}
	}()
	err := fn(ctx)
	ended, failed = true, err != nil
	return err
}

// finalPoll polls for blockers if the function has failed and the watcher has not
// seen why: a session of another program may still be waiting, and a canceled
// statement may not have ended yet.
func (w *watcher) finalPoll(ctx context.Context) {
	if w.observer == nil {
		return
	}
	queryCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopWait)
	defer cancel()
	if err := w.readState(queryCtx); err != nil {
		w.close()
	}
}

// watch watches until ctx ends.
func (w *watcher) watch(ctx context.Context, late bool) {
	w.tracker, w.lastPairs, w.polledAt = newTracker(w.config), nil, time.Time{}
	w.began, w.spared, w.calls = time.Now(), nil, nil
	clear(w.lastBlockers)
	if late && !sleep(ctx, w.config.interval) {
		return
	}
	var pace pace
	for ctx.Err() == nil {
		if w.observer == nil && !w.reopen(ctx) {
			return
		}
		acted, err := w.step(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			w.close()
			w.reportLost(err)
			continue
		}
		w.failures = 0
		pause := pace.next(w.config.interval, w.config.maxPause(), w.pollTime, acted, len(w.tracker.waits) > 0)
		if next := w.tracker.next(); !next.IsZero() {
			pause = min(pause, time.Until(next))
		}
		if !sleep(ctx, pause) {
			return
		}
	}
}

// step acts on the blockers that are due, polls, and acts again.
func (w *watcher) step(ctx context.Context) (acted bool, err error) {
	acted, err = w.act(ctx)
	if err != nil || ctx.Err() != nil {
		return acted, err
	}
	if err := w.poll(ctx); err != nil || ctx.Err() != nil {
		return acted, err
	}
	again, err := w.act(ctx)
	if err == nil {
		err = w.warmUp(ctx)
	}
	return acted || again, err
}

// queryContext limits one query. It does not end with ctx: an interrupted statement costs
// the session, and may or may not have run.
func queryContext(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), queryTimeout)
}

// poll reads which sessions exist and which are blocked.
func (w *watcher) poll(ctx context.Context) error {
	queryCtx, cancel := queryContext(ctx)
	defer cancel()
	return w.readState(queryCtx)
}

// readState does what poll does, limited by ctx.
func (w *watcher) readState(ctx context.Context) error {
	began := time.Now()
	v, err := w.observer.poll(ctx, w.who)
	if err != nil {
		return err
	}
	if err := w.markSessions(ctx, v); err != nil {
		return err
	}
	defer func() { w.tracker.pollBegan = began }()
	now := time.Now()
	w.polledBefore, w.polledAt, w.pollTime = w.polledAt, now, now.Sub(began)
	w.reportPresence(v)
	w.reportUnseen(began)

	// A session that is blocked in only one of tracker and poll has changed.
	changed := len(v.Waiting) != len(w.lastBlockers) || len(v.Waiting) != len(w.tracker.waits)
	var pids []int32
	for _, waiting := range v.Waiting {
		pids = append(pids, waiting.PID)
		changed = changed || !slices.Equal(w.lastBlockers[waiting.PID], waiting.Blockers)
	}
	if len(pids) > 0 {
		w.lastBlocked = now
	}
	if !changed && (len(pids) == 0 || now.Sub(w.pairsReadAt) < maxPairsAge) {
		w.tracker.stillWait(now)
		return nil
	}
	return w.readPairs(ctx, v, pids)
}

// unobservedUntil returns the end of a gap in polling, or the zero time if there was none.
// Blockers that are seen now may have come at any time within the gap.
func (w *watcher) unobservedUntil(now time.Time) time.Time {
	if w.polledBefore.IsZero() || w.polledAt.Sub(w.polledBefore) < 2*w.config.interval {
		return time.Time{}
	}
	return now.Add(-2 * w.config.interval)
}

// maxPairsAge is how old the pairs may get while a session is blocked.
const maxPairsAge = time.Second

// readPairs reads the blockers of pids in full.
func (w *watcher) readPairs(ctx context.Context, v pollResult, pids []int32) error {
	var pairs []inspect.Pair
	if len(pids) > 0 {
		var err error
		began := time.Now()
		if pairs, err = w.observer.pairs(ctx, pids, nil); err != nil {
			return err
		}
		w.pairsTime = time.Since(began)
	}
	now := time.Now()
	w.pairsReadAt = now
	clear(w.lastBlockers)
	for _, waiting := range v.Waiting {
		w.lastBlockers[waiting.PID] = waiting.Blockers
	}
	changed, over := w.tracker.update(now, w.unobservedUntil(now), pids, pairs)
	for _, pid := range pids {
		if _, known := w.tracker.waits[pid]; !known {
			delete(w.lastBlockers, pid) // it ended meanwhile, or is seen next time
		}
	}
	if len(pairs) > 0 {
		w.lastPairs = w.tracker.pairs()
	}
	for pid, waited := range over {
		w.config.emit(Event{Kind: Freed, PID: pid, Waited: waited})
	}
	for _, pid := range changed {
		wait := w.tracker.waits[pid]
		w.config.emit(Event{Kind: Blocked, PID: pid, Blocked: slices.Clone(wait.pairs), Waited: now.Sub(wait.began)})
	}
	return nil
}

// reportPresence reports which of the chosen sessions have come and gone.
func (w *watcher) reportPresence(v pollResult) {
	there := make(map[chosen]bool, len(v.Chosen))
	for _, c := range v.Chosen {
		there[c] = true
		if !w.present[c] {
			w.config.emit(Event{Kind: Watching, PID: c.PID, Application: c.Application, User: c.User})
		}
	}
	for c := range w.present {
		if !there[c] {
			w.config.emit(Event{Kind: Left, PID: c.PID, Application: c.Application, User: c.User})
		}
	}
	w.present = there
}

// unseenAfter is how long the watcher polls for the chosen sessions before it reports
// that there are none.
const unseenAfter = 3 * time.Second

// reportUnseen reports, once, that none of the chosen sessions exists, if the poll began late
// enough.
func (w *watcher) reportUnseen(polled time.Time) {
	if len(w.present) > 0 || !w.who.start.IsZero() { // Run knows that its session exists
		w.unseenReported = true
	}
	if !w.unseenReported && polled.Sub(w.began) >= unseenAfter {
		w.unseenReported = true
		w.config.emit(Event{Kind: Unseen, Waited: unseenAfter})
	}
}

// reopen opens sessions until it succeeds. It returns false if ctx has ended.
func (w *watcher) reopen(ctx context.Context) bool {
	for ctx.Err() == nil {
		// After a first loss, try at once.
		if w.failures > 1 && !sleep(ctx, backoff(w.failures-2, reopenFirst, reopenMost, rand.Float64())) {
			return false
		}
		err := w.connect(ctx)
		if err == nil {
			if w.lostReported {
				w.lostReported = false
				w.config.emit(Event{Kind: Watcher})
			}
			return true
		}
		if ctx.Err() == nil {
			w.reportLost(err)
		}
	}
	return false
}

// reportLost reports once that there is no session.
func (w *watcher) reportLost(err error) {
	w.failures++
	if !w.lostReported {
		w.lostReported = true
		w.config.emit(Event{Kind: Watcher, Err: err})
	}
}

const (
	reopenFirst = 20 * time.Millisecond
	reopenMost  = 2 * time.Second
)
