package pglock

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/pglock-go/pglock/internal/engine"
)

// A LockerOption configures a [Locker]. The defaults suit almost every program.
type LockerOption struct{ apply func(*engine.Config) error }

// Sessions sets the maximum number of sessions that the Locker opens. The default is 8.
//
// One session serves any number of locks that no other process holds. Each lock that must
// be waited for in Postgres uses another session while it waits, and keeps it while it is
// held. If none is left, such a request polls every 20 ms instead, which is less fair to
// other processes and more work for the server. With Sessions(1), a wait in Postgres also
// delays the Locker's other requests, by up to one [Slice].
func Sessions(n int) LockerOption {
	return LockerOption{func(c *engine.Config) error {
		if n < 1 {
			return fmt.Errorf("Sessions(%d): must be 1 or more", n)
		}
		c.Sessions = n
		return nil
	}}
}

// Slice sets how long one statement waits for a lock in Postgres before the request is
// sent again. The default is 750 ms.
//
// A waiting statement prevents VACUUM from removing dead rows, and CREATE INDEX
// CONCURRENTLY waits for it. A slice shorter than Postgres' deadlock_timeout (1 s by
// default) keeps both effects short, and keeps the latter from ending in a deadlock.
// After each slice, the request goes to the end of Postgres' lock queue.
func Slice(d time.Duration) LockerOption {
	return LockerOption{func(c *engine.Config) error {
		if d < 10*time.Millisecond {
			return fmt.Errorf("Slice(%v): must be 10ms or more", d)
		}
		c.Slice = d
		return nil
	}}
}

// HandOver sets for how long a lock may pass from one holder to the next within the
// process, without asking Postgres, before other processes get their turn. The default is
// 25 ms; 0 turns it off. A higher value is faster under contention, but makes other
// processes wait longer. A lock with no waiters in the process is always released at
// once.
func HandOver(d time.Duration) LockerOption {
	return LockerOption{func(c *engine.Config) error {
		if d < 0 {
			return fmt.Errorf("HandOver(%v): must not be negative", d)
		}
		c.HandOver = d
		return nil
	}}
}

// Heartbeat sets how soon a silent loss of a session is detected, such as a pulled cable
// or a hanging server. The default is 10 s. After half of it without traffic, the session
// sends a query and waits up to the other half for the reply; so a server that is
// overloaded for longer than that loses the locks. A loss reported by the operating
// system or Postgres, such as a terminated backend or a stopped server, is detected at
// once. The server is configured to drop a client that is silent for three and a half
// times the heartbeat.
func Heartbeat(d time.Duration) LockerOption {
	return LockerOption{func(c *engine.Config) error {
		if d < 100*time.Millisecond {
			return fmt.Errorf("Heartbeat(%v): must be 100ms or more", d)
		}
		c.Heartbeat = d
		return nil
	}}
}

// AllowPooler lets the Locker work through a connection pooler such as PgBouncer, which
// it otherwise refuses with [ErrPooler]. Use it only if the pooler assigns a session to
// each client until the client disconnects (pool_mode = session). Behind any other pooler
// a lock may vanish or never be released.
func AllowPooler() LockerOption {
	return LockerOption{func(c *engine.Config) error { c.AllowPooler = true; return nil }}
}

// Logger sets a logger for lost locks and for handles dropped without Unlock. By default,
// nothing is logged.
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
			return config, errors.New("pglock: new: empty LockerOption")
		}
		if err := opt.apply(&config); err != nil {
			return config, fmt.Errorf("pglock: new: %w", err)
		}
	}
	return config, nil
}
