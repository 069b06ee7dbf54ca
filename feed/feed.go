package feed

import (
	"context"
	"errors"
	"iter"
	"sync"
	"time"
)

// share is the part of a backend's time that reading may take: one twentieth.
const share = 20

// maxPause is how long a feed waits after errors, unless its interval is longer.
const maxPause = 5 * time.Second

// ErrEnded is returned by [Feed.Next] if [Feed.Run] has ended, so no frame follows.
var ErrEnded = errors.New("feed: the feed has ended")

// A Frame is one reading.
type Frame[T any] struct {
	Sequence int64 // counts the readings from 1; 0 is no frame

	// Value is what was read. Its zero value comes with an error.
	Value T
	Err   error

	At   time.Time     // when the reading ended, by the local clock
	Cost time.Duration // how long a backend worked for it

	// Pause is the time until the next reading begins: the interval, or more if the
	// reading was expensive or failed.
	Pause time.Duration
}

// A ReadFunc reads once. cost is how long a backend worked for it, without the time that
// connecting took. A Feed never calls it twice at once.
type ReadFunc[T any] func(ctx context.Context) (value T, cost time.Duration, err error)

// A Feed reads in an interval and hands out the newest frame. [Feed.Run] reads. All other
// methods may be called from any goroutine at any time.
type Feed[T any] struct {
	read ReadFunc[T]

	mu      sync.Mutex
	every   time.Duration // 0 if paused
	frame   Frame[T]      // the newest
	ended   bool
	changed chan struct{} // closed, and replaced, when frame or ended changes
	wake    chan struct{} // has something if every changed
}

// New returns a Feed that reads in an interval. The time between the beginnings of two
// readings is the interval, or more if that is needed to keep the load small. After the
// first reading, which is slower than those that follow, it is at least twice its cost.
func New[T any](read ReadFunc[T], every time.Duration) *Feed[T] {
	return &Feed[T]{read: read, every: every, changed: make(chan struct{}), wake: make(chan struct{}, 1)}
}

// Run reads until ctx is done, and returns its error. It must be called only once.
func (f *Feed[T]) Run(ctx context.Context) error {
	defer f.publish(func() { f.ended = true })
	failures := 0
	for n := int64(1); ; n++ {
		if err := f.awaitResumed(ctx); err != nil {
			return err
		}
		began := time.Now()
		value, cost, err := f.read(ctx)
		if ctx.Err() != nil {
			return ctx.Err() // the error of the reading is probably because of that
		}
		if err != nil {
			failures++
			value = *new(T)
		} else {
			failures = 0
		}
		frame := Frame[T]{Sequence: n, Value: value, Err: err, At: time.Now(), Cost: cost}
		frame.Pause = f.pause(began, frame, failures)
		f.publish(func() { f.frame = frame })
		if err := f.sleep(ctx, began, frame, failures); err != nil {
			return err
		}
	}
}

// pause returns how long to wait after a frame whose reading began at a time, and which is
// the last of as many failures.
func (f *Feed[T]) pause(began time.Time, frame Frame[T], failures int) time.Duration {
	every := f.Interval()
	if failures > 1 {
		// Double the interval with each failure: a server that restarts does not need us.
		for range min(failures-1, 10) {
			if every < maxPause {
				every = min(2*every, maxPause)
			}
		}
	}
	rest := (share - 1) * frame.Cost
	if frame.Sequence == 1 { // fills the caches of the session, so the others are cheaper
		rest = frame.Cost
	}
	return max(every-frame.At.Sub(began), rest, 0)
}

// sleep waits for the pause after a frame. If the interval changes meanwhile, the new one
// counts.
func (f *Feed[T]) sleep(ctx context.Context, began time.Time, frame Frame[T], failures int) error {
	for {
		timer := time.NewTimer(time.Until(frame.At.Add(f.pause(began, frame, failures))))
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C:
			return nil
		case <-f.wake:
			timer.Stop()
		}
		if err := f.awaitResumed(ctx); err != nil {
			return err
		}
	}
}

// awaitResumed waits while the feed is paused.
func (f *Feed[T]) awaitResumed(ctx context.Context) error {
	for f.Interval() <= 0 {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-f.wake:
		}
	}
	return ctx.Err()
}

// publish changes what readers see, and notifies them.
func (f *Feed[T]) publish(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
	close(f.changed)
	f.changed = make(chan struct{})
}

// Interval returns the interval, or 0 if the feed is paused.
func (f *Feed[T]) Interval() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.every
}

// SetInterval changes the interval. With 0 the feed pauses until it is changed again; a
// reading that has begun still ends.
func (f *Feed[T]) SetInterval(every time.Duration) {
	f.mu.Lock()
	f.every = every
	f.mu.Unlock()
	select {
	case f.wake <- struct{}{}:
	default: // it is known already that it changed
	}
}

// Next waits for a frame that is newer than the one with the given number, and returns the
// newest. With 0 it returns the newest one that exists. The error is that of ctx, or
// ErrEnded; an error of the reading is in the frame.
func (f *Feed[T]) Next(ctx context.Context, after int64) (Frame[T], error) {
	for {
		f.mu.Lock()
		frame, ended, changed := f.frame, f.ended, f.changed
		f.mu.Unlock()
		switch {
		case frame.Sequence > after:
			return frame, nil
		case ended:
			return Frame[T]{}, ErrEnded
		}
		select {
		case <-ctx.Done():
			return Frame[T]{}, ctx.Err()
		case <-changed:
		}
	}
}

// Frames yields each frame that is the newest when the loop asks for one, until ctx is done
// or Run has ended.
func (f *Feed[T]) Frames(ctx context.Context) iter.Seq[Frame[T]] {
	return func(yield func(Frame[T]) bool) {
		for after := int64(0); ; {
			frame, err := f.Next(ctx, after)
			if err != nil || !yield(frame) {
				return
			}
			after = frame.Sequence
		}
	}
}
