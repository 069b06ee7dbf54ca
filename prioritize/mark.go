package prioritize

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/internal/sqlstate"
)

// How runs know each other. Anybody may call a session what they like, so a name
// proves nothing. A run's watcher holds advisory locks, in shared mode, that
// everybody sees in pg_locks: one with the number of the run, which is when it began,
// and one with the PID of each session whose way it clears. They prove that a session
// of that role is there and vouches for the others; whose word counts, inspect's
// blocking_signal.sql says.
//
// A blocker that another run vouches for is spared: the session that it blocks waits
// until that run is done, or for as long as its lock_timeout says. Postgres ends a
// deadlock by itself. Runs that wait for each other in a way that Postgres cannot see,
// such as by two sessions each, would wait for ever: so the oldest run of such a ring
// does to its blocker what its policy says, and the younger ones spare theirs.

var (
	//go:embed mark.sql
	markSQL string

	//go:embed ring.sql
	ringSQL string
)

const (
	// runClass and sessionClass are the first halves of the keys of these locks; the
	// second is the number of the run, or the PID.
	runClass     = inspect.RunClass
	sessionClass = inspect.RunSessionClass

	// ringAfter is how long a blocker of another run is spared before the watcher
	// asks whether the two wait for each other. Postgres finds its own deadlocks
	// sooner (deadlock_timeout, 1 s by default).
	ringAfter = 5 * time.Second
)

// marker is an eye that runs can know each other by.
type marker interface {
	// mark registers the run, if its number is 0 with the present moment, and marks
	// sessions, or takes their marks away. It returns the number of the run.
	mark(ctx context.Context, run int64, add, remove []int32) (int64, error)

	// ring reports whether the blocker's run waits for this one, by whatever way, and
	// this one is the oldest on it.
	ring(ctx context.Context, run int64, blocker int32) (bool, error)
}

// register makes the run known from a new session of the watcher's.
func (w *watcher) register(ctx context.Context, e eye) error {
	m, ok := e.(marker)
	if !ok || w.config.policy == policyWatch {
		return nil
	}
	w.marked = map[int32]bool{}
	var add []int32
	if !w.who.start.IsZero() { // Run's session, which is there
		add = w.who.PIDs
	}
	for c := range w.seen {
		if !slices.Contains(add, c.PID) {
			add = append(add, c.PID)
		}
	}
	return w.remark(ctx, m, add, nil)
}

// mark marks the sessions that have come, and no longer those that have gone.
func (w *watcher) mark(ctx context.Context, v view) error {
	m, ok := w.eye.(marker)
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
	return w.remark(ctx, m, add, remove)
}

// remark asks for marks. That the server refuses one, because its lock table is full
// for instance, is no reason not to clear the way: then other runs do not spare this
// one's sessions.
func (w *watcher) remark(ctx context.Context, m marker, add, remove []int32) error {
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

// ring reports whether the run of blocker is to give way to this one.
func (w *watcher) ring(ctx context.Context, blocker int32) (bool, error) {
	m, ok := w.eye.(marker)
	if !ok || w.run == 0 {
		return false, nil
	}
	return m.ring(ctx, w.run, blocker)
}

func (e *sessionEye) mark(ctx context.Context, run int64, add, remove []int32) (int64, error) {
	lists, err := json.Marshal(map[string][]int32{"add": append([]int32{}, add...), "remove": append([]int32{}, remove...)})
	if err != nil {
		return 0, err
	}
	text, err := e.session.Ask(ctx, markSQL, strconv.FormatInt(run, 10), string(lists), strconv.Itoa(runClass), strconv.Itoa(sessionClass))
	if err != nil {
		return 0, err
	}
	number, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("the server's answer to a mark was %q", text)
	}
	return number, nil
}

func (e *sessionEye) ring(ctx context.Context, run int64, blocker int32) (bool, error) {
	text, err := e.session.Ask(ctx, ringSQL, strconv.FormatInt(run, 10), strconv.Itoa(int(blocker)), strconv.Itoa(runClass), strconv.Itoa(sessionClass))
	return text == "true", err
}
