package pglock

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/pglock-go/pglock/internal/engine"
)

// A LockerOption configures a [Locker]: [Sessions], [Heartbeat], [AllowPooler], [Logger],
// [Leases] or [Schema].
// The defaults suit almost every program.
type LockerOption interface{ engine.Option }

// Sessions sets the maximum number of sessions that the Locker opens. The default is 8.
//
// One session serves any number of locks that no other process holds. Each lock that must
// be waited for in Postgres uses another session while it waits, and keeps it while it is
// held. If none is left, such a request polls every 20 ms instead, which is less fair to
// other processes and more work for the server. If more than 300 locks are polled, each is
// polled less often: 1,000 every 80 ms, 10,000 every 0.7 s. With Sessions(1), a wait in
// Postgres also delays the Locker's other requests, by up to 750 ms.
func Sessions(n int) LockerOption {
	return engine.OptionFunc(func(c *engine.Config) error {
		if n < 1 {
			return fmt.Errorf("Sessions(%d): must be 1 or more", n)
		}
		c.Sessions = n
		return nil
	})
}

// Heartbeat sets how soon a silent loss of a session is detected, such as a pulled cable
// or a hanging server. The default is 10 s. After half of it without traffic, the session
// sends a query and waits up to the other half for the reply; so a server that is
// overloaded for longer than that loses the locks. A loss reported by the operating
// system or Postgres, such as a terminated backend or a stopped server, is detected at
// once. The server is configured to drop a client that is silent for three and a half
// times the heartbeat.
func Heartbeat(d time.Duration) LockerOption {
	return engine.OptionFunc(func(c *engine.Config) error {
		if d < 100*time.Millisecond {
			return fmt.Errorf("Heartbeat(%v): must be 100ms or more", d)
		}
		c.Heartbeat = d
		return nil
	})
}

// AllowPooler lets the Locker work through a connection pooler such as PgBouncer, which
// it otherwise refuses with [ErrPooler]. Use it only if the pooler assigns a session to
// each client until the client disconnects (pool_mode = session). Behind any other pooler
// a lock may vanish or never be released.
func AllowPooler() LockerOption {
	return engine.OptionFunc(func(c *engine.Config) error { c.AllowPooler = true; return nil })
}

// Logger sets a logger for lost locks and for handles dropped without Unlock. By default,
// nothing is logged.
func Logger(log *slog.Logger) LockerOption {
	return engine.OptionFunc(func(c *engine.Config) error { c.Log = log; return nil })
}

func newConfig(opts []LockerOption) (engine.Config, error) {
	config := standardConfig()
	for _, opt := range opts {
		if opt == nil {
			return config, errors.New("pglock: new: an option is nil")
		}
		if err := opt.Apply(&config); err != nil {
			return config, fmt.Errorf("pglock: new: %w", err)
		}
	}
	if err := checkLeases(&config, standardConfig()); err != nil {
		return config, fmt.Errorf("pglock: new: %w", err)
	}
	return config, nil
}

// standardConfig returns the configuration of a Locker without options.
func standardConfig() engine.Config {
	return engine.Config{
		Sessions:  8,
		Slice:     750 * time.Millisecond,
		HandOver:  25 * time.Millisecond,
		Heartbeat: 10 * time.Second,
	}
}
