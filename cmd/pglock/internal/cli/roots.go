package cli

import (
	"context"
	"fmt"
	"slices"

	"github.com/pglock-go/pglock/cmd/pglock/internal/config"
	"github.com/pglock-go/pglock/cmd/pglock/internal/render"
	"github.com/pglock-go/pglock/inspect"
)

// findRoots returns the sessions for which the matching ones wait, directly or through
// others, and that wait for nobody. If there is none, as in a deadlock, it returns those
// that wait, which --roots spares. all are all pairs. Sessions are identified by their
// SessionName.
func (e *endRequest) findRoots(ctx context.Context, all []inspect.Pair) ([]inspect.Victim, error) {
	var ofWaiter, ofBlocker []inspect.Filter
	for _, f := range e.where {
		if config.OfPairs(f) {
			ofBlocker = append(ofBlocker, f)
		} else {
			ofWaiter = append(ofWaiter, f)
		}
	}
	waits, allowed := all, all
	var err error
	if len(ofWaiter) > 0 {
		if waits, err = inspect.Blocked(ctx, e.session.guarded, ofWaiter...); err != nil {
			return nil, err
		}
	}
	if len(ofBlocker) > 0 {
		if allowed, err = inspect.Blocked(ctx, e.session.guarded, ofBlocker...); err != nil {
			return nil, err
		}
	}
	blockers := blockersByWaiter(all)
	upstream := map[string]bool{} // the matching sessions, and those that they wait for
	var climb func(name string)
	climb = func(name string) {
		if !upstream[name] {
			upstream[name] = true
			for _, blocker := range blockers[name] {
				climb(blocker)
			}
		}
	}
	for _, p := range waits {
		climb(render.SessionName(p.Session))
	}
	victims := inspect.BlockersOf(slices.DeleteFunc(slices.Clone(allowed), func(p inspect.Pair) bool {
		return !upstream[render.SessionName(p.Session)]
	}))
	roots := slices.DeleteFunc(slices.Clone(victims), func(v inspect.Victim) bool {
		return blockers[render.SessionName(v.Session)] != nil
	})
	if len(roots) == 0 {
		return victims, nil
	}
	return roots, nil
}

// adviseRoots returns a line that suggests --roots, or "" if it would select the sessions
// that outcomes select. pairs are all that wait.
func (e *endRequest) adviseRoots(ctx context.Context, outcomes []inspect.Outcome, pairs []inspect.Pair) (string, error) {
	victims, err := e.findRoots(ctx, pairs)
	if err != nil {
		return "", err
	}
	others, err := e.signal(ctx, victims, inspect.OnlyRoots(), inspect.DryRun())
	if err != nil {
		return "", err
	}
	roots, selected := signaledNames(others), signaledNames(outcomes)
	free := freedBy(roots, blockersByWaiter(pairs))
	if len(selected) == 0 || free == 0 || slices.Equal(roots, selected) {
		return "", nil
	}
	only := roots[0] + ", which waits for nobody,"
	if len(roots) > 1 {
		only = fmt.Sprintf("the %d that wait for nobody", len(roots))
	}
	return fmt.Sprintf("ending only %s would free %s: use --roots", only, render.Plural(free, "session", "sessions")), nil
}

// signaledNames returns the sessions that were signaled or, in a dry run, would be, sorted.
func signaledNames(outcomes []inspect.Outcome) []string {
	var names []string
	for _, o := range outcomes {
		if wasSignaled(o) {
			names = append(names, render.SessionName(o.Victim.Session))
		}
	}
	slices.Sort(names)
	return names
}

// blockersByWaiter returns the blockers of each session that waits.
func blockersByWaiter(pairs []inspect.Pair) map[string][]string {
	blockers := map[string][]string{}
	for _, p := range pairs {
		waiter := render.SessionName(p.Session)
		blockers[waiter] = append(blockers[waiter], render.SessionName(p.Blocking))
	}
	return blockers
}

// freedBy returns how many sessions go on, one after the other, once some have ended: those
// all of whose blockers have ended or go on.
func freedBy(ended []string, blockers map[string][]string) int {
	gone := map[string]bool{}
	for _, name := range ended {
		gone[name] = true
	}
	for before := -1; before < len(gone); {
		before = len(gone)
		for waiter, blockers := range blockers {
			if !slices.ContainsFunc(blockers, func(name string) bool { return !gone[name] }) {
				gone[waiter] = true
			}
		}
	}
	return len(gone) - len(ended)
}
