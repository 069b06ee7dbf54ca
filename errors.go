package pglock

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/pglock-go/pglock/internal/engine"
	"github.com/pglock-go/pglock/internal/sqlstate"
	"github.com/pglock-go/pglock/internal/termtext"
)

// What a caller decides by. Test for these with errors.Is; errors.As with an
// *[Error] gives the key and who was in the way.
var (
	// ErrNotAcquired says that Postgres did not grant the lock: another session holds it,
	// or waits for it ahead of us, and the time to wait for it was none, or is over. It
	// is an ordinary outcome. If ctx ended the wait, the error is also ctx's own.
	ErrNotAcquired = engine.ErrNotAcquired

	// ErrLost says that the lock was acquired, and may have been lost before it was
	// unlocked: its session ended, and nobody knows when. Another session may have held
	// the lock since. It is the cause of the canceled context inside [Locker.Do].
	ErrLost = engine.ErrLost

	// ErrNotHeld says that the handle was unlocked before, so there is nothing
	// to unlock.
	ErrNotHeld = engine.ErrNotHeld

	// ErrUnconfirmed says that the lock was held to the last, by Postgres' word, but that
	// Postgres failed to unlock it. Its session has been closed, which frees the lock as
	// soon as the server notices.
	ErrUnconfirmed = engine.ErrUnconfirmed

	// ErrClosed says that the Locker is closed.
	ErrClosed = engine.ErrClosed

	// ErrPooler says that a connection pooler stands between, which may run each
	// statement in another session, where a session lock vanishes or never ends.
	// Connect to Postgres directly, or lock in a transaction with [LockTx].
	// [AllowPooler] is for poolers that pool whole sessions.
	ErrPooler = engine.ErrPooler

	// ErrStandby says that the server is a standby, where an advisory lock keeps
	// out nobody who works on the primary. Connect to the primary; with several
	// hosts, target_session_attrs=read-write finds it.
	ErrStandby = engine.ErrStandby

	// ErrNoTransaction says that a transaction-level lock was asked for outside
	// a transaction, where it would be gone as soon as it is granted.
	ErrNoTransaction = errors.New("not in a transaction")

	// ErrDeadlock says that Postgres found a deadlock and gave up this wait to
	// end it (SQLSTATE 40P01). Trying again may well succeed.
	ErrDeadlock = errors.New("deadlock")

	// ErrLockTableFull says that the server has no room for one more lock
	// (SQLSTATE 53200): it holds max_locks_per_transaction *
	// (max_connections + max_prepared_transactions) at the least, for all
	// sessions together.
	ErrLockTableFull = errors.New("the server's lock table is full: " +
		"hold fewer locks at a time, or raise max_locks_per_transaction")

	// ErrNoAdvisoryLocks says that the server speaks Postgres' protocol but has no
	// advisory locks: it grants them to everybody, or refuses the functions. The error
	// has the server's version.
	ErrNoAdvisoryLocks = engine.ErrNoAdvisoryLocks

	// ErrUnavailable says that nobody could say whether the lock is free: there was no
	// session to ask on, or no answer in time. The server is down, starting, out of
	// connections, unreachable or slow, or ctx was done before it was asked.
	ErrUnavailable = engine.ErrUnavailable
)

// An Error says what failed, for which lock, and why. It wraps one of the
// sentinels above and, where there is one, the driver's own error or ctx's.
type Error struct {
	// Op is what was being done, such as "lock" or "unlock".
	Op string

	// Keys are the advisory locks that it was about: one, or those of LockAll.
	Keys []Key

	// Tables are the tables that it was about, as the caller named them.
	Tables []string

	// Holders are the sessions that held the lock, or wait for it ahead of us,
	// at a moment shortly after it was not acquired. Empty when that is not
	// known: the holder may be gone by then, or ctx was over.
	Holders []Holder

	// Kind is the sentinel, nil for an error of another kind.
	Kind error

	// Err is the cause: the driver's error, or ctx's. It may be nil.
	Err error
}

// A Holder is a session that holds a lock, or stands before us in its queue.
type Holder struct {
	PID         int32     // its backend; 0 for a prepared transaction
	User        string    // its role
	Application string    // its application_name
	Client      string    // its address or host name, "" for a unix socket
	State       string    // such as "active" or "idle in transaction", "" when hidden from us
	Since       time.Time // when its session began, zero when hidden from us
	Mode        string    // the mode of its lock, such as "ExclusiveLock"
	Granted     bool      // false when it only waits before us
	Own         bool      // it is a session of a Locker of this process
}

// String is the holder on one line, safe to be shown on a terminal: the names may
// be anybody's choice.
func (h Holder) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "pid %d (", h.PID)
	if h.Application != "" {
		fmt.Fprintf(&b, "%q, ", h.Application)
	}
	if h.User != "" {
		fmt.Fprintf(&b, "user %s, ", h.User)
	}
	if h.Client != "" {
		fmt.Fprintf(&b, "from %s", h.Client)
	} else {
		b.WriteString("from the server's own host")
	}
	if !h.Since.IsZero() {
		fmt.Fprintf(&b, ", session since %s", h.Since.UTC().Format(time.RFC3339))
	}
	if h.Own {
		b.WriteString(", a Locker of this very process")
	}
	b.WriteString(")")
	return termtext.Line(b.String())
}

// Error is one line: what, which lock, why, and who was in the way. What others
// choose, such as a name, is shown so that a terminal does not obey it.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("pglock: ")
	b.WriteString(e.Op)
	for i, key := range e.Keys {
		if i > 0 {
			b.WriteString(",")
		}
		b.WriteString(" ")
		b.WriteString(key.String())
	}
	for i, table := range e.Tables {
		if i > 0 {
			b.WriteString(",")
		}
		b.WriteString(" ")
		b.WriteString(table)
	}
	if e.Kind != nil {
		b.WriteString(": ")
		b.WriteString(e.Kind.Error())
	}
	if e.Err != nil {
		b.WriteString(": ")
		b.WriteString(e.Err.Error())
	}
	for i, h := range e.Holders {
		switch {
		case i > 0:
			b.WriteString(", ")
		case h.Granted:
			b.WriteString(": held by ")
		default:
			b.WriteString(": behind ")
		}
		b.WriteString(h.String())
	}
	return termtext.Line(b.String())
}

// Unwrap gives the sentinel and the cause.
func (e *Error) Unwrap() []error {
	var errs []error
	if e.Kind != nil {
		errs = append(errs, e.Kind)
	}
	if e.Err != nil {
		errs = append(errs, e.Err)
	}
	return errs
}

// kindOf is the sentinel for a failure that Postgres reported, or nil.
func kindOf(err error) error {
	switch sqlstate.Of(err) {
	case sqlstate.DeadlockDetected:
		return ErrDeadlock
	case sqlstate.OutOfMemory:
		return ErrLockTableFull
	case sqlstate.TooManyConnections, sqlstate.CannotConnectNow:
		return ErrUnavailable
	case sqlstate.NoActiveTransaction:
		return ErrNoTransaction
	}
	return nil
}
