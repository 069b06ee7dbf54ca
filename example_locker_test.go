package pglock_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/pgxlock"
)

// A program needs one Locker.
func ExampleNew() {
	pool, end := examplePool() // the application's *pgxpool.Pool
	defer end()

	locker, err := pglock.New(pgxlock.Pool(pool),
		pglock.Heartbeat(5*time.Second), // the defaults are good, too
		pglock.Logger(slog.Default()),
	)
	if err != nil {
		panic(err)
	}
	defer locker.Close()

	err = locker.Do(context.Background(), pglock.Name("nightly-report"), func(ctx context.Context) error {
		fmt.Println("the only one")
		return nil
	})
	if err != nil {
		panic(err)
	}
	// Output: the only one
}

// A function that runs on one machine at a time.
func ExampleLocker_Do() {
	ctx := context.Background()
	locker, other, end := exampleLockers()
	defer end()

	err := locker.Do(ctx, pglock.Name("nightly-report"), func(ctx context.Context) error {
		fmt.Println("reporting")

		// Meanwhile, on another machine:
		err := other.Do(ctx, pglock.Name("nightly-report"), func(context.Context) error {
			fmt.Println("never")
			return nil
		}, pglock.NoWait())
		fmt.Println(errors.Is(err, pglock.ErrNotAcquired))
		return nil
	})
	fmt.Println(err)
	// Output:
	// reporting
	// true
	// <nil>
}

// The ctx of the function is canceled when its lock is lost. Here an administrator
// terminates the session.
func ExampleLocker_Do_loss() {
	ctx := context.Background()
	pool, end := examplePool()
	defer end()
	locker, err := pglock.New(pgxlock.Pool(pool))
	if err != nil {
		panic(err)
	}
	defer locker.Close()

	err = locker.Do(ctx, pglock.Name("nightly-report"), func(ctx context.Context) error {
		// Not with this ctx, which may well end before the answer comes.
		_, err := pool.Exec(context.Background(), `SELECT pg_terminate_backend(pid) FROM pg_locks
			WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`)
		if err != nil {
			return err
		}
		select {
		case <-ctx.Done(): // stop: another session may hold the lock now
			fmt.Println("inside:", errors.Is(context.Cause(ctx), pglock.ErrLost))
			return ctx.Err()
		case <-time.After(time.Minute):
			return nil // the work is done
		}
	})
	fmt.Println("outside:", errors.Is(err, pglock.ErrLost))
	// Output:
	// inside: true
	// outside: true
}

// Skip work that another machine is already doing.
func ExampleSkipIfHeld() {
	ctx := context.Background()
	locker, other, end := exampleLockers()
	defer end()
	held, err := other.Lock(ctx, pglock.Name("nightly-report"))
	if err != nil {
		panic(err)
	}

	report := func(context.Context) error {
		fmt.Println("reporting")
		return nil
	}
	err = locker.Do(ctx, pglock.Name("nightly-report"), report, pglock.SkipIfHeld())
	fmt.Println("skipped:", err)

	held.Unlock()
	err = locker.Do(ctx, pglock.Name("nightly-report"), report, pglock.SkipIfHeld())
	fmt.Println("done:", err)
	// Output:
	// skipped: <nil>
	// reporting
	// done: <nil>
}

// A handle, for a lock that is not bound to a function.
func ExampleLocker_Lock() {
	ctx := context.Background()
	locker, _, end := exampleLockers()
	defer end()

	lock, err := locker.Lock(ctx, pglock.Name("device-7"))
	if err != nil {
		panic(err)
	}
	fmt.Println("held:", lock.Err() == nil)

	err = lock.Unlock()
	fmt.Println("unlocked:", err)
	fmt.Println("again:", errors.Is(lock.Unlock(), pglock.ErrNotHeld))
	// Output:
	// held: true
	// unlocked: <nil>
	// again: true
}

// TryLock does not wait.
func ExampleLocker_TryLock() {
	ctx := context.Background()
	locker, other, end := exampleLockers()
	defer end()

	lock, err := locker.TryLock(ctx, pglock.Name("device-7"))
	if err != nil {
		panic(err)
	}
	defer lock.Unlock()

	_, err = other.TryLock(ctx, pglock.Name("device-7"))
	switch {
	case err == nil:
		fmt.Println("had")
	case errors.Is(err, pglock.ErrNotAcquired):
		fmt.Println("another holds it")
	default:
		fmt.Println("something is wrong:", err)
	}
	// Output: another holds it
}

