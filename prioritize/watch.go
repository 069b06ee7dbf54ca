package prioritize

import (
	"context"
	"fmt"
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
	open   func(context.Context) (eye, error)

	ledger *ledger
	seen   map[chosen]bool   // the chosen sessions that exist
	last   map[int32][]int32 // the blockers of each session at the last look
	took   time.Time         // when the last picture was read

	looking time.Duration // how long the last look took
	looked  time.Time     // when the last look ended
	before  time.Time     // when the look before ended
	lost    bool          // the loss of the session was reported
	fails   int           // failures in a row

	picture []inspect.Pair // the last one that was not empty
	blocked time.Time      // when a session was last seen blocked
	began   time.Time      // when watching began
	unseen  bool           // it was reported that no chosen session exists
	spared  []Spare        // each spared blocker once, with the last reason
	calls   []failedCall   // the last error of Call's function for each blocker

	run    int64          // the number of the run, once it is registered
	marked map[int32]bool // the sessions that the watcher's session has marked

	mu  sync.Mutex // guards eye, which stop closes
	eye eye
}

func newWatcher(c *config, who Who, open func(context.Context) (eye, error)) *watcher {
	return &watcher{config: c, who: who, open: open, ledger: newLedger(c), seen: map[chosen]bool{}, last: map[int32][]int32{}}
}

// connect opens the watcher's session, if it has none.
func (w *watcher) connect(ctx context.Context) error {
	if w.eye != nil {
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
	return nil
}

func (w *watcher) set(e eye) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.eye = e
}

// close ends the watcher's session.
func (w *watcher) close() {
	w.mu.Lock()
	e := w.eye
	w.eye = nil
	w.mu.Unlock()
	if e != nil {
		e.close()
	}
}

// stopGrace is how long a statement of the watcher may go on after the function has
// returned, before its session is closed.
const stopGrace = 250 * time.Millisecond

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
		case <-time.After(stopGrace):
			w.mu.Lock()
			e := w.eye
			w.mu.Unlock()
			if e != nil {
				e.close()
			}
			<-done
			w.close()
		}
		if failed && len(w.picture) == 0 {
			w.lookOnceMore(ctx)
		}
		for pid, wait := range w.ledger.waits { // fn has ended, and with it the wait
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

// lookOnceMore looks for blockers if the function has failed and the watcher has not
// seen why: a session of another program may still be waiting, and a canceled
// statement may not have ended yet.
func (w *watcher) lookOnceMore(ctx context.Context) {
	if w.eye == nil {
		return
	}
	asked, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopGrace)
	defer cancel()
	if err := w.see(asked); err != nil {
		w.close()
	}
}

// watch watches until ctx ends.
func (w *watcher) watch(ctx context.Context, late bool) {
	w.ledger, w.picture, w.looked = newLedger(w.config), nil, time.Time{}
	w.began, w.spared, w.calls = time.Now(), nil, nil
	clear(w.last)
	if late && !sleep(ctx, w.config.interval) {
		return
	}
	var pace pace
	for ctx.Err() == nil {
		if w.eye == nil && !w.reopen(ctx) {
			return
		}
		acted, err := w.once(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			w.close()
			w.lose(err)
			continue
		}
		w.fails = 0
		pause := pace.next(w.config.interval, w.config.most(), w.looking, acted, len(w.ledger.waits) > 0)
		if next := w.ledger.next(); !next.IsZero() {
			pause = min(pause, time.Until(next))
		}
		if !sleep(ctx, pause) {
			return
		}
	}
}

// once acts on the blockers that are due, looks, and acts again.
func (w *watcher) once(ctx context.Context) (acted bool, err error) {
	acted, err = w.act(ctx)
	if err != nil || ctx.Err() != nil {
		return acted, err
	}
	if err := w.look(ctx); err != nil || ctx.Err() != nil {
		return acted, err
	}
	again, err := w.act(ctx)
	return acted || again, err
}

// asking limits one query. It does not end with ctx: an interrupted statement costs
// the session, and may or may not have run.
func asking(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), askTimeout)
}

