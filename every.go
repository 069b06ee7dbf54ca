package pglock

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pglock-go/pglock/internal/engine"
)

// Every makes [Locker.Do] run its function at most once in d in the whole fleet: the lease of
// the key cannot be taken again until d has passed since it was taken. The database's clock
// measures d, and it does not matter whether the holder crashes. It is for [Leases] only.
//
//	for ctx.Err() == nil {
//		err := locker.Do(ctx, pglock.Name("cleanup"), cleanup, pglock.Every(time.Hour))
//		...
//	}
//
// In such a loop on each machine, Do waits until the key is due, so together they run cleanup
// every hour. With [SkipIfHeld], Do skips a key that is not due and returns nil; with [NoWait]
// or at the end of [Wait] the error is [ErrNotAcquired], and [Error].Due is when the key is due.
//
// If the function returns an error, the key is due at once, so that another machine may try.
// If it panics, or the process crashes, it is due after d. If it runs for longer than d, the
// next run begins when it ends.
//
// d must be a millisecond or more. It is strict: for a job that a timer starts every hour, use
// a little less, such as 55 minutes, or a timer that is early skips a run. Each caller of a key
// sets d for those after it, and one without Every sets none. The largest duration means once
// and for all. In [Locker.DoAll] and together with [Slots] it is an error.
func Every(d time.Duration) DoOption {
	return anyOption{fmt.Sprintf("Every(%v)", d), func(r *request) error {
		if d < time.Millisecond {
			return errors.New("must be 1ms or more")
		}
		r.every, r.leaseOnly = d, "Every()"
		return nil
	}}
}

// dueAfterError returns a function that calls fn, and makes the lease due again if fn fails.
func dueAfterError(hold *engine.Hold, fn func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		err := fn(ctx)
		if err != nil {
			hold.Retry()
		}
		return err
	}
}
