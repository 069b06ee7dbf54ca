package prioritize

import (
	"fmt"
	"testing"
	"time"
)

// reaction returns how long after the grace of 1 s a blocker was signaled. The
// blocker comes 1 ms after the watcher has sent the poll that is answered slowly.
func reaction(t *testing.T, old bool, one, all time.Duration) (past time.Duration) {
	t.Helper()
	in(t, func(t *testing.T, f *fakeServer) {
		f.noWaitStart, f.stale, f.answerTime = old, true, all
		var came time.Time
		f.run(t, func() {
			time.Sleep(10*time.Second - time.Millisecond)
			f.mu.Lock()
			asked := f.queries
			f.nextAnswerTime = one
			f.mu.Unlock()
			for on := false; !on; { // until the question is on its way
				time.Sleep(time.Millisecond)
				f.mu.Lock()
				on = f.queries > asked
				f.mu.Unlock()
			}
			came = time.Now()
			f.arrive(2, fakeBlocker{})
			time.Sleep(time.Minute)
		}, After(time.Second), Terminate())
		if len(f.signals) != 1 {
			t.Fatalf("signals: %v", f.signals)
		}
		past = f.signals[0].at.Sub(came) - time.Second
	})
	return past
}

// A single slow answer delays the watcher by its own time, not by a multiple of it:
// the next pause is unchanged. If all answers are slow, the pause is never longer
// than the grace.
func TestReactionToSlowAnswers(t *testing.T) {
	for _, test := range []struct {
		what      string
		one, all  time.Duration
		most, old time.Duration // past the grace: from Postgres 14 on, and before
	}{
		{"all answers at once", 0, 0, 0, 200 * time.Millisecond},
		{"one of 50 ms", 50 * time.Millisecond, 0, 0, 250 * time.Millisecond},
		{"one of 500 ms", 500 * time.Millisecond, 0, 0, 700 * time.Millisecond},
		{"one of 3 s", 3 * time.Second, 0, 2200 * time.Millisecond, 3200 * time.Millisecond},
		{"all of 50 ms", 0, 50 * time.Millisecond, 300 * time.Millisecond, 700 * time.Millisecond},
		{"all of 200 ms", 0, 200 * time.Millisecond, 1400 * time.Millisecond, 1800 * time.Millisecond},
	} {
		for _, old := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, old server %v", test.what, old), func(t *testing.T) {
				past := reaction(t, old, test.one, test.all)
				most := test.most
				if old {
					most = test.old
				}
				t.Logf("%v past the grace", past)
				if past < 0 || past > most {
					t.Errorf("%v past the grace, want at most %v", past, most)
				}
			})
		}
	}
}
