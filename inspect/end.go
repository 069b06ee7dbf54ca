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

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/internal/sqlstate"
	"github.com/pglock-go/pglock/internal/termtext"
)

var (
	//go:embed signal.sql
	signalSQL string

	//go:embed alive.sql
	aliveSQL string
)

// Cancel cancels what the victims run, as Ctrl-C in psql does. Their sessions live
// on, and so do the locks that they took for the session or took earlier in a
// transaction that goes on. A session that runs nothing is not signalled: to
// cancel it would free nothing, and its Outcome says so.
//
// Each victim is signalled in a statement of its own that first looks whether it
// is still the session that is meant (see [Victim]), whether it may be signalled,
// and whether our own rules allow it (see [Allow]); each has an Outcome, in the
// order of victims. A victim that cannot be signalled stops none of the others.
//
// A superuser may signal other superusers' sessions, and anybody's whose wait is
// another by now, as long as it waits for the same session: a person has looked at
// the victims and meant them. What signals unasked has a [BlockingSignal], which
// is stricter.
//
// ctx covers all of it. The error is about the connection or ctx; then there are
// outcomes for those victims that were reached, and the one at which it failed may
// have been signalled or not.
//
// A role that does not see when a session began signals it only if something else
// proves that it is the one that was meant; otherwise the Outcome is NotPermitted, and
// its Grant is that of pg_read_all_stats.
func Cancel(ctx context.Context, q pglock.Querier, victims []Victim, opts ...EndOption) ([]Outcome, error) {
	return end(ctx, q, actionCancel, victims, opts)
}

// Terminate ends the sessions of the victims, which rolls back what they do and
// frees all their locks, when the rolling back is done. [WaitGone] waits for that.
// Otherwise it is as [Cancel].
func Terminate(ctx context.Context, q pglock.Querier, victims []Victim, opts ...EndOption) ([]Outcome, error) {
	return end(ctx, q, actionTerminate, victims, opts)
}

const (
	actionCancel    = "cancel"
	actionTerminate = "terminate"
	actionLook      = "look at"
)

// An EndOption changes how [Cancel] and [Terminate] end sessions.
type EndOption func(*ending)

// ending is what the options of one call add up to.
type ending struct {
	allow  []string
	spare  []int32
	wait   time.Duration
	dryRun bool
}

// A Protected is a kind of session that is not signalled unless [Allow] names it.
type Protected string

const (
	// Ourselves is the session that sends the signals.
	Ourselves Protected = "self"

	// WALSenders serve a standby or a backup. One whose type is hidden from us is
	// taken for it if its role may replicate.
	WALSenders Protected = "walsender"

	// Autovacuum is a worker that vacuums a table. It gives way by itself once
	// somebody has waited for it for deadlock_timeout, unless it prevents
	// transaction numbers from running out; then it comes back.
	Autovacuum Protected = "autovacuum"

	// Background is whatever else is no client's session, parallel workers too.
	Background Protected = "background"
)

// Allow signals also the kinds of sessions that are otherwise left alone. Postgres
// has rules of its own besides, which this does not change.
func Allow(kinds ...Protected) EndOption {
	return func(e *ending) {
		for _, k := range kinds {
			e.allow = append(e.allow, string(k))
		}
	}
}

// Spare leaves the sessions with these numbers alone, such as others of the same
// program.
func Spare(pids ...int32) EndOption {
	return func(e *ending) { e.spare = append(e.spare, pids...) }
}

// WaitGone makes [Terminate] return only when the sessions are gone, and their
// locks with them, or when d is over; each Outcome says which. It means nothing
// to [Cancel].
func WaitGone(d time.Duration) EndOption { return func(e *ending) { e.wait = d } }

// DryRun signals nobody. The outcomes say what would be done.
func DryRun() EndOption { return func(e *ending) { e.dryRun = true } }

// A Status is what became of a [Victim].
type Status string

