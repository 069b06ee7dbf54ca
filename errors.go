package pglock

import (
	"errors"
	"strings"
	"time"

	"github.com/pglock-go/pglock/internal/engine"
	"github.com/pglock-go/pglock/internal/sqlstate"
	"github.com/pglock-go/pglock/internal/termtext"
)

// Errors to test for with errors.Is. errors.As with an *[Error] returns the keys and the
// holders.
var (
	// ErrNotAcquired means that Postgres did not grant the lock, because another session
	// holds it or waits ahead of us, and the call does not wait or the time to wait is
	// over. It is an ordinary outcome. If ctx ended the wait, the error also wraps ctx's
	// error.
	ErrNotAcquired = engine.ErrNotAcquired

	// ErrLost means that the lock was acquired, but its session ended at an unknown time
	// before the lock was unlocked. Another session may have held the lock since. It is
	// the cause of the canceled context in [Locker.Do].
	ErrLost = engine.ErrLost

	// ErrNotHeld means that the handle was already unlocked.
	ErrNotHeld = engine.ErrNotHeld

	// ErrUnconfirmed means that Postgres confirmed that the lock was held until the end,
	// but failed to unlock it. The session has been closed, which releases the lock as
	// soon as the server notices. A lease is released as soon as the server replies, or
	// expires.
	ErrUnconfirmed = engine.ErrUnconfirmed

	// ErrClosed means that the Locker is closed.
	ErrClosed = engine.ErrClosed

	// ErrPooler means that a connection pooler is between pglock and Postgres. It may run
	// each statement in another session, so a session lock could vanish or never be
	// released. Connect to Postgres directly, lock in a transaction with [LockTx], or take
	// [Leases]. If the pooler assigns a whole session to each client, use [AllowPooler].
	ErrPooler = engine.ErrPooler

	// ErrStandby means that the server is a standby. An advisory lock there does not
	// exclude sessions on the primary. Connect to the primary; with several hosts in the
	// connection string, target_session_attrs=read-write finds it.
	ErrStandby = engine.ErrStandby

	// ErrNoTransaction means that a transaction-level lock was requested outside a
	// transaction, where Postgres would release it at once.
	ErrNoTransaction = errors.New("not in a transaction")

	// ErrDeadlock means that Postgres detected a deadlock and canceled this request to
	// resolve it (SQLSTATE 40P01). A retry may succeed.
	ErrDeadlock = errors.New("deadlock")

	// ErrLockTableFull means that the server has no room for another lock (SQLSTATE
	// 53200). Before Postgres 19 it has room for at least max_locks_per_transaction *
	// (max_connections + max_prepared_transactions) locks, for all sessions together;
	// from 19 on the same setting gives about half the room.
	ErrLockTableFull = errors.New("the server's lock table is full: " +
		"hold fewer locks at a time, or raise max_locks_per_transaction")

	// ErrNoAdvisoryLocks means that the server speaks the Postgres protocol but has no
	// advisory locks: it grants them to everyone, or rejects the functions. The error
	// includes the server's version.
	ErrNoAdvisoryLocks = engine.ErrNoAdvisoryLocks

	// ErrUnavailable means that pglock could not find out whether the lock is free,
	// because it had no session or got no reply in time. The server is down, starting,
	// out of connections, unreachable or slow, or ctx was done before the request was
	// sent.
	ErrUnavailable = engine.ErrUnavailable

	// ErrNotInstalled means that the tables of [Leases] are missing or too old. The command
	// pglock install creates them, and so do the statements of [LeaseSQL].
	ErrNotInstalled = engine.ErrNotInstalled
)

// An Error describes what failed, for which lock, and why. It wraps one of the sentinel
// errors above and, if there is one, the driver's or ctx's error.
type Error struct {
	// Op is the operation, such as "lock" or "unlock".
	Op string

	// Keys are the keys of the advisory locks: one, or those passed to LockAll.
	Keys []Key

	// Tables are the tables, as the caller named them.
	Tables []string

	// Holders are the sessions that held the lock, or waited for it ahead of us, shortly
	// after it was not acquired. It is empty if that is unknown, because the holder was
	// gone by then or ctx was done.
	Holders []Holder

	// Due is how long the lease may not be taken because of [Every], if that is why it was
	// not acquired, else 0. Nobody need hold it then.
	Due time.Duration

	// Kind is the sentinel error, or nil if none applies.
	Kind error

	// Err is the cause: the driver's error or ctx's. It may be nil.
	Err error
}

// A Holder is a session that holds a lock, or waits for it ahead of us.
type Holder struct {
	PID         int32     // its backend's process ID; 0 for a prepared transaction
	User        string    // its role
	Application string    // its application_name
	Client      string    // its address or host name, "" for a unix socket
	State       string    // such as "active" or "idle in transaction", "" if hidden by permissions
	Since       time.Time // when its session began, zero if hidden by permissions
	Mode        string    // the mode of its lock, such as "ExclusiveLock"
	Granted     bool      // false if it only waits ahead of us
	Own         bool      // whether it is a session of a Locker in this process

	// Of a lease. PID, Application and Client are the holder's process, program and
	// machine, and Since is when the lease was taken; Token is 0 for other locks.
	Token int64
	Note  string        // what it says about itself
	Left  time.Duration // until it expires if it is not renewed
}

// String returns the holder on one line. It is safe to print on a terminal: control
// characters in names are escaped.
func (h Holder) String() string {
	if h.Token != 0 {
		return termtext.Lease(h.PID, h.Application, h.Client, h.Note)
	}
	more := []string{"from the server's own host"}
	if h.Client != "" {
		more[0] = "from " + h.Client
	}
	if !h.Since.IsZero() {
		more = append(more, "session since "+h.Since.UTC().Format(time.RFC3339))
	}
	if h.Own {
		more = append(more, "a Locker in this process")
	}
	return termtext.Session(h.PID, h.Application, h.User, more...)
}

// Error returns one line: the operation, the lock, the reason and the holders. It is safe
// to print on a terminal: control characters in names are escaped.
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

// Unwrap returns the sentinel error and the cause.
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

// kindOf returns the sentinel for an error sent by Postgres, or nil if there is none.
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