// A handle also reports the loss of its lock.
func ExampleLock_Done() {
	ctx := context.Background()
	pool, end := examplePool()
	defer end()
	locker, err := pglock.New(pgxlock.Pool(pool))
	if err != nil {
		panic(err)
	}
	defer locker.Close()

	lock, err := locker.Lock(ctx, pglock.Name("device-7"))
	if err != nil {
		panic(err)
	}
	defer lock.Unlock()

	if _, err := pool.Exec(ctx, `SELECT pg_terminate_backend($1)`, lock.PID()); err != nil {
		panic(err)
	}
	<-lock.Done()
	fmt.Println(errors.Is(lock.Err(), pglock.ErrLost))
	fmt.Println(errors.Is(lock.Unlock(), pglock.ErrLost))
	// Output:
	// true
	// true
}

// Any number of readers, or one writer.
func ExampleShared() {
	ctx := context.Background()
	locker, other, end := exampleLockers()
	defer end()

	one, err := locker.Lock(ctx, pglock.Name("catalog"), pglock.Shared())
	if err != nil {
		panic(err)
	}
	two, err := other.Lock(ctx, pglock.Name("catalog"), pglock.Shared())
	if err != nil {
		panic(err)
	}
	fmt.Println("two readers")

	_, err = other.TryLock(ctx, pglock.Name("catalog"))
	fmt.Println("no writer:", errors.Is(err, pglock.ErrNotAcquired))

	one.Unlock()
	two.Unlock()
	writer, err := other.TryLock(ctx, pglock.Name("catalog"))
	fmt.Println("a writer:", err)
	writer.Unlock()
	// Output:
	// two readers
	// no writer: true
	// a writer: <nil>
}

// Wait for a limited time. When it is over, the error is not ctx's.
func ExampleWait() {
	ctx := context.Background()
	locker, other, end := exampleLockers()
	defer end()
	held, err := other.Lock(ctx, pglock.Name("nightly-report"))
	if err != nil {
		panic(err)
	}
	defer held.Unlock()

	_, err = locker.Lock(ctx, pglock.Name("nightly-report"), pglock.Wait(500*time.Millisecond))
	fmt.Println(errors.Is(err, pglock.ErrNotAcquired), ctx.Err())

	// ctx bounds the wait as well. Then the error is also ctx's.
	ctx, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
	defer cancel()
	_, err = locker.Lock(ctx, pglock.Name("nightly-report"))
	fmt.Println(errors.Is(err, pglock.ErrNotAcquired), errors.Is(err, context.DeadlineExceeded))
	// Output:
	// true <nil>
	// true true
}

// The error lists the holders.
func ExampleError() {
	ctx := context.Background()
	locker, other, end := exampleLockers()
	defer end()
	held, err := other.Lock(ctx, pglock.Name("nightly-report"))
	if err != nil {
		panic(err)
	}
	defer held.Unlock()

	_, err = locker.Lock(ctx, pglock.Name("nightly-report"), pglock.NoWait())
	var failed *pglock.Error
	if errors.As(err, &failed) && errors.Is(err, pglock.ErrNotAcquired) {
		for _, holder := range failed.Holders {
			fmt.Println(holder.PID == held.PID(), holder.Application, holder.Mode)
		}
	}
	// Output: true pglock ExclusiveLock
}

// Several locks, all or none, in an order that prevents deadlocks.
func ExampleLocker_LockAll() {
	ctx := context.Background()
	locker, other, end := exampleLockers()
	defer end()

	accounts := []pglock.Key{pglock.Pair(1, 4711), pglock.Pair(1, 815)}
	lock, err := locker.LockAll(ctx, accounts)
	if err != nil {
		panic(err)
	}
	fmt.Println(lock.Keys())

	// The error names the key that was not acquired; no key is held then.
	_, err = other.LockAll(ctx, []pglock.Key{pglock.Pair(1, 1), pglock.Pair(1, 815)}, pglock.NoWait())
	var failed *pglock.Error
	fmt.Println(errors.As(err, &failed) && errors.Is(err, pglock.ErrNotAcquired), failed.Keys)

	fmt.Println(lock.Unlock())
	// Output:
	// [(1, 815) (1, 4711)]
	// true [(1, 815)]
	// <nil>
}

