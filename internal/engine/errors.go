package engine

import "errors"

// The outcomes that a user of pglock decides by. The root package gives them
// their documentation and makes them public.
var (
	ErrNotAcquired = errors.New("lock not acquired")
	ErrLost        = errors.New("lock lost")
	ErrNotHeld     = errors.New("lock not held")
	ErrUnconfirmed = errors.New("unlock not confirmed")
	ErrClosed      = errors.New("locker closed")
	ErrPooler      = errors.New("a connection pooler stands between pglock and Postgres: " +
		"connect to Postgres directly, or lock in a transaction; AllowPooler() is for poolers of whole sessions")
	ErrStandby = errors.New("the server is a standby, where a lock keeps out nobody who works on the primary: " +
		"connect to the primary; target_session_attrs=read-write finds it among several hosts")
	ErrNoAdvisoryLocks = errors.New("the server has no advisory locks: what it claims to lock is not locked")
	ErrUnavailable     = errors.New("the server could not be asked")
)
