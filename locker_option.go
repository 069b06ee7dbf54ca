package pglock

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/pglock-go/pglock/internal/engine"
)

// A LockerOption sets up a [Locker]. Each one's default is good for nearly
// everybody.
type LockerOption struct{ apply func(*engine.Config) error }

// Sessions is the most sessions that the Locker opens at a time. The default is 8.
//
// One session serves any number of locks that nobody outside the process holds.
// Each lock that must be waited for in Postgres takes a further session for the
// time of the waiting, and keeps it while it is held. When there are no more to
// take, such locks are tried again every 20 ms instead: less fair towards other
// processes, and more work for the server. With Sessions(1) a wait in Postgres
// also delays the other locks of the Locker, for up to a [Slice].
func Sessions(n int) LockerOption {
	return LockerOption{func(c *engine.Config) error {
		if n < 1 {
			return fmt.Errorf("Sessions(%d): at least one is needed", n)
		}
		c.Sessions = n
		return nil
	}}
}

// Slice is how long one statement waits for a lock in Postgres before it asks
// anew. The default is 750 ms.
//
// A waiting statement keeps VACUUM from cleaning up behind it, and CREATE INDEX
// CONCURRENTLY waits for it; a slice shorter than Postgres' deadlock_timeout (1 s
// by default) keeps either from lasting, and from ending as a deadlock. Between
// two slices the request goes to the end of Postgres' queue.
func Slice(d time.Duration) LockerOption {
	return LockerOption{func(c *engine.Config) error {
		if d < 10*time.Millisecond {
			return fmt.Errorf("Slice(%v): must be 10ms or more", d)
		}
		c.Slice = d
		return nil
	}}
}

// HandOver is how long a lock goes from one holder to the next within the
// process, without asking Postgres, before other processes get their turn. The
// default is 25 ms, 0 turns it off. More is faster under contention, and lets
// other processes wait longer; it never keeps a lock that nobody in the process
// wants.
func HandOver(d time.Duration) LockerOption {
	return LockerOption{func(c *engine.Config) error {
		if d < 0 {
			return fmt.Errorf("HandOver(%v): must not be negative", d)
		}
		c.HandOver = d
		return nil
	}}
}

// Heartbeat is within which time a loss is noticed that nothing tells of: a
// cable pulled, a server that hangs. The default is 10 s. The session asks the
// server for a sign of life every half of it, when there was no other, and waits
// for the other half; so a server that is overloaded for longer than that costs
// the locks. A loss of which the operating system or Postgres tells, such as a
// terminated backend or a stopped server, is noticed at once. The server is told
// to give up on a client that is silent for three and a half times as long.
func Heartbeat(d time.Duration) LockerOption {
	return LockerOption{func(c *engine.Config) error {
		if d < 100*time.Millisecond {
			return fmt.Errorf("Heartbeat(%v): must be 100ms or more", d)
		}
		c.Heartbeat = d
		return nil
	}}
}

// AllowPooler lets the Locker work through a connection pooler such as PgBouncer,
// which it refuses otherwise with [ErrPooler]. Use it only for a pooler that
// gives each client a session of its own for as long as it is connected (pool_mode
// = session): through any other a lock may vanish or never end.
func AllowPooler() LockerOption {
	return LockerOption{func(c *engine.Config) error { c.AllowPooler = true; return nil }}
}

// Logger hears of locks that were lost, and of handles that were dropped without
// Unlock. Without it the Locker is silent.
func Logger(log *slog.Logger) LockerOption {
	return LockerOption{func(c *engine.Config) error { c.Log = log; return nil }}
}

func newConfig(opts []LockerOption) (engine.Config, error) {
	config := engine.Config{
		Sessions:  8,
		Slice:     750 * time.Millisecond,
		HandOver:  25 * time.Millisecond,
		Heartbeat: 10 * time.Second,
	}
	for _, opt := range opts {
		if opt.apply == nil {
			return config, errors.New("pglock: new: an empty LockerOption")
		}
		if err := opt.apply(&config); err != nil {
			return config, fmt.Errorf("pglock: new: %w", err)
		}
	}
	return config, nil
}
