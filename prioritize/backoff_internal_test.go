package prioritize

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/pglock-go/pglock"
)

func drawDuration(t *rapid.T, name string, from, to time.Duration) time.Duration {
	return time.Duration(rapid.Int64Range(int64(from), int64(to)).Draw(t, name))
}

func TestBackoff(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		first := drawDuration(t, "first", 1, time.Hour)
		longest := drawDuration(t, "longest", first, 1<<62)
		n := rapid.IntRange(0, 1000).Draw(t, "n")
		random := rapid.Float64Range(0, 0.999999).Draw(t, "random")
		d := backoff(n, first, longest, random)
		full := backoff(n, first, longest, 0)
		if d <= 0 || d > longest || d > full || d < full/2 {
			t.Fatalf("backoff is %v, of %v", d, full)
		}
		if next := backoff(n+1, first, longest, 0); next < full || next != longest && next != 2*full {
			t.Fatalf("after %v comes %v", full, next)
		}
		if n == 0 && full != first {
			t.Fatalf("the first is %v, want %v", full, first)
		}
	})
}

// However long the tries take, none begins after the budget, the number of tries is
// respected, and there is always a reason to stop.
func TestPatience(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		c := config{minBackoff: drawDuration(t, "min", 1, time.Minute)}
		c.maxBackoff = drawDuration(t, "max", c.minBackoff, time.Hour)
		if rapid.Bool().Draw(t, "budgeted") {
			c.budget = drawDuration(t, "budget", 1, time.Hour)
		}
		if c.budget == 0 || rapid.Bool().Draw(t, "counted") {
			c.tries = rapid.IntRange(1, 20).Draw(t, "tries")
		}
		var elapsed time.Duration
		for try := 1; ; try++ {
			if c.budget > 0 && elapsed > c.budget {
				t.Fatalf("try %d began at %v, the budget is %v", try, elapsed, c.budget)
			}
			if c.tries > 0 && try > c.tries {
				t.Fatalf("try %d of %d", try, c.tries)
			}
			elapsed += drawDuration(t, "took", 1, 10*time.Minute)
			pause, ok := c.nextPause(try, elapsed, rapid.Float64Range(0, 0.999999).Draw(t, "random"))
			if !ok {
				if (c.tries == 0 || try < c.tries) && (c.budget == 0 || elapsed < c.budget) {
					t.Fatalf("gave up after %d tries and %v", try, elapsed)
				}
				return
			}
			if pause <= 0 || pause > c.maxBackoff {
				t.Fatalf("a pause of %v", pause)
			}
			elapsed += pause
			if try > 100000 {
				return // tiny pauses and a long budget
			}
		}
	})
}

// lockTimeout is the error of an expired lock_timeout.
type lockTimeout struct{}

func (lockTimeout) Error() string    { return "lock timeout" }
func (lockTimeout) SQLState() string { return "55P03" }

func TestRetryInTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, err := newConfig(opRetry, []RetryOption{Budget(10 * time.Second), Backoff(time.Second, 4*time.Second)})
		if err != nil {
			t.Fatal(err)
		}
		began, tries := time.Now(), 0
		r := retrier{config: &c}
		err = r.run(t.Context(), func(context.Context) error {
			tries++
			time.Sleep(2 * time.Second)
			return lockTimeout{}
		})
		var e *Error
		if !errors.As(err, &e) || e.Tries != tries || !errors.Is(err, lockTimeout{}) {
			t.Fatalf("got %v", err)
		}
		// Tries at 0, 2.5-3, 5.5-7, 9.5-10 and at the very end of the budget at most.
		if took := time.Since(began); took < 10*time.Second || took > 12*time.Second || e.Elapsed != took {
			t.Errorf("took %v, and says %v", took, e.Elapsed)
		}
		if tries < 4 || tries > 5 {
			t.Errorf("%d tries", tries)
		}
	})
}

func TestRetryContextInThePause(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, err := newConfig(opRetry, []RetryOption{Backoff(time.Hour, time.Hour)})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		r := retrier{config: &c}
		err = r.run(ctx, func(context.Context) error { return pglock.ErrNotAcquired })
		if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, pglock.ErrNotAcquired) {
			t.Errorf("got %v", err)
		}
		if took := time.Since(began); took != time.Second {
			t.Errorf("took %v", took)
		}
	})
}