// look reads which sessions exist and which are blocked.
func (w *watcher) look(ctx context.Context) error {
	asked, cancel := asking(ctx)
	defer cancel()
	return w.see(asked)
}

// see is look, limited by ctx.
func (w *watcher) see(ctx context.Context) error {
	began := time.Now()
	v, err := w.eye.look(ctx, w.who)
	if err != nil {
		return err
	}
	if err := w.mark(ctx, v); err != nil {
		return err
	}
	now := time.Now()
	w.before, w.looked, w.looking = w.looked, now, now.Sub(began)
	w.meet(v)
	w.miss(began)

	// A session that is blocked in only one of ledger and look has changed.
	changed := len(v.Waiting) != len(w.last) || len(v.Waiting) != len(w.ledger.waits)
	var pids []int32
	for _, waiting := range v.Waiting {
		pids = append(pids, waiting.PID)
		changed = changed || !slices.Equal(w.last[waiting.PID], waiting.Blockers)
	}
	if len(pids) > 0 {
		w.blocked = now
	}
	if !changed && (len(pids) == 0 || now.Sub(w.took) < refresh) {
		return nil
	}
	return w.takePicture(ctx, v, pids)
}

// blind returns the end of a gap in polling, or the zero time if there was none.
// Blockers that are seen now may have come at any time within the gap.
func (w *watcher) blind(now time.Time) time.Time {
	if w.before.IsZero() || w.looked.Sub(w.before) < 2*w.config.interval {
		return time.Time{}
	}
	return now.Add(-2 * w.config.interval)
}

// refresh is how old the picture may get while a session is blocked.
const refresh = time.Second

// takePicture reads the blockers of pids in full.
func (w *watcher) takePicture(ctx context.Context, v view, pids []int32) error {
	var pairs []inspect.Pair
	if len(pids) > 0 {
		var err error
		if pairs, err = w.eye.picture(ctx, pids, nil); err != nil {
			return err
		}
	}
	now := time.Now()
	w.took = now
	clear(w.last)
	for _, waiting := range v.Waiting {
		w.last[waiting.PID] = waiting.Blockers
	}
	changed, over := w.ledger.see(now, w.blind(now), pids, pairs)
	for _, pid := range pids {
		if _, known := w.ledger.waits[pid]; !known {
			delete(w.last, pid) // it ended meanwhile, or is seen next time
		}
	}
	if len(pairs) > 0 {
		w.picture = w.ledger.pairs()
	}
	for pid, waited := range over {
		w.config.emit(Event{Kind: Freed, PID: pid, Waited: waited})
	}
	for _, pid := range changed {
		wait := w.ledger.waits[pid]
		w.config.emit(Event{Kind: Blocked, PID: pid, Blocked: slices.Clone(wait.pairs), Waited: now.Sub(wait.began)})
	}
	return nil
}

// meet reports which of the chosen sessions have come and gone.
func (w *watcher) meet(v view) {
	there := make(map[chosen]bool, len(v.Chosen))
	for _, c := range v.Chosen {
		there[c] = true
		if !w.seen[c] {
			w.config.emit(Event{Kind: Watching, PID: c.PID, Application: c.Application, User: c.User})
		}
	}
	for c := range w.seen {
		if !there[c] {
			w.config.emit(Event{Kind: Left, PID: c.PID, Application: c.Application, User: c.User})
		}
	}
	w.seen = there
}

// unseenAfter is how long none of the chosen sessions must exist before that is
// reported.
const unseenAfter = 3 * time.Second

// miss reports, once, that none of the chosen sessions exists, if the look began late
// enough.
func (w *watcher) miss(looked time.Time) {
	if len(w.seen) > 0 || !w.who.start.IsZero() { // Run knows that its session exists
		w.unseen = true
	}
	if !w.unseen && looked.Sub(w.began) >= unseenAfter {
		w.unseen = true
		w.config.emit(Event{Kind: Unseen, Waited: unseenAfter})
	}
}

