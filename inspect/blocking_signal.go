package inspect

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/internal/sqlstate"
)

//go:embed blocking_signal.sql
var blockingSignalSQL string

// A BlockingSignal is a signal for a session because, and only while, it keeps
// another one waiting. All that it depends on is asked in the very statement that
// signals: that both are the sessions that were meant and not others with the
// same number, that one still blocks the other, in the wait that was seen and by
// what it holds, and what kind of session it is. It is what package prioritize
// clears the way with; for a person who has looked, there are [Cancel] and
// [Terminate].
type BlockingSignal struct {
	Waiter       int32     // the process that waits
	WaiterStart  time.Time // when that session began; zero is not to compare it
	WaitStart    time.Time // when the wait began; zero is any wait. From Postgres 14 on
	Blocker      int32     // the process to signal
	BlockerStart time.Time // when that session began, zero when it was hidden

	// WaiterTransaction is the virtual number of the transaction that waits, as
	// pg_locks has it; "" is any.
	WaiterTransaction string

	// BlockerTransaction is that of the transaction that holds the lock. If
	// BlockerStart is zero it is what the blocker is known by, besides WaitStart; if
	// neither proves that it is still the same session, it is not signaled.
	BlockerTransaction string

	Action SignalAction
	Queue  bool // also a session that only stands ahead in the queue

	// What is never signalled unless it is named.
	Superusers bool // the sessions of superusers of other roles than the one that asks
	OtherRuns  bool // the sessions of other runs of package prioritize, and their watchers
	Autovacuum bool // the workers of autovacuum
	Background bool // all else that is no client's, such as a walsender
}

// SignalAction is what a signal is to do.
type SignalAction string

// The actions.
const (
	OnlyAsk         SignalAction = ""          // nothing: to know what would come of it
	CancelQuery     SignalAction = "cancel"    // pg_cancel_backend: end what the session runs
	TerminateClient SignalAction = "terminate" // pg_terminate_backend: end the session
)

// BlockingOutcome is what came of a [BlockingSignal].
type BlockingOutcome string

// The outcomes. Only after SignalSent was anything done.
const (
	SignalSent BlockingOutcome = "signalled" // the signal was sent

	WouldSignal   BlockingOutcome = "due"           // it would have been: the action was OnlyAsk
	BlockerGone   BlockingOutcome = "gone"          // the session has ended
	BlocksNoMore  BlockingOutcome = "unblocked"     // nobody waits for it any more, or not in this wait
	OnlyQueued    BlockingOutcome = "queued"        // it holds nothing that is in the way, it stands ahead in the queue
	IsIdle        BlockingOutcome = "idle"          // it runs nothing, so a cancel would free nothing
	IsSuperuser   BlockingOutcome = "superuser"     // its role is a superuser, and not ours
	IsAnotherRun  BlockingOutcome = "run"           // another run of package prioritize vouches for it, or it watches for one
	IsHidden      BlockingOutcome = "hidden"        // our role sees too little of it to know that it is the same session
	IsAutovacuum  BlockingOutcome = "autovacuum"    // it yields by itself, when the wait has lasted for deadlock_timeout
	IsWraparound  BlockingOutcome = "wraparound"    // it is autovacuum against wraparound, which does not yield, and would start again
	IsBackground  BlockingOutcome = "background"    // it is no client's
	IsOurs        BlockingOutcome = "own"           // it is the session that asks
	SignalDenied  BlockingOutcome = "not permitted" // our role may not signal it
	SignalUnknown BlockingOutcome = ""              // the statement failed
)

// RunClass and RunSessionClass are the first halves of the keys of the advisory locks
// that mark a run of package prioritize, and the sessions whose way it clears. The
// second halves are the number of the run and the PID of the session.
const (
	RunClass        = 1885826156
	RunSessionClass = 1885826163
)

// Send asks, and signals if all holds. q runs the statement, outside of any
// transaction; ctx covers it. That the role may not signal the session is an
// outcome and not an error, but has the server's error besides, for its text.
//
// Between the asking and the arrival of the signal lies what the server needs to
// send one, some microseconds. No guard can be nearer than that.
func (b BlockingSignal) Send(ctx context.Context, q interface {
	Ask(ctx context.Context, sql string, args ...string) (string, error)
},
) (BlockingOutcome, error) {
	allowed := []string{}
	for name, yes := range map[string]bool{
		"queue": b.Queue, "superuser": b.Superusers, "run": b.OtherRuns, "autovacuum": b.Autovacuum, "background": b.Background,
	} {
		if yes {
			allowed = append(allowed, name)
		}
	}
	slices.Sort(allowed)
	sql, values, err := bind(blockingSignalSQL, map[string]string{
		"waiter":              strconv.Itoa(int(b.Waiter)),
		"waiter_start":        timestamp(b.WaiterStart),
		"waiter_transaction":  b.WaiterTransaction,
		"wait_start":          timestamp(b.WaitStart),
		"blocker":             strconv.Itoa(int(b.Blocker)),
		"blocker_start":       timestamp(b.BlockerStart),
		"blocker_transaction": proof(b.BlockerTransaction),
		"action":              string(b.Action),
		"conflicts":           conflictTable(),
		"allowed":             "{" + strings.Join(allowed, ",") + "}",
		"run_class":           strconv.Itoa(RunClass),
		"session_class":       strconv.Itoa(RunSessionClass),
	})
	if err != nil {
		return SignalUnknown, err
	}
	args := make([]string, len(values))
	for i, value := range values {
		args[i], _ = value.(string)
	}
	answer, err := q.Ask(ctx, sql, args...)
	switch {
	case sqlstate.Of(err) == sqlstate.InsufficientPrivilege:
		return SignalDenied, fmt.Errorf("inspect: signalling process %d: %w", b.Blocker, err)
	case err != nil:
		return SignalUnknown, fmt.Errorf("inspect: signalling process %d: %w", b.Blocker, err)
	}
	return BlockingOutcome(answer), nil
}

// proof returns the virtual number of a transaction if it tells a session from others:
// not that of a session that holds its lock without one, such as 3/0.
func proof(transaction string) string {
	if strings.HasSuffix(transaction, "/0") {
		return ""
	}
	return transaction
}

// timestamp is a time as Postgres reads it, to the microsecond.
func timestamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02 15:04:05.000000+00")
}

// conflictTable is which mode conflicts with which, as pg_locks calls them.
func conflictTable() string {
	conflicts := map[string][]string{}
	for _, mode := range pglock.Modes() {
		for _, other := range pglock.Modes() {
			if mode.Conflicts(other) {
				conflicts[mode.PgLocks()] = append(conflicts[mode.PgLocks()], other.PgLocks())
			}
		}
	}
	text, _ := json.Marshal(conflicts) // text in maps always has a JSON form
	return string(text)
}
