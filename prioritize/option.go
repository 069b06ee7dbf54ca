package prioritize

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/pglock-go/pglock/inspect"
)

// A RunOption configures [Run] and [RunOn]. The options are those of RunFor, and
// [LockTimeout].
type RunOption interface {
	option
	forRun()
}

// A RunForOption configures [RunFor], and also [Run] and [RunOn].
type RunForOption interface {
	RunOption
	RetryForOption
	forRunFor()
}

// A RetryOption configures [Retry] and [RetryOn]. The options are [LockTimeout], [Budget],
// [Tries], [Backoff] and [OnEvent].
type RetryOption interface {
	RetryForOption
	forRetry()
}

// A RetryForOption configures [RetryFor]. The options are those of [RunFor] and of
// [Retry].
type RetryForOption interface {
	option
	forRetryFor()
}

// option is any option.
type option interface{ apply(*config) error }

// anyOption is the only implementation of options. The result types of the functions that
// make options determine which calls accept them.
type anyOption struct {
	name string // as the caller wrote it, for errors
	set  func(*config) error
}

func (o anyOption) apply(c *config) error {
	if err := o.set(c); err != nil {
		return fmt.Errorf("%s: %w", o.name, err)
	}
	return nil
}

func (anyOption) forRun()      {}
func (anyOption) forRunFor()   {}
func (anyOption) forRetry()    {}
func (anyOption) forRetryFor() {}

// A config is the sum of the options of one call.
type config struct {
	onEvent []func(Event)

	// For watching.
	after      time.Duration
	interval   time.Duration // 0 derives it from after
	every      time.Duration
	once       bool
	policy     policy
	policyName string // as the caller wrote it, "" if none was given
	escalate   time.Duration
	call       func(context.Context, inspect.Pair) error
	filters    []inspect.Filter
	max        int // 0 is no limit
	queue      bool
	allowed    []inspect.Class

	// For retries.
	budget     time.Duration // 0 is none
	tries      int           // 0 is no limit
	minBackoff time.Duration
	maxBackoff time.Duration

	lockTimeout time.Duration // 0 leaves it alone
}

// A policy is what to do about a blocker that is past its grace.
type policy uint8

const (
	policyReport policy = iota
	policyWatch         // does not even report
	policyCancel
	policyTerminate
	policyEscalate
	policyCall
)

// OnEvent calls f for each event, one at a time. The watcher calls f and waits for it
// to return. OnEvent may be given more than once.
func OnEvent(f func(Event)) interface {
	RunForOption
	RetryOption
} {
	return anyOption{"OnEvent(...)", func(c *config) error {
		if f == nil {
			return errors.New("the function is nil")
		}
		c.onEvent = append(c.onEvent, f)
		return nil
	}}
}

// LockTimeout sets lock_timeout of the connection while the function runs, as
// [pglock.WithLockTimeout] does. With [Run] and [RunOn] it is a backstop if nothing can be
// done about the blockers; without it they leave the setting alone. The watcher then polls
// at least four times during the longest wait, whatever [Interval] is, so that the
// error names the blocker.
//
// With [Retry] and [RetryOn] it is how long each try waits for each of its locks; the default is 2
// s. While a try waits, later requests for the same lock wait behind it, so it should
// be short. It should also be longer than the server's deadlock_timeout (1 s by
// default), after which autovacuum yields to a waiter.
//
// [RetryFor] cannot set it: its function must let the sessions have this lock_timeout.
func LockTimeout(d time.Duration) interface {
	RunOption
	RetryOption
} {
	return anyOption{fmt.Sprintf("LockTimeout(%v)", d), func(c *config) error {
		if d < time.Millisecond {
			return errors.New("must be 1ms or more")
		}
		c.lockTimeout = d
		return nil
	}}
}

// After sets the grace: how long a session must have blocked before anything is done
// about it. The default is 1 s. The grace counts for each blocker separately, from
// the start of the wait or from when the blocker acquired its lock, whichever is
// later. From Postgres 14 on, the server reports when a wait began; before that, the
// grace counts from when the watcher first saw the wait.
func After(d time.Duration) RunForOption {
	return anyOption{fmt.Sprintf("After(%v)", d), func(c *config) error {
		if d < 0 {
			return errors.New("must not be negative")
		}
		c.after = d
		return nil
	}}
}

