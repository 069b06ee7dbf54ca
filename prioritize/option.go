package prioritize

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/pglock-go/pglock/inspect"
)

// An Option says how [Run], [RunFor] and [Retry] go about it. One that means
// nothing to the function it is given to is an error, and nothing is run.
type Option struct {
	name  string // as the caller wrote it, for errors
	needs verb   // who it is for
	apply func(*config) error
}

type verb uint8

const (
	forRun verb = 1 << iota
	forRunFor
	forRetry

	forWatching = forRun | forRunFor
)

// config is what the options of one call add up to.
type config struct {
	onEvent []func(Event)

	// Of the watching.
	after      time.Duration
	interval   time.Duration // 0 is to follow from after
	every      time.Duration
	once       bool
	policy     policy
	policyName string // as the caller wrote it, "" when none was given
	escalate   time.Duration
	call       func(context.Context, inspect.Pair) error
	filters    []inspect.Filter
	max        int // 0 is no limit
	queue      bool
	allowed    []Kind

	// Of the retries.
	budget     time.Duration // 0 is none
	tries      int           // 0 is no limit
	minBackoff time.Duration
	maxBackoff time.Duration

	lockTimeout time.Duration // 0 is not to set it
}

// policy is what is done about a blocker that is past its grace.
type policy uint8

const (
	policyReport policy = iota
	policyWatch         // not even that
	policyCancel
	policyTerminate
	policyEscalate
	policyCall
)

// A Kind of sessions is one that is never ended unless it is named with [Allow].
type Kind string

// The kinds.
const (
	// Superusers are the sessions of roles that are superusers, other than the role
	// that the watcher connects as (or has become by SET ROLE). Only a superuser can
	// end them.
	Superusers Kind = "superusers"

	// Autovacuum are the workers of autovacuum. They yield by themselves to who
	// has waited for deadlock_timeout (1 s by default), unless they prevent
	// transaction ID wraparound, and then a new one starts soon after one is
	// ended. Only a superuser can end them, and from Postgres 18 on a member of
	// pg_signal_autovacuum_worker (PostgreSQL manual, 24.1.6 "The Autovacuum
	// Daemon").
	Autovacuum Kind = "autovacuum"

	// Background is all else that is no client's session: walsenders, workers of
	// logical replication and of extensions.
	Background Kind = "background"
)

// OnEvent calls f with everything that happens, one event at a time. It is called
// by the watcher, which waits for it to return. It may be given more than once.
func OnEvent(f func(Event)) Option {
	return Option{"OnEvent(...)", forWatching | forRetry, func(c *config) error {
		if f == nil {
			return errors.New("the function is nil")
		}
		c.onEvent = append(c.onEvent, f)
		return nil
	}}
}

// LockTimeout sets lock_timeout of the connection while the function runs, as
// [pglock.WithLockTimeout] does. With [Run] it is a backstop for when nothing can
// be done about who blocks; without it Run leaves the setting alone. The watcher then
// looks at least four times while a wait may last, whatever [Interval] says, so that
// the error names the blocker.
//
// With [Retry] it is how long each try waits for each of its locks; the default
// is 2 s. As long as a try waits, everybody who wants the same lock after it waits
// behind it, so it should be short; but longer than the server's deadlock_timeout
// (1 s by default), for that is when autovacuum yields to who waits for it.
func LockTimeout(d time.Duration) Option {
	return Option{fmt.Sprintf("LockTimeout(%v)", d), forRun | forRetry, func(c *config) error {
		if d < time.Millisecond {
			return errors.New("must be 1ms or more")
		}
		c.lockTimeout = d
		return nil
	}}
}

// After is the grace: how long somebody must have been in the way before anything
// is done about it. The default is 1 s. It counts for each blocker by itself, from
// the beginning of the wait or from when it took hold of what is waited for,
// whichever is later. From Postgres 14 on the server tells when a wait began;
// before that it counts from when the watcher first saw it.
func After(d time.Duration) Option {
	return Option{fmt.Sprintf("After(%v)", d), forWatching, func(c *config) error {
		if d < 0 {
			return errors.New("must not be negative")
		}
		c.after = d
		return nil
	}}
}

// Report does nothing about who is in the way but tell, with an [Overdue] event
// for what another policy would end. It is the default.
func Report() Option { return policyOption("Report()", policyReport, nil) }

