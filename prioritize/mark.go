package prioritize

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/pglock-go/pglock/internal/signal"
	"github.com/pglock-go/pglock/internal/sqlstate"
)

// How runs recognize each other. Any session can choose any name, so a name proves
// nothing. Instead, a run's watcher holds advisory locks in shared mode, which every
// session sees in pg_locks: one whose key is the number of the run, which is its
// start time, and one whose key is the PID of each session whose way it clears. They
// prove that a session of that role exists and vouches for the others. signal.sql of package
// internal/signal decides which roles are trusted.
//
// A blocker that another run vouches for is spared: the session that it blocks waits
// until that run ends or its own lock_timeout expires. Postgres resolves deadlocks
// itself. Runs can also wait for each other in a cycle that Postgres cannot see, for
// example through two sessions each, and would wait forever. Therefore the oldest run
// in the cycle applies its policy to its blocker, and the younger ones spare theirs.

var (
	//go:embed mark.sql
	markSQL string

	//go:embed cycle.sql
	cycleSQL string
)

// cycleAfter is how long a blocker of another run is spared before the watcher
// checks whether the two wait for each other. Postgres resolves its own deadlocks
// sooner (deadlock_timeout, 1 s by default).
const cycleAfter = 5 * time.Second

// A marker is an observer through which runs can recognize each other.
type marker interface {
	// mark registers the run, with the present time as its number if run is 0, adds
	// and removes marks of sessions, and returns the number of the run.
	mark(ctx context.Context, run int64, add, remove []int32) (int64, error)

	// inCycle reports whether the blocker's run waits for this one, directly or through
	// others, and this one is the oldest of them.
	inCycle(ctx context.Context, run int64, blocker int32) (bool, error)
}

// register marks the run and its sessions from a new session of the watcher.
func (w *watcher) register(ctx context.Context, e observer) error {
	m, ok := e.(marker)
	if !ok || w.config.policy == policyWatch {
		return nil
	}
	w.marked = map[int32]bool{}
	var add []int32
	if !w.who.start.IsZero() { // Run's session, which exists
		add = w.who.PIDs
	}
	for c := range w.present {
		if !slices.Contains(add, c.PID) {
			add = append(add, c.PID)
		}
	}
	return w.updateMarks(ctx, m, add, nil)
}

// markSessions marks the sessions that have come and unmarks those that have gone.
func (w *watcher) markSessions(ctx context.Context, v pollResult) error {
	m, ok := w.observer.(marker)
	if !ok || w.config.policy == policyWatch {
		return nil
	}
	var add, remove []int32
	for _, c := range v.Chosen {
		if !w.marked[c.PID] {
			add = append(add, c.PID)
		}
	}
	for pid := range w.marked {
		if !slices.ContainsFunc(v.Chosen, func(c chosen) bool { return c.PID == pid }) {
			remove = append(remove, pid)
		}
	}
	if len(add)+len(remove) == 0 {
		return nil
	}
	return w.updateMarks(ctx, m, add, remove)
}

// updateMarks updates the marks. If the server refuses, for instance because its lock
// table is full, the watcher still clears the way; other runs then do not spare its
// sessions.
func (w *watcher) updateMarks(ctx context.Context, m marker, add, remove []int32) error {
	run, err := m.mark(ctx, w.run, add, remove)
	if err != nil && sqlstate.Of(err) == "" {
		return err
	}
	if err == nil {
		w.run = run
	}
	for _, pid := range add {
		w.marked[pid] = true
	}
	for _, pid := range remove {
		delete(w.marked, pid)
	}
	return nil
}

// inCycle reports whether this run takes precedence over the blocker's run.
func (w *watcher) inCycle(ctx context.Context, blocker int32) (bool, error) {
	m, ok := w.observer.(marker)
	if !ok || w.run == 0 {
		return false, nil
	}
	return m.inCycle(ctx, w.run, blocker)
}

func (e *sessionObserver) mark(ctx context.Context, run int64, add, remove []int32) (int64, error) {
	lists, err := json.Marshal(map[string][]int32{"add": append([]int32{}, add...), "remove": append([]int32{}, remove...)})
	if err != nil {
		return 0, err
	}
	text, err := e.session.QueryText(ctx, markSQL, strconv.FormatInt(run, 10), string(lists), strconv.Itoa(signal.RunClass), strconv.Itoa(signal.SessionClass))
	if err != nil {
		return 0, err
	}
	number, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("unexpected answer to a mark: %q", text)
	}
	return number, nil
}

func (e *sessionObserver) inCycle(ctx context.Context, run int64, blocker int32) (bool, error) {
	text, err := e.session.QueryText(ctx, cycleSQL, strconv.FormatInt(run, 10), strconv.Itoa(int(blocker)), strconv.Itoa(signal.RunClass), strconv.Itoa(signal.SessionClass))
	return text == "true", err
}