// Cancel cancels the statement of a blocker (pg_cancel_backend). That releases the
// locks of its transaction and keeps its connection. A session that is idle in a
// transaction runs no statement, so a cancel would release nothing: none is sent, and
// a [Spared] event reports it.
func Cancel() RunForOption { return policyOption("Cancel()", policyCancel, nil) }

// Terminate ends the session of a blocker (pg_terminate_backend), whatever its state.
// Its client finds its connection closed.
func Terminate() RunForOption { return policyOption("Terminate()", policyTerminate, nil) }

// CancelThenTerminate cancels the statement of a blocker, and terminates its session
// if it still blocks d later. A session that is idle in a transaction has that time
// to end it.
func CancelThenTerminate(d time.Duration) RunForOption {
	name := fmt.Sprintf("CancelThenTerminate(%v)", d)
	return policyOption(name, policyEscalate, func(c *config) error {
		if d <= 0 {
			return errors.New("must be longer than 0: use Terminate() to terminate at once")
		}
		c.escalate = d
		return nil
	})
}

// Call calls f for each blocker that another policy would end, instead of ending it,
// and calls it again every [Every] until it no longer blocks. The watcher calls f and
// waits for it. ctx ends when the function that is being prioritized returns. An
// event has the error that f returns, and the last one for each blocker is in the
// error of Run.
func Call(f func(ctx context.Context, blocked inspect.Pair) error) RunForOption {
	return policyOption("Call(...)", policyCall, func(c *config) error {
		if f == nil {
			return errors.New("the function is nil")
		}
		c.call = f
		return nil
	})
}

func policyOption(name string, p policy, more func(*config) error) RunForOption {
	return anyOption{name, func(c *config) error {
		if c.policyName != "" {
			return fmt.Errorf("%s is given too: only one policy is possible", c.policyName)
		}
		c.policy, c.policyName = p, name
		if more != nil {
			return more(c)
		}
		return nil
	}}
}

// Only acts on a blocker only if all filters match, as in [inspect.Blocked]: fields
// that begin with blocking_ are about the blocker, the others about the wait.
//
//	prioritize.Only(inspect.Where("blocking_application", "=", "reports"))
//
// The filters are evaluated when a blocker is past its grace and again every [Every],
// so a filter on a duration may match later.
func Only(filters ...inspect.Filter) RunForOption {
	return anyOption{"Only(...)", func(c *config) error {
		for _, f := range filters {
			if err := f.Err(); err != nil {
				return err
			}
		}
		c.filters = append(c.filters, filters...)
		return nil
	}}
}

// Max ends at most n sessions in total. A session that is canceled and then
// terminated counts once. Without Max there is no limit.
func Max(n int) RunForOption {
	return anyOption{fmt.Sprintf("Max(%d)", n), func(c *config) error {
		if n < 1 {
			return errors.New("must be 1 or more: give no policy to end none")
		}
		c.max = n
		return nil
	}}
}

// Every sets the time after which the policy is applied again to a blocker that still
// blocks. The default is 1 s.
func Every(d time.Duration) RunForOption {
	return anyOption{fmt.Sprintf("Every(%v)", d), func(c *config) error {
		if d < minInterval {
			return fmt.Errorf("must be %v or more", minInterval)
		}
		c.every = d
		return nil
	}}
}

// Once acts on the sessions that block when the first of them is past its grace, on
// each of them once ([CancelThenTerminate]: once in each way), and on none that come
// later.
func Once() RunForOption {
	return anyOption{"Once()", func(c *config) error { c.once = true; return nil }}
}

// Interval sets how often the watcher polls for blockers. The default is a fifth of
// [After], but 10 ms to 200 ms, and never more than a fourth of [LockTimeout]. If the
// server reports when a wait began, a longer interval delays nothing unless it is
// longer than the grace.
func Interval(d time.Duration) RunForOption {
	return anyOption{fmt.Sprintf("Interval(%v)", d), func(c *config) error {
		if d < minInterval {
			return fmt.Errorf("must be %v or more", minInterval)
		}
		c.interval = d
		return nil
	}}
}

// ClearQueue also acts on sessions that hold no conflicting lock and are only ahead
// in the lock queue. Usually that is not worth it: they proceed as soon as the
// holders are gone.
func ClearQueue() RunForOption {
	return anyOption{"ClearQueue()", func(c *config) error { c.queue = true; return nil }}
}