const (
	// Signalled: the signal was sent, or would have been with [DryRun].
	Signalled Status = "signalled"

	// Gone: the session was not there any more.
	Gone Status = "gone"

	// NotBlocking: the session blocks none any more of those that it was to be
	// ended for.
	NotBlocking Status = "not blocking"

	// Idle: there was nothing to cancel.
	Idle Status = "idle"

	// NotPermitted: Postgres does not let us.
	NotPermitted Status = "not permitted"

	// Refused: our own rules do not let us.
	Refused Status = "refused"

	// Failed: Postgres was asked, and could not.
	Failed Status = "failed"
)

// An Outcome says what became of a victim.
type Outcome struct {
	Victim Victim
	Status Status

	// Reason says why, for a person, on a line that is safe to be shown on a
	// terminal; "" when it was signalled and that is all.
	Reason string

	// Grant is the statement that would permit it, if Status is NotPermitted and
	// there is one.
	Grant string

	// Protected is the kind that [Allow] would have to name, if Status is Refused
	// because of what the session is; else "".
	Protected Protected

	// Ended says that the session is gone, after [WaitGone].
	Ended bool

	// Err is the error of the server if Status is Failed, or nil.
	Err error
}

func end(ctx context.Context, q pglock.Querier, action string, victims []Victim, opts []EndOption) ([]Outcome, error) {
	var e ending
	for _, opt := range opts {
		if opt != nil {
			opt(&e)
		}
	}
	if e.wait < 0 {
		return nil, fmt.Errorf("inspect: WaitGone(%v) is less than nothing", e.wait)
	}
	if slices.ContainsFunc(victims, func(v Victim) bool { return v.Session == nil }) {
		return nil, errors.New("inspect: an empty Victim: make one with SessionsOf or BlockersOf")
	}
	var outcomes []Outcome
	for _, v := range victims {
		o, err := e.end(ctx, q, action, v)
		if err != nil {
			return outcomes, fmt.Errorf("inspect: to %s the session %d: %w", action, v.PID, err)
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

// judgement is the answer of signal.sql.
type judgement struct {
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
	Signalled   *bool  `json:"signalled"`
	Me          string `json:"me"`
}

// end deals with one victim.
func (e *ending) end(ctx context.Context, q pglock.Querier, action string, v Victim) (Outcome, error) {
	o := Outcome{Victim: v, Status: Refused}
	switch {
	case v.Prepared != nil:
		o.Reason = termtext.Line(fmt.Sprintf("it is a prepared transaction, which no signal ends: run %s in database %s as %s or a superuser",
			v.Prepared.Remedy(), v.Prepared.Database, v.Prepared.Owner))
		return o, nil
	case v.PID <= 0:
		o.Reason = "no process belongs to it"
		return o, nil
	case slices.Contains(e.spare, v.PID):
		o.Reason = "it is spared"
		return o, nil
	}
	asked := action
	if e.dryRun {
		asked = actionLook
		if action == actionCancel && isIdle(v.State) {
			o.Status, o.Reason = Idle, idleReason(v.State)
			return o, nil
		}
	}
	var j *judgement
	err := query(ctx, q, signalSQL, e.values(asked, v), func(what, that string) error {
		j = new(judgement)
		return json.Unmarshal([]byte(that), j)
	})
	switch {
	case sqlstate.Of(err) != "" && ctx.Err() == nil:
		// Postgres said no by an error after all.
		o.Status, o.Reason, o.Err = Failed, termtext.Line(err.Error()), err
		if sqlstate.Of(err) == sqlstate.InsufficientPrivilege {
			o.Status = NotPermitted
		}
	case err != nil:
		return o, err
	default:
		j.judge(&o, e.dryRun)
	}
	return o, nil
}

func (e *ending) values(action string, v Victim) map[string]string {
	var start int64
	named := true
	if !v.BackendStart.IsZero() {
		start = v.BackendStart.UnixMicro()
		// A name that was made in a database of another encoding is bytes that are
		// no text here. Process and start are enough to know a session by.
		named = !strings.ContainsRune(v.User+v.Database, utf8.RuneError)
	}
	var waiters, waits []string
	for _, w := range v.waiters {
		began := int64(0)
		if !w.began.IsZero() {
			began = w.began.UnixMicro()
		}
		waiters = append(waiters, strconv.FormatInt(int64(w.pid), 10))
		waits = append(waits, strconv.FormatInt(began, 10))
	}
	return map[string]string{
		"action":   action,
		"pid":      strconv.FormatInt(int64(v.PID), 10),
		"start":    strconv.FormatInt(start, 10),
		"named":    strconv.FormatBool(named),
		"user":     v.User,
		"database": v.Database,
		"waiters":  "{" + strings.Join(waiters, ",") + "}",
		"waits":    "{" + strings.Join(waits, ",") + "}",
		"allow":    "{" + strings.Join(e.allow, ",") + "}",

		"transaction": proof(v.transaction),
	}
}

// judge says in words what signal.sql found. The order is that of the conditions
// there.
func (j *judgement) judge(o *Outcome, dryRun bool) {
	switch {
	case j == nil || !j.Same:
		o.Status, o.Reason = Gone, "the session has ended"
		return
	case !j.Blocks:
		o.Status, o.Reason = NotBlocking, "it blocks none of them any more"
		return
	}
	o.Protected = Protected(cmp.Or(j.Self, j.Kind))
	switch {
	case j.Self != "":
		o.Reason = "it is the session that asks"
	case j.Kind == string(Autovacuum) && j.Wraparound:
		o.Reason = "it is an autovacuum that prevents transaction numbers from running out: it would come back at once, so let it finish"
	case j.Kind == string(Autovacuum):
		o.Reason = "it is an autovacuum, which gives way by itself once somebody has waited for deadlock_timeout"
	case j.Kind == string(WALSenders) && j.BackendType == "":
		o.Reason = "what it is is hidden, and its role may replicate, so it may serve a standby or a backup"
	case j.Kind == string(WALSenders):
		o.Reason = "it serves a standby or a backup"
	case j.Kind != "":
		o.Reason = fmt.Sprintf("it is no client's session but a %s", j.BackendType)
	case j.Idle:
		o.Status, o.Reason = Idle, idleReason(j.State)
	case !j.Permitted:
		o.Status = NotPermitted
		switch {
		case j.BackendType == "autovacuum worker":
			o.Reason = "only a superuser may, and from Postgres 18 on a member of pg_signal_autovacuum_worker"
		case j.Super:
			o.Reason = "it belongs to a superuser or to the server itself, so only a superuser may"
		default:
			o.Reason = "the role that asks is neither a member of its role nor of pg_signal_backend"
			o.Grant = "GRANT pg_signal_backend TO " + identifier(j.Me)
		}
	case !j.Proved:
		o.Status = NotPermitted
		o.Reason = "this role does not see when the session began, nor anything else that tells it from another with the same PID"
		o.Grant = "GRANT pg_read_all_stats TO " + identifier(j.Me)
	case j.Signalled != nil && *j.Signalled:
		o.Status = Signalled
	case dryRun:
		o.Status = Signalled
	default:
		o.Status, o.Reason = Gone, "the session ended just now"
	}
}

func isIdle(state string) bool { return strings.HasPrefix(state, "idle") }

func idleReason(state string) string {
	return "it is " + state + ": there is nothing to cancel, and only ending the session frees its locks"
}

// awaitGone waits until those that were signalled are gone.
//
// The form of pg_terminate_backend that waits, from Postgres 14 on, waits for one
// after the other and looks ten times a second. A session leaves pg_stat_activity
// after it has freed its locks.
func awaitGone(ctx context.Context, q pglock.Querier, outcomes []Outcome, d time.Duration) error {
	deadline := time.Now().Add(d)
	for pause := 2 * time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		var waiting []*Outcome
		var pids, starts []string
		for i := range outcomes {
			if o := &outcomes[i]; o.Status == Signalled && !o.Ended {
				values := new(ending).values("", o.Victim)
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
		err := query(ctx, q, aliveSQL, values, func(what, that string) error {
			i, err := strconv.Atoi(that)
			if err != nil || i < 0 || i >= len(waiting) {
				return unreadable(what, that)
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
					o.Reason = fmt.Sprintf("it was told to end and is still there after %v; it may have much to roll back", d)
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
