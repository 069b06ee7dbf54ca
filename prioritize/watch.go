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

// A watcher watches sessions and deals with who blocks them. What it knows
// belongs to its goroutine while that runs, and else to who starts it.
type watcher struct {
	config *config
	who    Who
	open   func(context.Context) (eye, error)

	ledger *ledger
	seen   map[chosen]bool   // who of the chosen is there
	last   map[int32][]int32 // who blocked whom at the last look
	took   time.Time         // when the last picture was taken

	looking time.Duration // how long the last look took
	looked  time.Time     // when that was
	before  time.Time     // when the one before that was
	lost    bool          // the session was lost, and that was told
	fails   int           // how often in a row

	picture []inspect.Pair // the last one that had somebody in it
	blocked time.Time      // when somebody was last seen blocked
	began   time.Time      // when the watching began
	unseen  bool           // that none of the chosen is there was reported
	spared  []Spare        // who was left alone, each once, with the last reason
	calls   []failedCall   // what Call's function returned last about whom

	run    int64          // the number of the run, once it is registered
	marked map[int32]bool // which sessions the watcher's session has marked

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

// stopGrace is how long a statement of the watcher's may go on after the function
// has returned, before the session is closed under it.
const stopGrace = 250 * time.Millisecond

// during watches while fn runs; late is to begin only after an interval. The
// watching has ended when it returns, whichever way fn ends.
func (w *watcher) during(ctx context.Context, late bool, fn func(context.Context) error) error {
	watching, stop := context.WithCancel(ctx)
	var panicked any
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() { panicked = recover() }() // of the user's function: it goes to who called us
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

// lookOnceMore looks at what is still blocked when the function has failed and the
// watcher has not seen why: a session of another program's may wait on, and a
// statement that was canceled may not have ended yet.
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

// once acts on who is due, looks, and acts again.
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

// asking bounds what is asked of the server. It does not end with ctx: a
// statement that is cut off costs the session, and may or may not have been run.
func asking(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), askTimeout)
}

// look sees who is there and who is blocked.
func (w *watcher) look(ctx context.Context) error {
	asked, cancel := asking(ctx)
	defer cancel()
	return w.see(asked)
}

// see is look, bounded by ctx.
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

	// Whoever the ledger has and the look has not is free again, or the other way.
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

// blind is until when nothing was seen, if the last look was so long ago that who
// is in the way now may have come at any time since; else zero.
func (w *watcher) blind(now time.Time) time.Time {
	if w.before.IsZero() || w.looked.Sub(w.before) < 2*w.config.interval {
		return time.Time{}
	}
	return now.Add(-2 * w.config.interval)
}

// refresh is how old a picture may get while somebody is blocked.
const refresh = time.Second

// takePicture sees who blocks these in full.
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
			delete(w.last, pid) // it ended in between, or is about to be seen
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

// meet tells who of the chosen has come and gone.
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

// unseenAfter is after which time without any of the chosen that is reported.
const unseenAfter = 3 * time.Second

// miss reports, once, that none of the chosen has been there, as a look that began
// late enough has found.
func (w *watcher) miss(looked time.Time) {
	if len(w.seen) > 0 || !w.who.start.IsZero() { // Run knows that its session is there
		w.unseen = true
	}
	if !w.unseen && looked.Sub(w.began) >= unseenAfter {
		w.unseen = true
		w.config.emit(Event{Kind: Unseen, Waited: unseenAfter})
	}
}

// own reports whether a session is one of the run.
func (w *watcher) own(s *inspect.Session) bool { return w.who.matches(s) }

// act deals with who is due. It reports whether anybody was signalled.
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

// filter finds whom the user's filters match.
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

// deal does to e what the policy says. The session being lost is an error; that
// e was not to be signalled, or could not, is none.
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
	if e.pair.Held != nil && e.pair.Held.PID == e.pid { // and not a worker's
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
		delete(w.last, e.pair.PID) // look again, in full
	default:
		return false, fmt.Errorf("the server's answer to a signal was %q", outcome)
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

// note keeps who was spared, for the error.
func (w *watcher) note(e *entry, why Reason, err error) {
	w.spared = slices.DeleteFunc(w.spared, func(s Spare) bool { return victimOf(&s.Pair) == e.victim })
	if why != SparedNotBlocking {
		w.spared = append(w.spared, Spare{Pair: e.pair, Reason: why, Err: err})
	}
}

// failedCall is what Call's function returned about a blocker.
type failedCall struct {
	victim
	err error
}

// called keeps what Call's function returned last about a blocker, for the error.
func (w *watcher) called(e *entry, err error) {
	w.calls = slices.DeleteFunc(w.calls, func(c failedCall) bool { return c.victim == e.victim })
	if err != nil {
		w.calls = append(w.calls, failedCall{e.victim, err})
	}
}

func (w *watcher) dealt(ctx context.Context, e *entry, action inspect.SignalAction) {
	w.ledger.dealt(time.Now(), e, action)
	w.note(e, SparedNotBlocking, nil) // it was spared before, and is not now
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

// reopen opens a session again, and again. It returns false when ctx has ended.
func (w *watcher) reopen(ctx context.Context) bool {
	for ctx.Err() == nil {
		// A first loss is made good at once.
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

// lose tells that there is no session, once.
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

// A pace says how soon the watcher looks again: after its interval, but soon after it
// has acted, and less often on a server that answers slowly.
//
// A single slow answer changes nothing: what counts is the quicker one of the last
// two. The pause never gets longer than most, so that a server that is always slow is
// looked at in time as well. With a grace of 1 s, a blocker that comes while the
// watcher waits for its answer is signaled so long after its grace
// (TestReactionToSlowAnswers, in fake time; before Postgres 14 the interval of 200 ms
// comes to it):
//
//	one answer of 50 ms or 500 ms    0
//	one answer of 3 s                2.2 s: when it comes the grace is over by 2 s
//	all answers take 50 ms           0.3 s
//	all answers take 500 ms          3.1 s
type pace struct {
	quick time.Duration // the pause, if a change is expected soon; else 0
	last  time.Duration // how long the answer before took
}

const (
	quickest = 2 * time.Millisecond
	share    = 10 // the least pause, in multiples of the time that an answer takes
)

// next returns the pause after a look that took so long.
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

// sleep sleeps, and reports whether it was not ctx that ended it.
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
