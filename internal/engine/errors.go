package engine

import "errors"

// The errors that callers decide by. The root package documents and exports them.
var (
	ErrNotAcquired = errors.New("lock not acquired")
	ErrLost        = errors.New("lock lost")
	ErrNotHeld     = errors.New("lock not held")
	ErrUnconfirmed = errors.New("unlock not confirmed")
	ErrClosed      = errors.New("locker closed")
	ErrPooler      = errors.New("a connection pooler is between pglock and Postgres: " +
		"connect to Postgres directly, lock in a transaction, or take Leases(); for a session pooler, use AllowPooler()")
	ErrStandby = errors.New("the server is a standby, whose locks do not block sessions on the primary: " +
		"connect to the primary; with several hosts, use target_session_attrs=read-write")
	ErrNoAdvisoryLocks = errors.New("the server has no advisory locks: it reports locks that it did not take")
	ErrUnavailable     = errors.New("server unavailable")
	ErrNotInstalled    = errors.New("the tables of leases are missing or too old: run pglock install")
)
