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
	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/internal/handshake"
)

//go:embed look.sql
var lookSQL string

const (
	// watcherName is the application_name of watchers. That one is a watcher is
	// proved by more than that: see mark.go.
	watcherName = "pglock prioritize"

	// askTimeout bounds whatever the watcher asks of the server, and openTimeout
	// its connecting.
	askTimeout  = 5 * time.Second
	openTimeout = 10 * time.Second
)

// An eye is what sees the server, and acts on it: a session, or a test's.
type eye interface {
	// look tells which of the sessions there are and which of them are blocked.
	look(ctx context.Context, who Who) (view, error)

	// picture is who blocks these, as far as the filters match.
	picture(ctx context.Context, pids []int32, filters []inspect.Filter) ([]inspect.Pair, error)

	// signal acts on a blocker, if it is one.
	signal(ctx context.Context, s inspect.BlockingSignal) (inspect.BlockingOutcome, error)

	// close may be called at any time, also while another method runs.
	close()
}

// view is what a look sees.
type view struct {
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
	Blockers []int32 `json:"blockers"` // each once, ascending; 0 is a prepared transaction
}

// parseView reads the answer of look.sql.
func parseView(text string, who Who) (view, error) {
	var v view
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		return view{}, fmt.Errorf("the server's answer about the sessions: %w", err)
	}
	if !who.start.IsZero() {
		// A process number can be used again: what began at another time is
		// another session.
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

// sessionEye is an eye with a session of its own.
type sessionEye struct {
	session pglock.Session
}

// openEye opens a session and sets it up, if it is the watcher's own.
func openEye(ctx context.Context, source pglock.Source) (eye, error) {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	session, err := source.Open(ctx)
	if err != nil {
		return nil, err
	}
	e := &sessionEye{session}
	if err := e.begin(ctx); err != nil {
		session.Close()
		return nil, err
	}
	return e, nil
}

// begin asks the session who it is, which changes nothing on it, and sets it up only if
// nobody else may get it.
func (e *sessionEye) begin(ctx context.Context) error {
	hello, err := handshake.Meet(ctx, e.session, handshake.Settings{
		StatementTimeout: askTimeout,
		LockTimeout:      askTimeout,
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
		return fmt.Errorf("%w (the driver does not report the PID that the server gave it, so that a pooler cannot be ruled out)", errPooledWatcher)
	}
	// What is asked when there is no time to lose is prepared now.
	_, err = e.signal(ctx, inspect.BlockingSignal{})
	return err
}

// Errors that are [pglock.ErrPooler], with the advice that fits.
var (
	errPooledWatcher = pooler("a connection pooler stands between the watcher and Postgres, and would lend its session to others: " +
		"give it a source that connects to Postgres directly")
	errPooledConn = pooler("a connection pooler stands between the connection and Postgres, and each transaction may get another session, " +
		"so that it is not known whose way is to be cleared: use a transaction, or connect to Postgres directly")
)

type pooler string

func (p pooler) Error() string { return string(p) }

func (p pooler) Unwrap() error { return pglock.ErrPooler }

func (e *sessionEye) close() { e.session.Close() }

func (e *sessionEye) look(ctx context.Context, who Who) (view, error) {
	text, err := e.session.Ask(ctx, lookSQL, who.json(), watcherName, strconv.Itoa(runClass))
	if err != nil {
		return view{}, err
	}
	return parseView(text, who)
}

func (e *sessionEye) picture(ctx context.Context, pids []int32, filters []inspect.Filter) ([]inspect.Pair, error) {
	return inspect.Blocked(ctx, e.session, append([]inspect.Filter{inspect.PIDs(pids...)}, filters...)...)
}

func (e *sessionEye) signal(ctx context.Context, s inspect.BlockingSignal) (inspect.BlockingOutcome, error) {
	return s.Send(ctx, e.session)
}
