package prioritize

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/internal/signal"
	"github.com/pglock-go/pglock/internal/sqlstate"
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

// A warmth is what the watcher's session has done of the statement that signals.
type warmth uint8

const (
	cold    warmth = iota
	planned        // planned it, which is all that it needs for a small lock table
	warm           // run every part of it
)

// warmUp runs the statement that signals without a victim, so that the first signal is as
// fast as later ones. After the first poll it only plans it. While a session is blocked it
// also reads the lock table, which takes about as long as reading the pairs, unless a
// blocker may be due before that ends.
func (w *watcher) warmUp(ctx context.Context) error {
	m, ok := w.observer.(warmer)
	if !ok || w.config.policy == policyWatch || w.passive || w.warmth == warm || ctx.Err() != nil {
		return nil
	}
	next := w.tracker.next()
	readLocks := !next.IsZero() && time.Until(next) > 3*w.pairsTime
	switch {
	case readLocks:
		w.warmth = warm
	case w.warmth == cold:
		w.warmth = planned
	default:
		return nil
	}
	queryCtx, cancel := queryContext(ctx)
	defer cancel()
	if err := m.warmUp(queryCtx, readLocks); sqlstate.Of(err) == "" {
		return err
	}
	return nil // the session is as before
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
		w.tracker.stillWait(now, pids)
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

// isOwn reports whether a session belongs to the run.
func (w *watcher) isOwn(s *inspect.Session) bool { return w.who.matches(s) }

// act acts on the blockers that are due. It reports whether any was signaled.
func (w *watcher) act(ctx context.Context) (acted bool, err error) {
	if w.config.policy == policyWatch || w.passive {
		return false, nil
	}
	due := w.tracker.due(time.Now())
	if len(due) == 0 {
		return false, nil
	}
	w.tracker.closeOnce()
	match, err := w.filter(ctx, due)
	if err != nil {
		return false, err
	}
	for _, e := range due {
		if ctx.Err() != nil {
			return acted, nil
		}
		why := w.tracker.spareReason(e, w.isOwn)
		if why.Reason == "" && !match(e) {
			why = signal.Result{Reason: inspect.Excluded}
		}
		if why.Reason != "" {
			w.spare(e, why, nil)
			continue
		}
		done, err := w.apply(ctx, e)
		acted = acted || done
		if err != nil {
			return acted, err
		}
	}
	return acted, nil
}

// filter returns a function that reports whether the user's filters match.
func (w *watcher) filter(ctx context.Context, due []*entry) (func(*entry) bool, error) {
	if len(w.config.filters) == 0 {
		return func(*entry) bool { return true }, nil
	}
	var pids []int32
	for _, e := range due {
		if !slices.Contains(pids, e.pair.PID) {
			pids = append(pids, e.pair.PID)
		}
	}
	queryCtx, cancel := queryContext(ctx)
	defer cancel()
	pairs, err := w.observer.pairs(queryCtx, pids, w.config.filters)
	if err != nil {
		return nil, err
	}
	return func(e *entry) bool {
		return slices.ContainsFunc(pairs, func(p inspect.Pair) bool {
			return p.PID == e.pair.PID && victimOf(&p) == e.victim
		})
	}, nil
}

// apply applies the policy to e. It is an error if the session is lost, but not if e
// must not or cannot be signaled.
func (w *watcher) apply(ctx context.Context, e *entry) (acted bool, err error) {
	action := w.tracker.action(time.Now(), e)
	r := signal.Request{
		Waiter:       e.pair.PID,
		WaiterStart:  e.pair.BackendStart,
		Blocker:      e.pid,
		BlockerStart: e.pair.Blocking.BackendStart,
		Action:       action,
		Queue:        w.config.queue,
		Allow:        w.config.allowed,

		WaiterTransaction: e.pair.Transaction,
	}
	if !e.pair.WaitApprox {
		r.WaitStart = e.pair.WaitStart
	}
	if e.pair.Held != nil && e.pair.Held.PID == e.pid { // not a parallel worker's
		r.BlockerTransaction = e.pair.Held.Transaction
	}
	queryCtx, cancel := queryContext(ctx)
	defer cancel()
	if e.sparedFor.Class == inspect.OtherRuns && time.Since(e.yieldedAt) >= cycleAfter {
		oldest, err := w.inCycle(queryCtx, e.pid)
		if err != nil {
			return false, err
		}
		if oldest {
			r.Allow = append(slices.Clone(r.Allow), inspect.OtherRuns)
		}
	}
	w.warmth = warm
	result, err := w.observer.signal(queryCtx, r)
	switch {
	case err != nil && result.Reason == inspect.NotPermitted:
		w.spare(e, result, err)
		return false, nil
	case err != nil:
		return false, err
	}
	switch result.Reason {
	case "":
		w.applied(ctx, e, action)
		return result.Signaled, nil
	case inspect.Gone, inspect.NotBlocking:
		w.spare(e, signal.Result{Reason: inspect.NotBlocking}, nil)
		delete(w.lastBlockers, e.pair.PID) // read its blockers again
	default:
		w.spare(e, result, nil)
	}
	return false, nil
}

func (w *watcher) event(kind EventKind, e *entry) Event {
	event := Event{Kind: kind, PID: e.pair.PID, Blocked: []inspect.Pair{e.pair}}
	if wait := w.tracker.waits[e.pair.PID]; wait != nil {
		event.Waited = time.Since(wait.began)
	}
	return event
}

func (w *watcher) spare(e *entry, why signal.Result, err error) {
	event := w.event(Spared, e)
	event.Time, event.Reason, event.Class, event.Err = time.Now(), why.Reason, why.Class, err
	w.forgetSpared(e)
	if why.Reason != inspect.NotBlocking {
		w.spared = append(w.spared, event)
	}
	if w.tracker.spare(event.Time, e, why) {
		w.config.emit(event)
	}
}

// forgetSpared removes e from the spared blockers that the error lists.
func (w *watcher) forgetSpared(e *entry) {
	w.spared = slices.DeleteFunc(w.spared, func(s Event) bool { return victimOf(&s.Blocked[0]) == e.victim })
}

// A failedCall is the error of Call's function for a blocker.
type failedCall struct {
	victim
	err error
}

// callErrors returns the last errors of Call's function, one for each blocker.
func (w *watcher) callErrors() (errs []error) {
	for _, c := range w.calls {
		errs = append(errs, fmt.Errorf("the call for pid %d failed: %w", c.pid, c.err))
	}
	return errs
}

// noteCall records the last error of Call's function for a blocker.
func (w *watcher) noteCall(e *entry, err error) {
	w.calls = slices.DeleteFunc(w.calls, func(c failedCall) bool { return c.victim == e.victim })
	if err != nil {
		w.calls = append(w.calls, failedCall{e.victim, err})
	}
}

func (w *watcher) applied(ctx context.Context, e *entry, action signal.Action) {
	w.tracker.acted(time.Now(), e, action)
	w.forgetSpared(e)
	switch {
	case action == signal.Cancel:
		w.config.emit(w.event(Canceled, e))
	case action == signal.Terminate:
		w.config.emit(w.event(Terminated, e))
	case w.config.policy == policyCall:
		event := w.event(Called, e)
		event.Err = w.config.call(ctx, e.pair)
		w.noteCall(e, event.Err)
		w.config.emit(event)
	default:
		w.config.emit(w.event(Overdue, e))
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

// A pace determines how soon the watcher polls again: after its interval, but sooner
// after it has acted, and less often if the server answers slowly.
//
// A single slow answer changes nothing: the faster of the last two counts. The pause
// never exceeds maxPause, so that a server that is always slow is polled in time as well.
// With a grace of 1 s, a blocker that comes while the watcher waits for an answer is
// signaled this long after its grace (TestReactionToSlowAnswers, in fake time; before
// Postgres 14, add the interval of 200 ms):
//
//	one answer of 50 ms or 500 ms    0
//	one answer of 3 s                2.2 s: when it comes the grace is over by 2 s
//	all answers take 50 ms           0.3 s
//	all answers take 500 ms          3.1 s
type pace struct {
	shortPause time.Duration // the pause if a change is expected soon, else 0
	lastPoll   time.Duration // how long the previous answer took
}

const (
	minPause    = 2 * time.Millisecond
	pauseFactor = 10 // the minimum pause, in multiples of the answer time
)

// next returns the pause after a poll that took the given time.
func (p *pace) next(interval, maxPause, took time.Duration, acted, blocked bool) time.Duration {
	typical := min(took, p.lastPoll)
	p.lastPoll = took
	switch {
	case acted:
		p.shortPause = minPause
	case !blocked || p.shortPause >= interval:
		p.shortPause = 0
	default:
		p.shortPause *= 2
	}
	if p.shortPause > 0 {
		return min(interval, max(p.shortPause, typical))
	}
	return max(interval, min(pauseFactor*typical, maxPause))
}

// sleep sleeps for d and reports false if ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