// DoAll is Do for several locks.
func ExampleLocker_DoAll() {
	ctx := context.Background()
	locker, _, end := exampleLockers()
	defer end()

	from, to := pglock.Name("account:1"), pglock.Name("account:2")
	err := locker.DoAll(ctx, []pglock.Key{from, to}, func(ctx context.Context) error {
		fmt.Println("moving")
		return nil
	}, pglock.Wait(time.Second))
	fmt.Println(err)
	// Output:
	// moving
	// <nil>
}

// Close cancels the ctx of running functions, and waits for them.
func ExampleLocker_Close() {
	ctx := context.Background()
	locker, _, end := exampleLockers()
	defer end()

	running, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		locker.Do(ctx, pglock.Name("nightly-report"), func(ctx context.Context) error {
			close(running)
			<-ctx.Done()
			fmt.Println("told to stop:", errors.Is(context.Cause(ctx), pglock.ErrClosed))
			return nil
		})
	}()
	<-running
	err := locker.Close()
	<-done
	fmt.Println("closed:", err)

	_, err = locker.TryLock(ctx, pglock.Name("nightly-report"))
	fmt.Println("no more locks:", errors.Is(err, pglock.ErrClosed))
	// Output:
	// told to stop: true
	// closed: <nil>
	// no more locks: true
}

// Counts for a program's metrics.
func ExampleLocker_Stats() {
	ctx := context.Background()
	locker, _, end := exampleLockers()
	defer end()

	keys := make([]pglock.Key, 1000)
	for i := range keys {
		keys[i] = pglock.Pair(7, int32(i))
	}
	lock, err := locker.LockAll(ctx, keys)
	if err != nil {
		panic(err)
	}
	stats := locker.Stats()
	fmt.Println(stats.Held, "locks on", stats.Sessions, "session")
	fmt.Println(lock.Unlock())
	// Output:
	// 1000 locks on 1 session
	// <nil>
}

// Log what happens to locks outside of any call.
func ExampleLogger() {
	log := slog.New(slog.NewJSONHandler(os.Stderr, nil))
	pool, end := examplePool()
	defer end()
	locker, err := pglock.New(pgxlock.Pool(pool), pglock.Logger(log))
	if err != nil {
		panic(err)
	}
	fmt.Println(locker.Close())
	// Output: <nil>
}

// A function that always runs under its lock, whatever its parameters and results are.
func ExampleLocker_Do_results() {
	ctx := context.Background()
	locker, _, end := exampleLockers()
	defer end()

	report := func(ctx context.Context, day int) (total int, err error) {
		err = locker.Do(ctx, pglock.Name("shop.report"), func(context.Context) error {
			total = 100 * day
			return nil
		})
		return total, err
	}
	fmt.Println(report(ctx, 7))
	// Output: 700 <nil>
}

// Several jobs, each under the lock of its name.
func ExampleLocker_Do_jobs() {
	ctx := context.Background()
	locker, _, end := exampleLockers()
	defer end()
	var err error
	rebuild := func(context.Context) error { fmt.Println("rebuilt"); return nil }
	report := func(context.Context) error { fmt.Println("reported"); return nil }

	jobs := map[string]func(context.Context) error{"shop.rebuild": rebuild, "shop.report": report}
	for name, job := range jobs {
		err = locker.Do(ctx, pglock.Name(name), job, pglock.SkipIfHeld())
	}
	fmt.Println(err)
	// Unordered output:
	// rebuilt
	// reported
	// <nil>
}

// One statement reports which of many locks are held, for example to enqueue only the
// jobs that do not run already.
func ExampleLocker_Holders() {
	ctx := context.Background()
	locker, other, end := exampleLockers()
	defer end()
	held, err := other.Lock(ctx, pglock.Name("report-7"))
	if err != nil {
		panic(err)
	}
	defer held.Unlock()

	jobs := []pglock.Key{pglock.Name("report-7"), pglock.Name("nightly-report")}
	holders, err := locker.Holders(ctx, jobs...)
	for _, job := range jobs {
		if len(holders[job]) == 0 { // do not enqueue work that would be skipped
			fmt.Println("enqueue", job)
		}
	}
	if err != nil {
		panic(err)
	}
	for _, holder := range holders[pglock.Name("report-7")] {
		fmt.Println("report-7 runs in", holder.Application, holder.PID == held.PID())
	}
	// Output:
	// enqueue "nightly-report" (-8663603374018903193)
	// report-7 runs in pglock true
}
