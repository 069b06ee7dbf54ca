package feed_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pglock-go/pglock/feed"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// A reader is a fake server: each reading takes a time and may fail.
type reader struct {
	took, cost time.Duration

	mu      sync.Mutex
	err     error
	reading bool
	began   []time.Duration // since the beginning of the test
	start   time.Time
	t       *testing.T
}

func newReader(t *testing.T) *reader { return &reader{t: t, start: time.Now()} }

func (r *reader) read(ctx context.Context) (int, time.Duration, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.reading {
		r.t.Error("two readings at once")
	}
	r.reading = true
	defer func() { r.reading = false }()
	r.began = append(r.began, time.Since(r.start))
	r.mu.Unlock()
	select {
	case <-ctx.Done():
	case <-time.After(r.took):
	}
	r.mu.Lock()
	return len(r.began), r.cost, r.err
}

// readings returns when each reading began.
func (r *reader) readings() []time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.began)
}

// fail sets the error of the readings that follow.
func (r *reader) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err = err
}

// run starts a feed of r, and returns what ends it and waits for that.
func (r *reader) run(every time.Duration) (f *feed.Feed[int], stop func() error) {
	f = feed.New(r.read, every)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	return f, func() error {
		cancel()
		return <-done
	}
}

// The beginnings of readings are an interval apart, and further if reading would otherwise
// take more than 5 % of a backend, or if it fails again and again.
func TestInterval(t *testing.T) {
	s, ms := time.Second, time.Millisecond
	for name, test := range map[string]struct {
		every, took, cost time.Duration
		err               error
		want              []time.Duration
	}{
		"cheap":          {s, 10 * ms, 10 * ms, nil, []time.Duration{0, s, 2 * s, 3 * s}},
		"just":           {s, 50 * ms, 50 * ms, nil, []time.Duration{0, s, 2 * s}},
		"expensive":      {s, 100 * ms, 100 * ms, nil, []time.Duration{0, s, 3 * s, 5 * s}},
		"very expensive": {s, 10 * s, 10 * s, nil, []time.Duration{0, 20 * s, 220 * s, 420 * s}},
		"slow to connect": { // which does not count as the backend's work
			s, 3 * s, 10 * ms, nil, []time.Duration{0, 3*s + 10*ms, 6*s + 200*ms},
		},
		"failing": {s, 0, 0, errors.New("x"), []time.Duration{0, s, 3 * s, 7 * s, 12 * s, 17 * s}},
		"failing after a long time": {
			s, 100 * ms, 100 * ms, errors.New("x"), []time.Duration{0, s, 3 * s, 7 * s},
		},
		"seldom and failing": {time.Minute, 0, 0, errors.New("x"), []time.Duration{0, 60 * s, 120 * s, 180 * s}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newReader(t)
				r.took, r.cost, r.err = test.took, test.cost, test.err
				f, stop := r.run(test.every)
				time.Sleep(test.want[len(test.want)-1] + ms)
				synctest.Wait()
				if err := stop(); !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
				if got := r.readings(); !slices.Equal(got, test.want) {
					t.Fatalf("read at %v, want %v", got, test.want)
				}
				if _, err := f.Next(t.Context(), 1000); !errors.Is(err, feed.ErrEnded) {
					t.Errorf("after the end: %v", err)
				}
			})
		})
	}
}

// A success ends the row of failures, whose frames have an error and no value.
func TestRecovery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReader(t)
		r.fail(errors.New("x"))
		f, stop := r.run(time.Second)
		defer stop()
		time.Sleep(3500 * time.Millisecond) // read at 0, 1 and 3
		frame, err := f.Next(t.Context(), 0)
		if err != nil || frame.Sequence != 3 || frame.Err == nil || frame.Value != 0 || frame.Pause != 4*time.Second {
			t.Errorf("%+v, %v", frame, err)
		}
		r.fail(nil)
		time.Sleep(4 * time.Second) // at 7
		frame, err = f.Next(t.Context(), 3)
		if err != nil || frame.Err != nil || frame.Value != 4 || frame.Pause != time.Second {
			t.Errorf("%+v, %v", frame, err)
		}
	})
}

// A slow reader gets the newest frame, and a fast one gets each.
func TestSlowReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReader(t)
		f, stop := r.run(time.Second)
		counts := make(chan []int64)
		for _, pause := range []time.Duration{0, 2500 * time.Millisecond} {
			go func() {
				var got []int64
				for frame := range f.Frames(context.Background()) {
					got = append(got, frame.Sequence)
					time.Sleep(pause)
				}
				counts <- got
			}()
		}
		time.Sleep(9500 * time.Millisecond)
		if n := len(r.readings()); n != 10 {
			t.Errorf("%d readings: a slow reader slows down the others", n)
		}
		_ = stop()
		for range 2 {
			got := <-counts
			for i, sequence := range got {
				switch {
				case i > 0 && sequence <= got[i-1]:
					t.Errorf("not newer: %v", got)
				case len(got) == 10 && sequence != int64(i+1):
					t.Errorf("skips: %v", got)
				}
			}
			if len(got) != 10 && len(got) != 5 { // 1, 3, 6, 8, 10
				t.Errorf("got %v", got)
			}
		}
	})
}

// An interval that changes counts at once, and 0 pauses.
func TestSetInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReader(t)
		f, stop := r.run(time.Hour)
		defer stop()
		wait := func(d time.Duration, want int) {
			t.Helper()
			time.Sleep(d)
			synctest.Wait()
			if n := len(r.readings()); n != want {
				t.Fatalf("%d readings, want %d", n, want)
			}
		}
		wait(time.Minute, 1)
		f.SetInterval(2 * time.Minute)
		wait(59*time.Second, 1)
		wait(2*time.Second, 2)
		f.SetInterval(0)
		wait(24*time.Hour, 2)
		f.SetInterval(time.Minute)
		wait(time.Second, 3)
	})
}

// Next ends with ctx, also if no frame ever comes.
func TestNextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReader(t)
		r.took = time.Hour
		f, stop := r.run(time.Second)
		defer stop()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := f.Next(ctx, 0); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		for range f.Frames(ctx) {
			t.Error("a frame")
		}
	})
}
