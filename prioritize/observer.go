package prioritize

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/internal/handshake"
	"github.com/pglock-go/pglock/internal/signal"
)

//go:embed poll.sql
var pollSQL string

const (
	// watcherName is the application_name of watchers. It does not prove that a
	// session is a watcher; see mark.go.
	watcherName = "pglock prioritize"

	// queryTimeout limits each statement of the watcher, and openTimeout limits opening
	// its session.
	queryTimeout = 5 * time.Second
	openTimeout  = 10 * time.Second
)

// An observer reads the server's state and signals blockers. Tests use a fake.
type observer interface {
	// poll returns the chosen sessions and which of them are blocked.
	poll(ctx context.Context, who Who) (pollResult, error)

	// pairs returns the blockers of pids that match the filters.
	pairs(ctx context.Context, pids []int32, filters []inspect.Filter) ([]inspect.Pair, error)

	// signal signals a blocker if it still blocks.
	signal(ctx context.Context, r signal.Request) (signal.Result, error)

	// close may be called at any time, even while another method runs.
	close()
}

// A pollResult is the result of a poll.
type pollResult struct {
	Chosen  []chosen  `json:"chosen"`
	Waiting []waiting `json:"waiting"`
}

type chosen struct {
	PID         int32     `json:"pid"`
	Start       time.Time `json:"start"` // zero when hidden
	Application string    `json:"application"`
	User        string    `json:"user"`
}

type waiting struct {
	PID      int32   `json:"pid"`
	Blockers []int32 `json:"blockers"` // sorted, without duplicates; 0 is a prepared transaction
}

// parsePoll reads the result of poll.sql.
func parsePoll(text string, who Who) (pollResult, error) {
	var v pollResult
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		return pollResult{}, fmt.Errorf("reading the list of sessions: %w", err)
	}
	if !who.start.IsZero() {
		// A PID can be reused: a session that began at another time is another
		// session.
		v.Chosen = slices.DeleteFunc(v.Chosen, func(c chosen) bool {
			return !c.Start.IsZero() && !c.Start.Equal(who.start)
		})
	}
	v.Waiting = slices.DeleteFunc(v.Waiting, func(w waiting) bool {
		return !slices.ContainsFunc(v.Chosen, func(c chosen) bool { return c.PID == w.PID })
	})
	for i := range v.Waiting {
		w := &v.Waiting[i]
		slices.Sort(w.Blockers)
		w.Blockers = slices.Compact(w.Blockers)
	}
	return v, nil
}

// A sessionObserver is an observer that uses its own session.
type sessionObserver struct {
	session driver.Session
}

// openObserver opens a session and, if the session is not shared, sets it up.
func openObserver(ctx context.Context, source driver.Source) (observer, error) {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	session, err := source.Open(ctx)
	if err != nil {
		return nil, err
	}
	e := &sessionObserver{session}
	if err := e.setUp(ctx); err != nil {
		session.Close()
		return nil, err
	}
	return e, nil
}

// setUp checks which backend the session has, which changes nothing on it, and sets
// it up only if a pooler cannot lend it to others.
func (e *sessionObserver) setUp(ctx context.Context) error {
	hello, err := handshake.Meet(ctx, e.session, handshake.Settings{
		StatementTimeout: queryTimeout,
		LockTimeout:      queryTimeout,
		PlanCacheMode:    "force_generic_plan",
		ApplicationName:  watcherName,
		Rename:           true,
	})
	switch {
	case err != nil:
		return err
	case hello.Path == handshake.Pooled:
		return errPooledWatcher
	case hello.Path == handshake.Unknown:
		return fmt.Errorf("%w (the driver does not report the backend's PID, so a pooler cannot be ruled out)", errPooledWatcher)
	}
	return nil
}

// These errors are [pglock.ErrPooler] with advice that fits.
var (
	errPooledWatcher = pooler("the watcher is connected through a pooler, which would lend its session to others: " +
		"give it a source that connects to Postgres directly")
	errPooledConn = pooler("conn goes through a pooler, so each transaction may get another session: " +
		"use a transaction, or connect to Postgres directly")
)

type pooler string

func (p pooler) Error() string { return string(p) }

func (p pooler) Unwrap() error { return pglock.ErrPooler }

func (e *sessionObserver) close() { e.session.Close() }

func (e *sessionObserver) poll(ctx context.Context, who Who) (pollResult, error) {
	text, err := e.session.QueryText(ctx, pollSQL, who.json(), watcherName, strconv.Itoa(signal.RunClass))
	if err != nil {
		return pollResult{}, err
	}
	return parsePoll(text, who)
}

func (e *sessionObserver) pairs(ctx context.Context, pids []int32, filters []inspect.Filter) ([]inspect.Pair, error) {
	return inspect.Blocked(ctx, e.session, append([]inspect.Filter{inspect.PIDs(pids...)}, filters...)...)
}

func (e *sessionObserver) signal(ctx context.Context, r signal.Request) (signal.Result, error) {
	return r.Send(ctx, e.session)
}
