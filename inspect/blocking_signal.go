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

// A BlockingSignal signals a session only while it blocks another one. The statement
// that signals also checks all conditions: that both are the sessions that were meant
// and not others with the same PIDs, that one still blocks the other, in the wait
// that was seen and by a lock that it holds, and what kind of session it is. Package
// prioritize uses it. For decisions that a person has made, use [Cancel] and
// [Terminate].
type BlockingSignal struct {
	Waiter       int32     // PID of the waiter
	WaiterStart  time.Time // its backend_start; zero is not compared
	WaitStart    time.Time // when the wait began, from Postgres 14 on; zero is any wait
	Blocker      int32     // PID of the session to signal
	BlockerStart time.Time // its backend_start, zero if hidden

	// WaiterTransaction is the waiter's virtual transaction ID, as in pg_locks; "" is
	// any.
	WaiterTransaction string

	// BlockerTransaction is the virtual transaction ID that holds the lock. If
	// BlockerStart is zero, the blocker is identified by it or by WaitStart. If
	// neither proves that it is still the same session, it is not signaled.
	BlockerTransaction string

	Action SignalAction
	Queue  bool // also a session that is only ahead in the lock queue

	// Kinds of sessions that are signaled only if allowed.
	Superusers bool // sessions of other superuser roles
	OtherRuns  bool // sessions of other runs of package prioritize, and their watchers
	Autovacuum bool // autovacuum workers
	Background bool // all other processes that are not client backends, such as walsenders
}

// A SignalAction is what a signal does.
type SignalAction string

// The actions.
const (
	OnlyAsk         SignalAction = ""          // nothing: only report what would happen
	CancelQuery     SignalAction = "cancel"    // pg_cancel_backend: cancel the statement
	TerminateClient SignalAction = "terminate" // pg_terminate_backend: end the session
)

// A BlockingOutcome is the result of a [BlockingSignal].
type BlockingOutcome string

// The outcomes. Only with SignalSent was anything done.
const (
	SignalSent BlockingOutcome = "signalled" // the signal was sent

	WouldSignal   BlockingOutcome = "due"           // it would have been sent: the action was OnlyAsk
	BlockerGone   BlockingOutcome = "gone"          // the session has ended
	BlocksNoMore  BlockingOutcome = "unblocked"     // it no longer blocks the waiter, or not in this wait
	OnlyQueued    BlockingOutcome = "queued"        // it holds no conflicting lock and is only ahead in the lock queue
	IsIdle        BlockingOutcome = "idle"          // it runs no statement, so a cancel would release nothing
	IsSuperuser   BlockingOutcome = "superuser"     // its role is a superuser and not ours
	IsAnotherRun  BlockingOutcome = "run"           // it belongs to another run of package prioritize, or is its watcher
	IsHidden      BlockingOutcome = "hidden"        // our role cannot verify that it is the same session
	IsAutovacuum  BlockingOutcome = "autovacuum"    // it is autovacuum, which yields by itself after deadlock_timeout
	IsWraparound  BlockingOutcome = "wraparound"    // it is autovacuum to prevent wraparound, which does not yield and would start again
	IsBackground  BlockingOutcome = "background"    // it is not a client backend
	IsOurs        BlockingOutcome = "own"           // it is our own session
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

// Send checks the conditions and sends the signal if all hold. q runs the statement,
// outside of any transaction, and ctx covers it. If the role may not signal the
// session, the outcome is SignalDenied, and the server's error is returned with it.
//
// Between the check and the arrival of the signal are the few microseconds that the
// server needs to send it. No check can be closer than that.
func (b BlockingSignal) Send(ctx context.Context, q interface {
	QueryText(ctx context.Context, sql string, args ...string) (string, error)
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
	reply, err := q.QueryText(ctx, sql, args...)
	switch {
	case sqlstate.Of(err) == sqlstate.InsufficientPrivilege:
		return SignalDenied, fmt.Errorf("inspect: signaling process %d: %w", b.Blocker, err)
	case err != nil:
		return SignalUnknown, fmt.Errorf("inspect: signaling process %d: %w", b.Blocker, err)
	}
	return BlockingOutcome(reply), nil
}

// proof returns a virtual transaction ID if it identifies a session, or "" for one
// such as 3/0, of a session that holds its lock without a transaction.
func proof(transaction string) string {
	if strings.HasSuffix(transaction, "/0") {
		return ""
	}
	return transaction
}

// timestamp returns a time as Postgres reads it, to the microsecond.
func timestamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02 15:04:05.000000+00")
}

// conflictTable returns the conflicting modes of each mode as JSON, with the names of
// pg_locks.
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