// Cancel cancels what a blocker runs (pg_cancel_backend). That frees the locks of
// its transaction, and leaves its connection. A session that is idle in a
// transaction runs nothing: a cancel would free nothing, so none is sent, and a
// [Spared] event says so.
func Cancel() Option { return policyOption("Cancel()", policyCancel, nil) }

// Terminate ends the session of a blocker (pg_terminate_backend), whatever it
// does. Its client sees its connection closed.
func Terminate() Option { return policyOption("Terminate()", policyTerminate, nil) }

// CancelThenTerminate cancels what a blocker runs, and terminates the session when
// it is still in the way d later. One that is idle in a transaction has that time
// to end it.
func CancelThenTerminate(d time.Duration) Option {
	name := fmt.Sprintf("CancelThenTerminate(%v)", d)
	return policyOption(name, policyEscalate, func(c *config) error {
		if d <= 0 {
			return errors.New("must be longer than 0: use Terminate() to terminate at once")
		}
		c.escalate = d
		return nil
	})
}

// Call calls f about each blocker that another policy would end, in place of
// ending it, and again every [Every] as long as it blocks. It is called by the
// watcher, which waits for it. ctx ends with the function that is being
// prioritized. What it returns is in an event, and what it returned last about each
// blocker is in the error of Run if that fails.
func Call(f func(ctx context.Context, blocked inspect.Pair) error) Option {
	return policyOption("Call(...)", policyCall, func(c *config) error {
		if f == nil {
			return errors.New("the function is nil")
		}
		c.call = f
		return nil
	})
}

func policyOption(name string, p policy, more func(*config) error) Option {
	return Option{name, forWatching, func(c *config) error {
		if c.policyName != "" {
			return fmt.Errorf("there is one policy, and %s is given, too", c.policyName)
		}
		c.policy, c.policyName = p, name
		if more != nil {
			return more(c)
		}
		return nil
	}}
}

// Only deals with those blockers alone that all filters match, as
// [inspect.Blocked] has them: fields that begin with blocking_ are about who
// blocks, the others about the wait.
//
//	prioritize.Only(inspect.Where("blocking_application", "=", "reports"))
//
// They are asked anew when a blocker is past its grace, and from then on every
// [Every], so that one about a duration may come to match.
func Only(filters ...inspect.Filter) Option {
	return Option{"Only(...)", forWatching, func(c *config) error {
		for _, f := range filters {
			if err := f.Err(); err != nil {
				return err
			}
		}
		c.filters = append(c.filters, filters...)
		return nil
	}}
}

// Max ends at most n sessions in all; one that is cancelled and then terminated
// counts once. Without it there is no limit.
func Max(n int) Option {
	return Option{fmt.Sprintf("Max(%d)", n), forWatching, func(c *config) error {
		if n < 1 {
			return errors.New("must be 1 or more: use Report() to end none")
		}
		c.max = n
		return nil
	}}
}

// Every is after which time a blocker that is still there is dealt with again. The
// default is 1 s.
func Every(d time.Duration) Option {
	return Option{fmt.Sprintf("Every(%v)", d), forWatching, func(c *config) error {
		if d < minInterval {
			return fmt.Errorf("must be %v or more", minInterval)
		}
		c.every = d
		return nil
	}}
}

// Once deals with those who are in the way when the first of them is past its
// grace, each of them once ([CancelThenTerminate]: once in each way), and with
// nobody who comes later.
func Once() Option {
	return Option{"Once()", forWatching, func(c *config) error { c.once = true; return nil }}
}

// Interval is how often the watcher looks whether somebody is blocked. The default
// is a fifth of [After], but 10 ms to 200 ms, and never more than a fourth of
// [LockTimeout]. When the server tells since when a
// wait lasts, a longer interval delays nothing as long as it is shorter than the
// grace.
func Interval(d time.Duration) Option {
	return Option{fmt.Sprintf("Interval(%v)", d), forWatching, func(c *config) error {
		if d < minInterval {
			return fmt.Errorf("must be %v or more", minInterval)
		}
		c.interval = d
		return nil
	}}
}

// ClearQueue deals also with sessions that hold nothing that is in the way and
// only stand ahead in the queue. Usually they are not worth it: they move on as
// soon as the holders are gone.
func ClearQueue() Option {
	return Option{"ClearQueue()", forWatching, func(c *config) error { c.queue = true; return nil }}
}

