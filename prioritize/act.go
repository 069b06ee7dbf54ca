package prioritize

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/internal/signal"
)

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