// own reports whether a session belongs to the run.
func (w *watcher) own(s *inspect.Session) bool { return w.who.matches(s) }

// act acts on the blockers that are due. It reports whether any was signaled.
func (w *watcher) act(ctx context.Context) (acted bool, err error) {
	if w.config.policy == policyWatch {
		return false, nil
	}
	due := w.ledger.due(time.Now())
	if len(due) == 0 {
		return false, nil
	}
	w.ledger.close()
	match, err := w.filter(ctx, due)
	if err != nil {
		return false, err
	}
	for _, e := range due {
		if ctx.Err() != nil {
			return acted, nil
		}
		why := w.ledger.refuse(e, w.own)
		if why == "" && !match(e) {
			why = SparedFiltered
		}
		if why != "" {
			w.spare(e, why, nil)
			continue
		}
		done, err := w.deal(ctx, e)
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
	asked, cancel := asking(ctx)
	defer cancel()
	pairs, err := w.eye.picture(asked, pids, w.config.filters)
	if err != nil {
		return nil, err
	}
	return func(e *entry) bool {
		return slices.ContainsFunc(pairs, func(p inspect.Pair) bool {
			return p.PID == e.pair.PID && victimOf(&p) == e.victim
		})
	}, nil
}

// deal applies the policy to e. It is an error if the session is lost, but not if e
// must not or cannot be signaled.
func (w *watcher) deal(ctx context.Context, e *entry) (acted bool, err error) {
	action := w.ledger.action(time.Now(), e)
	s := inspect.BlockingSignal{
		Waiter:       e.pair.PID,
		WaiterStart:  e.pair.BackendStart,
		Blocker:      e.pid,
		BlockerStart: e.pair.Blocking.BackendStart,
		Action:       action,
		Queue:        w.config.queue,
		Superusers:   w.config.allows(Superusers),
		Autovacuum:   w.config.allows(Autovacuum),
		Background:   w.config.allows(Background),

		WaiterTransaction: e.pair.Transaction,
	}
	if !e.pair.WaitApprox {
		s.WaitStart = e.pair.WaitStart
	}
	if e.pair.Held != nil && e.pair.Held.PID == e.pid { // not a parallel worker's
		s.BlockerTransaction = e.pair.Held.Transaction
	}
	asked, cancel := asking(ctx)
	defer cancel()
	if e.said == SparedRun && time.Since(e.yielded) >= ringAfter {
		if s.OtherRuns, err = w.ring(asked, e.pid); err != nil {
			return false, err
		}
	}
	outcome, err := w.eye.signal(asked, s)
	if err != nil && outcome != inspect.SignalDenied {
		return false, err
	}
	switch outcome {
	case inspect.SignalSent, inspect.WouldSignal:
		w.dealt(ctx, e, action)
		return outcome == inspect.SignalSent, nil
	case inspect.OnlyQueued:
		w.spare(e, SparedQueued, nil)
	case inspect.IsIdle:
		w.spare(e, SparedIdle, nil)
	case inspect.IsSuperuser:
		w.spare(e, SparedSuperuser, nil)
	case inspect.IsAutovacuum:
		w.spare(e, SparedAutovacuum, nil)
	case inspect.IsWraparound:
		w.spare(e, SparedWraparound, nil)
	case inspect.IsBackground:
		w.spare(e, SparedBackground, nil)
	case inspect.IsOurs:
		w.spare(e, SparedOwn, nil)
	case inspect.IsAnotherRun:
		w.spare(e, SparedRun, nil)
	case inspect.IsHidden:
		w.spare(e, SparedHidden, nil)
	case inspect.SignalDenied:
		w.spare(e, SparedNotAllowed, err)
	case inspect.BlockerGone, inspect.BlocksNoMore:
		w.spare(e, SparedNotBlocking, nil)
		delete(w.last, e.pair.PID) // read its blockers again
	default:
		return false, fmt.Errorf("unexpected answer to a signal: %q", outcome)
	}
	return false, nil
}

func (w *watcher) event(kind EventKind, e *entry) Event {
	event := Event{Kind: kind, PID: e.pair.PID, Blocked: []inspect.Pair{e.pair}}
	if wait := w.ledger.waits[e.pair.PID]; wait != nil {
		event.Waited = time.Since(wait.began)
	}
	return event
}

func (w *watcher) spare(e *entry, why Reason, err error) {
	w.note(e, why, err)
	if w.ledger.spare(time.Now(), e, why) {
		event := w.event(Spared, e)
		event.Reason, event.Err = why, err
		w.config.emit(event)
	}
}

// note records that e was spared, for the error.
func (w *watcher) note(e *entry, why Reason, err error) {
	w.spared = slices.DeleteFunc(w.spared, func(s Spare) bool { return victimOf(&s.Pair) == e.victim })
	if why != SparedNotBlocking {
		w.spared = append(w.spared, Spare{Pair: e.pair, Reason: why, Err: err})
	}
}

// A failedCall is the error of Call's function for a blocker.
type failedCall struct {
	victim
	err error
}

// called records the last error of Call's function for a blocker.
func (w *watcher) called(e *entry, err error) {
	w.calls = slices.DeleteFunc(w.calls, func(c failedCall) bool { return c.victim == e.victim })
	if err != nil {
		w.calls = append(w.calls, failedCall{e.victim, err})
	}
}

func (w *watcher) dealt(ctx context.Context, e *entry, action inspect.SignalAction) {
	w.ledger.dealt(time.Now(), e, action)
	w.note(e, SparedNotBlocking, nil) // it is no longer spared
	switch {
	case action == inspect.CancelQuery:
		w.config.emit(w.event(Cancelled, e))
	case action == inspect.TerminateClient:
		w.config.emit(w.event(Terminated, e))
	case w.config.policy == policyCall:
		event := w.event(Called, e)
		event.Err = w.config.call(ctx, e.pair)
		w.called(e, event.Err)
		w.config.emit(event)
	default:
		w.config.emit(w.event(Overdue, e))
	}
}

// reopen opens sessions until it succeeds. It returns false if ctx has ended.
func (w *watcher) reopen(ctx context.Context) bool {
	for ctx.Err() == nil {
		// After a first loss, try at once.
		if w.fails > 1 && !sleep(ctx, backoff(w.fails-2, reopenFirst, reopenMost, rand.Float64())) {
			return false
		}
		err := w.connect(ctx)
		if err == nil {
			if w.lost {
				w.lost = false
				w.config.emit(Event{Kind: WatchBack})
			}
			return true
		}
		if ctx.Err() == nil {
			w.lose(err)
		}
	}
	return false
}

// lose reports once that there is no session.
func (w *watcher) lose(err error) {
	w.fails++
	if !w.lost {
		w.lost = true
		w.config.emit(Event{Kind: WatchLost, Err: err})
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
// never exceeds most, so that a server that is always slow is polled in time as well.
// With a grace of 1 s, a blocker that comes while the watcher waits for an answer is
// signaled this long after its grace (TestReactionToSlowAnswers, in fake time; before
// Postgres 14, add the interval of 200 ms):
//
//	one answer of 50 ms or 500 ms    0
//	one answer of 3 s                2.2 s: when it comes the grace is over by 2 s
//	all answers take 50 ms           0.3 s
//	all answers take 500 ms          3.1 s
type pace struct {
	quick time.Duration // the pause if a change is expected soon, else 0
	last  time.Duration // how long the previous answer took
}

const (
	quickest = 2 * time.Millisecond
	share    = 10 // the minimum pause, in multiples of the answer time
)

// next returns the pause after a poll that took look.
func (p *pace) next(interval, most, look time.Duration, acted, blocked bool) time.Duration {
	typical := min(look, p.last)
	p.last = look
	switch {
	case acted:
		p.quick = quickest
	case !blocked || p.quick >= interval:
		p.quick = 0
	default:
		p.quick *= 2
	}
	if p.quick > 0 {
		return min(interval, max(p.quick, typical))
	}
	return max(interval, min(share*typical, most))
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
