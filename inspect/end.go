package inspect

import (
	"cmp"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/internal/sqlstate"
	"github.com/pglock-go/pglock/internal/sqltext"
	"github.com/pglock-go/pglock/internal/termtext"
)

var (
	//go:embed signal.sql
	signalSQL string

	//go:embed alive.sql
	aliveSQL string

	//go:embed waiting.sql
	waitingSQL string
)

// Cancel cancels the statements of the victims, as Ctrl-C in psql does. Their
// sessions go on, and keep the locks that they acquired for the session or earlier in
// a transaction that goes on. A session that runs no statement is not signaled,
// because that would release nothing, and its Outcome reports so.
//
// Each victim is signaled by its own statement, which first checks that it is still
// the session that was meant (see [Victim]), that it may be signaled, and that our
// own rules allow it (see [Allow]). The outcomes are in the order of victims. A
// victim that cannot be signaled does not affect the others.
//
// A person has selected the victims, so the rules are less strict than those of
// package prioritize, which decides automatically: a superuser may also end other
// superusers' sessions, and a blocker is signaled even if its waiter has begun
// another wait for it.
//
// ctx covers all of it. An error is about the connection or ctx. The outcomes then
// cover the victims before the one that failed, which may have been signaled or not.
//
// If our role may not see when a session began, the session is signaled only if
// something else proves that it is the one that was meant. Otherwise its Reason is
// Hidden, and its Grant is for pg_read_all_stats.
func Cancel(ctx context.Context, q driver.Querier, victims []Victim, opts ...EndOption) ([]Outcome, error) {
	return end(ctx, q, actionCancel, victims, opts)
}

// Terminate ends the sessions of the victims. That rolls back their transactions and
// then releases all their locks; [WaitGone] waits for it. Otherwise it is like
// [Cancel].
func Terminate(ctx context.Context, q driver.Querier, victims []Victim, opts ...EndOption) ([]Outcome, error) {
	return end(ctx, q, actionTerminate, victims, opts)
}

const (
	actionCancel    = "cancel"
	actionTerminate = "terminate"
	actionCheck     = "check"
)

// An EndOption changes how [Cancel] and [Terminate] end sessions.
type EndOption func(*endOptions)

// An endOptions is the sum of the options of one call.
type endOptions struct {
	allow  []string
	wait   time.Duration
	dryRun bool
	roots  bool
}

// Allow also signals sessions of the given classes. It does not change Postgres' own
// permissions.
func Allow(classes ...Class) EndOption {
	return func(e *endOptions) {
		for _, class := range classes {
			e.allow = append(e.allow, string(class))
		}
	}
}

// WaitGone makes [Terminate] wait until the sessions have ended and released their
// locks, for at most d. Each Outcome reports whether its session has ended. WaitGone
// has no effect on [Cancel].
func WaitGone(d time.Duration) EndOption { return func(e *endOptions) { e.wait = d } }

// OnlyRoots leaves victims alone that wait for another session when [Cancel] or
// [Terminate] begins. If the session they wait for ends, they go on, so it is enough
// to end that one. In a deadlock no victim is a root.
func OnlyRoots() EndOption { return func(e *endOptions) { e.roots = true } }

// DryRun sends no signal. The outcomes report what would be done.
func DryRun() EndOption { return func(e *endOptions) { e.dryRun = true } }

// An Outcome is what happened to a victim.
type Outcome struct {
	Victim Victim

	// Signaled is true if the signal was sent, or would have been without [DryRun].
	Signaled bool

	// Ended is true if the session has ended, with [WaitGone].
	Ended bool

	// Reason is why the session was not signaled, or "" if it was. Class is the class
	// that [Allow] would have to name, or "" if that would not help.
	Reason Reason
	Class  Class

	// Detail explains the outcome to a person, on a line that is safe to show on a
	// terminal; "" if the session was signaled and there is nothing to add.
	Detail string

	// Grant is the statement that would permit the signal, or "" if there is none.
	Grant string

	// Err is the error of the server if Reason is Failed or NotPermitted, or nil.
	Err error
}