// Allow also acts on sessions of the given classes: Superusers, Autovacuum or
// Background.
func Allow(classes ...inspect.Class) RunForOption {
	return anyOption{fmt.Sprintf("Allow(%v)", classes), func(c *config) error {
		for _, class := range classes {
			if !slices.Contains([]inspect.Class{inspect.Superusers, inspect.Autovacuum, inspect.Background}, class) {
				return fmt.Errorf("unknown class %q: use inspect.Superusers, inspect.Autovacuum or inspect.Background", class)
			}
		}
		c.allowed = append(c.allowed, classes...)
		return nil
	}}
}

// Budget limits the time for all tries: no try begins after d, and the last pause is
// shortened so that a try begins at the end. The default is 10 minutes without
// [Tries], and no limit with it. With [RetryFor], the last try also applies the policy.
func Budget(d time.Duration) RetryOption {
	return anyOption{fmt.Sprintf("Budget(%v)", d), func(c *config) error {
		if d <= 0 {
			return errors.New("must be longer than 0: use Tries(1) to try once")
		}
		c.budget = d
		return nil
	}}
}

// Tries gives up after n tries. Without it only [Budget] limits them.
func Tries(n int) RetryOption {
	return anyOption{fmt.Sprintf("Tries(%d)", n), func(c *config) error {
		if n < 1 {
			return errors.New("must be 1 or more")
		}
		c.tries = n
		return nil
	}}
}

// Backoff sets the pauses between tries: shortest first, each twice as long as the
// one before, up to longest. Each is shortened by a random part of up to a half, so
// that concurrent callers do not retry in step. The default is 500 ms to 30 s.
//
// During a pause, the sessions that waited behind a try get their turn.
func Backoff(shortest, longest time.Duration) RetryOption {
	return anyOption{fmt.Sprintf("Backoff(%v, %v)", shortest, longest), func(c *config) error {
		if shortest <= 0 || longest < shortest {
			return errors.New("shortest must be longer than 0, and longest not shorter than it")
		}
		c.minBackoff, c.maxBackoff = shortest, longest
		return nil
	}}
}

const (
	minInterval = time.Millisecond
	maxInterval = 200 * time.Millisecond // unless Interval is given

	// pollsPerWait is how often the watcher polls within lock_timeout.
	pollsPerWait = 4

	defaultBudget      = 10 * time.Minute
	defaultLockTimeout = 2 * time.Second
)

// newConfig applies opts to the defaults and validates them.
func newConfig[O option](op string, opts []O) (config, error) {
	c := config{
		after:      time.Second,
		every:      time.Second,
		minBackoff: 500 * time.Millisecond,
		maxBackoff: 30 * time.Second,
	}
	for _, opt := range opts {
		if option(opt) == nil {
			return c, fmt.Errorf("pglock: %s: an option is nil", op)
		}
		if err := opt.apply(&c); err != nil {
			return c, fmt.Errorf("pglock: %s: %w", op, err)
		}
	}
	if op == opRetry || op == opRetryFor {
		if c.lockTimeout == 0 {
			c.lockTimeout = defaultLockTimeout
		}
		if c.budget == 0 && c.tries == 0 {
			c.budget = defaultBudget
		}
	}
	switch {
	case op == opRetry:
		c.policy = policyWatch
		c.after = c.lockTimeout // the interval derives from it
	case op == opRetryFor && c.policy != policyReport && c.after >= c.lockTimeout:
		return c, fmt.Errorf("pglock: %s: After(%v) must be shorter than LockTimeout(%v), which ends the wait", op, c.after, c.lockTimeout)
	}
	if c.interval == 0 {
		c.interval = min(max(c.after/5, 10*time.Millisecond), maxInterval)
	}
	if c.lockTimeout > 0 {
		// A wait must be seen before lock_timeout ends it, or the error names nobody.
		c.interval = min(c.interval, max(c.lockTimeout/pollsPerWait, minInterval))
	}
	return c, nil
}

// maxPause returns the longest pause between two polls: at most the grace, which must not
// expire unseen, and at most a fraction of lock_timeout.
func (c *config) maxPause() time.Duration {
	if c.lockTimeout > 0 {
		return min(c.after, c.lockTimeout/pollsPerWait)
	}
	return c.after
}

func (c *config) emit(e Event) {
	e.Time = time.Now()
	for _, f := range c.onEvent {
		f(e)
	}
}