// Allow deals also with sessions of the named kinds.
func Allow(kinds ...Kind) Option {
	return Option{fmt.Sprintf("Allow(%v)", kinds), forWatching, func(c *config) error {
		for _, kind := range kinds {
			if !slices.Contains([]Kind{Superusers, Autovacuum, Background}, kind) {
				return fmt.Errorf("there is no kind %q: there are Superusers, Autovacuum and Background", kind)
			}
		}
		c.allowed = append(c.allowed, kinds...)
		return nil
	}}
}

// Budget gives up trying when d is over: no try begins later than that, and the
// last pause is as short as it must be for a try at the end. The default is 10
// minutes when there is no [Tries] either, else none.
func Budget(d time.Duration) Option {
	return Option{fmt.Sprintf("Budget(%v)", d), forRetry, func(c *config) error {
		if d <= 0 {
			return errors.New("must be longer than 0: use Tries(1) to try once")
		}
		c.budget = d
		return nil
	}}
}

// Tries gives up after n tries. Without it there is no limit but [Budget].
func Tries(n int) Option {
	return Option{fmt.Sprintf("Tries(%d)", n), forRetry, func(c *config) error {
		if n < 1 {
			return errors.New("must be 1 or more")
		}
		c.tries = n
		return nil
	}}
}

// Backoff is how long the pauses between tries are: the first one shortest, each
// twice as long as the one before, up to longest. Each is cut by a random part of
// up to a half, so that several who retry do not meet every time. The default is
// 500 ms to 30 s.
//
// The pause is when those who waited behind a try get their turn.
func Backoff(shortest, longest time.Duration) Option {
	return Option{fmt.Sprintf("Backoff(%v, %v)", shortest, longest), forRetry, func(c *config) error {
		if shortest <= 0 || longest < shortest {
			return errors.New("the shortest pause must be longer than 0, and the longest no shorter than that")
		}
		c.minBackoff, c.maxBackoff = shortest, longest
		return nil
	}}
}

const (
	minInterval = time.Millisecond
	maxInterval = 200 * time.Millisecond // unless another is asked for

	// looksPerWait is how often the watcher looks while lock_timeout lets the session
	// wait.
	looksPerWait = 4

	defaultBudget      = 10 * time.Minute
	defaultLockTimeout = 2 * time.Second
)

// newConfig adds the options up.
func newConfig(op string, v verb, opts []Option) (config, error) {
	c := config{
		after:      time.Second,
		every:      time.Second,
		minBackoff: 500 * time.Millisecond,
		maxBackoff: 30 * time.Second,
	}
	for _, opt := range opts {
		if opt.apply == nil {
			return c, fmt.Errorf("pglock: %s: an empty Option", op)
		}
		if opt.needs&v == 0 {
			return c, fmt.Errorf("pglock: %s: the option %s means nothing here", op, opt.name)
		}
		if err := opt.apply(&c); err != nil {
			return c, fmt.Errorf("pglock: %s: %s: %w", op, opt.name, err)
		}
	}
	if v == forRetry {
		c.policy = policyWatch
		if c.lockTimeout == 0 {
			c.lockTimeout = defaultLockTimeout
		}
		if c.budget == 0 && c.tries == 0 {
			c.budget = defaultBudget
		}
		c.after = c.lockTimeout // what the interval follows from
	}
	if c.interval == 0 {
		c.interval = min(max(c.after/5, 10*time.Millisecond), maxInterval)
	}
	if c.lockTimeout > 0 {
		// A wait that lock_timeout ends must be seen before, or the error names nobody.
		c.interval = min(c.interval, max(c.lockTimeout/looksPerWait, minInterval))
	}
	return c, nil
}

// most returns the longest pause between two looks: no longer than the grace, which
// would be over unseen, nor than the wait that lock_timeout allows.
func (c *config) most() time.Duration {
	if c.lockTimeout > 0 {
		return min(c.after, c.lockTimeout/looksPerWait)
	}
	return c.after
}

func (c *config) allows(kind Kind) bool { return slices.Contains(c.allowed, kind) }

func (c *config) emit(e Event) {
	e.Time = time.Now()
	for _, f := range c.onEvent {
		f(e)
	}
}