func end(ctx context.Context, q driver.Querier, action string, victims []Victim, opts []EndOption) ([]Outcome, error) {
	var e endOptions
	for _, opt := range opts {
		if opt != nil {
			opt(&e)
		}
	}
	if e.wait < 0 {
		return nil, fmt.Errorf("inspect: WaitGone(%v): must not be negative", e.wait)
	}
	if slices.ContainsFunc(victims, func(v Victim) bool { return v.Session == nil }) {
		return nil, errors.New("inspect: empty Victim: use SessionsOf, BlockersOf or VictimsOf")
	}
	waiting := map[int32][]int32{}
	if e.roots {
		// Before the first signal, which may end the wait of the next victim.
		var err error
		if waiting, err = readWaiting(ctx, q, victims); err != nil {
			return nil, fmt.Errorf("inspect: reading which victims wait: %w", err)
		}
	}
	var outcomes []Outcome
	for _, v := range victims {
		if blockers := waiting[v.PID]; len(blockers) > 0 {
			outcomes = append(outcomes, Outcome{Victim: v, Reason: Waiting, Detail: waitingReason(blockers)})
			continue
		}
		o, err := e.endOne(ctx, q, action, v)
		if err != nil {
			return outcomes, fmt.Errorf("inspect: %s session %d: %w", action, v.PID, err)
		}
		outcomes = append(outcomes, o)
	}
	if e.wait > 0 && action == actionTerminate && !e.dryRun {
		if err := awaitGone(ctx, q, outcomes, e.wait); err != nil {
			return outcomes, fmt.Errorf("inspect: waiting for sessions to end: %w", err)
		}
	}
	return outcomes, nil
}

// checkResult is the result of signal.sql.
type checkResult struct {
	Same        bool   `json:"same"`
	Blocks      bool   `json:"blocks"`
	Self        string `json:"self"`
	Kind        string `json:"kind"`
	BackendType string `json:"backend_type"`
	State       string `json:"state"`
	Idle        bool   `json:"idle"`
	Wraparound  bool   `json:"wraparound"`
	Super       bool   `json:"super"`
	Permitted   bool   `json:"permitted"`
	Proved      bool   `json:"proved"`
	Signaled    *bool  `json:"signaled"`
	Me          string `json:"me"`
}

// endOne signals one victim.
func (e *endOptions) endOne(ctx context.Context, q driver.Querier, action string, v Victim) (Outcome, error) {
	o := Outcome{Victim: v}
	switch {
	case v.Prepared != nil:
		o.Reason = NoProcess
		o.Detail = termtext.Line(fmt.Sprintf("it is a prepared transaction, which no signal ends: run %s in database %s as %s or a superuser",
			v.Prepared.Remedy(), v.Prepared.Database, v.Prepared.Owner))
		return o, nil
	case v.PID <= 0:
		o.Reason, o.Detail = NoProcess, "it has no process"
		return o, nil
	}
	asked := action
	if e.dryRun {
		asked = actionCheck
		if action == actionCancel && isIdle(v.State) {
			o.Reason, o.Detail = Idle, idleReason(v.State)
			return o, nil
		}
	}
	var j *checkResult
	err := query(ctx, q, signalSQL, e.parameters(asked, v), func(kind, payload string) error {
		j = new(checkResult)
		return json.Unmarshal([]byte(payload), j)
	})
	switch {
	case sqlstate.Of(err) != "" && ctx.Err() == nil:
		// Postgres returned an error after all.
		o.Reason, o.Detail, o.Err = Failed, termtext.Line(err.Error()), err
		if sqlstate.Of(err) == sqlstate.InsufficientPrivilege {
			o.Reason = NotPermitted
		}
	case err != nil:
		return o, err
	default:
		j.setOutcome(&o, e.dryRun)
	}
	return o, nil
}

func (e *endOptions) parameters(action string, v Victim) map[string]string {
	var start int64
	named := true
	if !v.BackendStart.IsZero() {
		start = v.BackendStart.UnixMicro()
		// A name from a database with another encoding may not be valid text here.
		// PID and start suffice to identify a session.
		named = !strings.ContainsRune(v.User+v.Database, utf8.RuneError)
	}
	var waiters []int32
	var waits []string
	for _, w := range v.waiters {
		began := int64(0)
		if !w.began.IsZero() {
			began = w.began.UnixMicro()
		}
		waiters = append(waiters, w.pid)
		waits = append(waits, strconv.FormatInt(began, 10))
	}
	return map[string]string{
		"action":   action,
		"pid":      strconv.FormatInt(int64(v.PID), 10),
		"start":    strconv.FormatInt(start, 10),
		"named":    strconv.FormatBool(named),
		"user":     v.User,
		"database": v.Database,
		"waiters":  pidArray(waiters),
		"waits":    "{" + strings.Join(waits, ",") + "}",
		"allow":    "{" + strings.Join(e.allow, ",") + "}",

		"transaction": v.proof(),
	}
}

