package engine

import (
	"fmt"
	"time"
)

// An Option changes a Config, such as an option of a Locker.
type Option interface {
	Apply(*Config) error
}

// An OptionFunc is a function that is an Option.
type OptionFunc func(*Config) error

// Apply calls f.
func (f OptionFunc) Apply(c *Config) error { return f(c) }

// Slice sets how long one statement waits for a lock in Postgres before the request is
// sent again. Only tests need it.
func Slice(d time.Duration) Option {
	return OptionFunc(func(c *Config) error {
		if d < 10*time.Millisecond {
			return fmt.Errorf("Slice(%v): must be 10ms or more", d)
		}
		c.Slice = d
		return nil
	})
}

// HandOver sets for how long a lock may pass from one holder to the next within the
// process before other processes get their turn; 0 turns it off. Only tests need it.
func HandOver(d time.Duration) Option {
	return OptionFunc(func(c *Config) error {
		if d < 0 {
			return fmt.Errorf("HandOver(%v): must not be negative", d)
		}
		c.HandOver = d
		return nil
	})
}
