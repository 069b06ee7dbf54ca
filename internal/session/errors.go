package session

import "errors"

// The outcomes that a user of pglock decides by. The root package gives them
// their documentation and makes them public.
var (
	ErrNotAcquired = errors.New("lock not acquired")
	ErrLost        = errors.New("lock lost")
	ErrNotHeld     = errors.New("lock not held")
	ErrUnconfirmed = errors.New("unlock not confirmed")
	ErrClosed      = errors.New("locker closed")
	ErrPooler      = errors.New("a connection pooler stands between pglock and Postgres")
	ErrStandby     = errors.New("the server is a standby")
	ErrUnavailable = errors.New("no session with Postgres")
)