// setOutcome sets the outcome from the result of signal.sql, in the order of the
// conditions there.
func (j *checkResult) setOutcome(o *Outcome, dryRun bool) {
	switch {
	case j == nil || !j.Same:
		o.Reason, o.Detail = Gone, "the session has ended"
		return
	case !j.Blocks:
		o.Reason, o.Detail = NotBlocking, "it no longer blocks any of them"
		return
	}
	if o.Class = Class(cmp.Or(j.Self, j.Kind)); o.Class != "" {
		o.Reason = Protected
	}
	switch {
	case j.Self != "":
		o.Detail = "it is the session that sends the signal"
	case j.Kind == string(Autovacuum) && j.Wraparound:
		o.Reason, o.Detail = Wraparound, "it is an autovacuum to prevent transaction ID wraparound, which would start again at once: let it finish"
	case j.Kind == string(Autovacuum):
		o.Detail = "it is an autovacuum, which yields by itself once a session has waited for deadlock_timeout"
	case j.Kind == string(WALSenders) && j.BackendType == "":
		o.Detail = "its type is hidden and its role has REPLICATION, so it may serve a standby or a backup"
	case j.Kind == string(WALSenders):
		o.Detail = "it serves a standby or a backup"
	case j.Kind != "":
		o.Detail = fmt.Sprintf("it is not a client session but a %s", j.BackendType)
	case j.Idle:
		o.Reason, o.Detail = Idle, idleReason(j.State)
	case !j.Permitted:
		o.Reason = NotPermitted
		switch {
		case j.BackendType == "autovacuum worker":
			o.Detail = "only a superuser may end it, and from Postgres 18 on a member of pg_signal_autovacuum_worker"
		case j.Super:
			o.Detail = "it belongs to a superuser or to the server itself, so only a superuser may end it"
		default:
			o.Detail = "this role is not a member of its role or of pg_signal_backend"
			o.Grant = "GRANT pg_signal_backend TO " + sqltext.Identifier(j.Me)
		}
	case !j.Proved:
		o.Reason = Hidden
		o.Detail = "this role cannot verify that its PID is still the same session"
		o.Grant = "GRANT pg_read_all_stats TO " + sqltext.Identifier(j.Me)
	case dryRun, j.Signaled != nil && *j.Signaled:
		o.Signaled = true
	default:
		o.Reason, o.Detail = Gone, "the session ended just now"
	}
}

// readWaiting returns the blockers of the victims that wait, by PID.
func readWaiting(ctx context.Context, q driver.Querier, victims []Victim) (map[int32][]int32, error) {
	var pids []int32
	for _, v := range victims {
		if v.PID > 0 {
			pids = append(pids, v.PID)
		}
	}
	r := &reading{waits: map[int32][]int32{}}
	if len(pids) == 0 {
		return r.waits, nil
	}
	err := query(ctx, q, waitingSQL, map[string]string{"pids": pidArray(pids)}, r.addRow)
	return r.waits, err
}

// waitingReason returns why a session that waits for blockers, which are sorted, is left
// alone.
func waitingReason(blockers []int32) string {
	blockers = slices.Compact(blockers)
	name := fmt.Sprintf("pid %d", blockers[len(blockers)-1])
	if name == "pid 0" {
		name = "a prepared transaction"
	}
	if n := len(blockers) - 1; n > 0 {
		name += fmt.Sprintf(" and %d more", n)
	}
	return "it waits for " + name + " itself, and may go on once that has ended"
}

func isIdle(state string) bool { return strings.HasPrefix(state, "idle") }

func idleReason(state string) string {
	return "it is " + state + ": there is nothing to cancel, and only ending the session frees the locks it may hold"
}

// awaitGone waits until the signaled sessions have ended.
//
// pg_terminate_backend with a timeout, from Postgres 14 on, would wait for one
// session after the other and check ten times a second. A session leaves
// pg_stat_activity after it has released its locks.
func awaitGone(ctx context.Context, q driver.Querier, outcomes []Outcome, d time.Duration) error {
	deadline := time.Now().Add(d)
	for pause := 2 * time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		var waiting []*Outcome
		var pids, starts []string
		for i := range outcomes {
			if o := &outcomes[i]; o.Signaled && !o.Ended {
				values := new(endOptions).parameters("", o.Victim)
				waiting = append(waiting, o)
				pids, starts = append(pids, values["pid"]), append(starts, values["start"])
			}
		}
		if len(waiting) == 0 {
			return nil
		}
		for _, o := range waiting {
			o.Ended = true
		}
		values := map[string]string{"pids": "{" + strings.Join(pids, ",") + "}", "starts": "{" + strings.Join(starts, ",") + "}"}
		err := query(ctx, q, aliveSQL, values, func(kind, payload string) error {
			i, err := strconv.Atoi(payload)
			if err != nil || i < 0 || i >= len(waiting) {
				return unreadableError(kind, payload)
			}
			waiting[i].Ended = false
			return nil
		})
		if err != nil {
			for _, o := range waiting {
				o.Ended = false
			}
			return err
		}
		if time.Now().After(deadline) {
			for _, o := range waiting {
				if !o.Ended {
					o.Detail = fmt.Sprintf("it was signaled but has not ended after %v: it may have much to roll back", d)
				}
			}
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
}
