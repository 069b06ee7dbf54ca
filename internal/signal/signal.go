// Package signal cancels or terminates a session only while it blocks another one. It
// is for automatic decisions; package inspect ends the sessions that a person has
// selected.
package signal

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/internal/sqlstate"
)

//go:embed signal.sql
var signalSQL string

// A Request signals a session only while it blocks another one. The statement that
// signals also checks all conditions: that both are the sessions that were meant and
// not others with the same PIDs, that one still blocks the other, in the wait that
// was seen and by a lock that it holds, and what kind of session it is.
type Request struct {
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

	Action Action
	Queue  bool            // also a session that is only ahead in the lock queue
	Allow  []inspect.Class // also sessions of these classes; those of Ourselves never
}

// An Action is what a signal does.
type Action string

// The actions.
const (
	Check     Action = ""          // nothing: only report what would happen
	Cancel    Action = "cancel"    // pg_cancel_backend: cancel the statement
	Terminate Action = "terminate" // pg_terminate_backend: end the session

	warmUp Action = "warm up" // nothing: see WarmUp
)

// A Result is what came of a [Request]. The zero Result of a request to Check means
// that the session would have been signaled.
type Result struct {
	Signaled bool // the signal was sent

	Reason inspect.Reason // why it was not sent
	Class  inspect.Class  // why it is Protected
}

// RunClass and SessionClass are the first halves of the keys of the advisory locks
// that mark a run of package prioritize, and the sessions whose way it clears. The
// second halves are the number of the run and the PID of the session.
const (
	RunClass     = 1885826156
	SessionClass = 1885826163
)

// Send checks the conditions and sends the signal if all hold. q runs the statement,
// outside of any transaction, and ctx covers it. An error is about the statement, and
// the Reason is then Failed, or NotPermitted if the role may not signal the session.
//
// Between the check and the arrival of the signal are the few microseconds that the
// server needs to send it. No check can be closer than that.
func (r Request) Send(ctx context.Context, q interface {
	QueryText(ctx context.Context, sql string, args ...string) (string, error)
},
) (Result, error) {
	reply, err := q.QueryText(ctx, signalSQL,
		strconv.Itoa(int(r.Waiter)), timestamp(r.WaiterStart), r.WaiterTransaction, timestamp(r.WaitStart),
		strconv.Itoa(int(r.Blocker)), timestamp(r.BlockerStart), proof(r.BlockerTransaction),
		string(r.Action), conflictTable(), r.allowed(), strconv.Itoa(RunClass), strconv.Itoa(SessionClass))
	var result Result
	if err == nil {
		result, err = parse(reply)
	}
	if err == nil {
		return result, nil
	}
	result = Result{Reason: inspect.Failed}
	if sqlstate.Of(err) == sqlstate.InsufficientPrivilege {
		result.Reason = inspect.NotPermitted
	}
	return result, fmt.Errorf("signaling process %d: %w", r.Blocker, err)
}

// WarmUp runs the statement of Send without a victim, so that the session has planned it
// when time matters. With readLocks, it also reads pg_locks once and calls each function for
// the first time.
func WarmUp(ctx context.Context, q interface {
	QueryText(ctx context.Context, sql string, args ...string) (string, error)
	PID() uint32
}, readLocks bool,
) error {
	var r Request
	if readLocks {
		pid := int32(q.PID())
		r = Request{Waiter: pid, Blocker: pid, Action: warmUp}
	}
	_, err := r.Send(ctx, q)
	return err
}

// allowed returns the classes as an array for signal.sql.
func (r Request) allowed() string {
	var allowed []string
	for _, class := range r.Allow {
		allowed = append(allowed, string(class))
	}
	if r.Queue {
		allowed = append(allowed, "queue")
	}
	return "{" + strings.Join(allowed, ",") + "}"
}

// parse reads the result of signal.sql.
func parse(reply string) (Result, error) {
	switch reply {
	case "signaled":
		return Result{Signaled: true}, nil
	case "due":
		return Result{}, nil
	}
	switch reason := inspect.Reason(reply); reason {
	case inspect.Gone, inspect.NotBlocking, inspect.Idle, inspect.Queued, inspect.Hidden:
		return Result{Reason: reason}, nil
	case inspect.Wraparound:
		return Result{Reason: reason, Class: inspect.Autovacuum}, nil
	}
	switch class := inspect.Class(reply); class {
	case inspect.Ourselves, inspect.Superusers, inspect.Autovacuum, inspect.Background, inspect.OtherRuns:
		return Result{Reason: inspect.Protected, Class: class}, nil
	}
	return Result{}, fmt.Errorf("unexpected answer to a signal: %q", reply)
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
