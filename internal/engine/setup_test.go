package engine

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A bench is a fake server with a transit time of half a millisecond each way, in a
// synctest bubble, with helpers for tests.
type bench struct {
	*testing.T
	*server
	faults []func(b *backend, st *statement) (fault, bool) // the first that applies is used
}

const (
	transit = 500 * time.Microsecond
	trip    = 2 * transit
)

var (
	one = Key{ID: 1}
	two = Key{ID: 2}
)

func inBubble(t *testing.T, f func(t *bench)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &bench{T: t, server: newServer()}
		b.fault = b.faultOf
		t.Cleanup(func() {
			time.Sleep(time.Minute)
			b.server.mu.Lock()
			defer b.server.mu.Unlock()
			for _, wrong := range b.wrongs {
				t.Errorf("the session was misused: %s", wrong)
			}
			if len(b.locks) > 0 && !t.Failed() {
				t.Errorf("locks are left: %v", b.locks)
			}
			if t.Failed() {
				t.Log("\n" + strings.Join(b.trace, "\n"))
			}
		})
		f(b)
	})
}

func (t *bench) faultOf(b *backend, st *statement) fault {
	t.server.mu.Lock()
	defer t.server.mu.Unlock()
	f := fault{}
	for _, try := range t.faults {
		if got, ok := try(b, st); ok {
			f = got
			break
		}
	}
	f.there += transit
	f.back += transit
	return f
}

// once injects f into the n-th statement from now on (the first is 1) whose
// [statement.String] starts with begins.
func (t *bench) once(n int, begins string, f fault) {
	t.server.mu.Lock()
	defer t.server.mu.Unlock()
	t.faults = append(t.faults, func(_ *backend, st *statement) (fault, bool) {
		if strings.HasPrefix(st.String(), begins) {
			n--
			return f, n == 0
		}
		return fault{}, false
	})
}

func (t *bench) always(begins string, f fault) {
	t.server.mu.Lock()
	defer t.server.mu.Unlock()
	t.faults = append(t.faults, func(_ *backend, st *statement) (fault, bool) {
		return f, strings.HasPrefix(st.String(), begins)
	})
}

// engine returns a new Engine, which stands for one process.
func (t *bench) engine(change ...func(*Config)) *Engine {
	config := Config{
		Open: t.open, Sessions: 8, Slice: 750 * time.Millisecond, HandOver: 25 * time.Millisecond, Heartbeat: 10 * time.Second,
	}
	for _, f := range change {
		f(&config)
	}
	e := New(config)
	t.Cleanup(func() { e.Close() })
	return e
}

func sessions(n int) func(*Config)           { return func(c *Config) { c.Sessions = n } }
func handOver(d time.Duration) func(*Config) { return func(c *Config) { c.HandOver = d } }

// acquire acquires the lock without a time limit.
func (t *bench) acquire(e *Engine, key Key, mode Mode) *Hold {
	t.Helper()
	h, err := e.Acquire(t.Context(), key, mode, Wait{})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// A request is a running Acquire.
type request struct {
	hold   *Hold
	err    error
	took   time.Duration // how long it took
	done   chan struct{}
	cancel context.CancelFunc
}

// start starts a request and lets it run until it blocks.
func (t *bench) start(e *Engine, key Key, mode Mode, wait Wait) *request {
	ctx, cancel := context.WithCancel(context.Background())
	r := &request{done: make(chan struct{}), cancel: cancel}
	began := time.Now()
	go func() {
		defer close(r.done)
		r.hold, r.err = e.Acquire(ctx, key, mode, wait)
		r.took = time.Since(began)
	}()
	synctest.Wait()
	return r
}

func (r *request) finished() bool {
	synctest.Wait()
	select {
	case <-r.done:
		return true
	default:
		return false
	}
}

func (t *bench) wantErr(err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("got error %v, want %v", err, want)
	}
}

func (t *bench) must(err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// grantedWithin checks that a request is granted within d, and releases the lock.
func (t *bench) grantedWithin(r *request, d time.Duration) {
	t.Helper()
	select {
	case <-r.done:
		t.must(r.err)
		t.must(r.hold.Release())
	case <-time.After(d):
		t.Errorf("not granted within %v", d)
		r.cancel()
		if <-r.done; r.err == nil {
			r.hold.Release()
		}
	}
}

// An outsider is another process, with one session that does not use the engine.
type outsider struct {
	t *bench
	b *backend
}

func (t *bench) outsider() *outsider {
	c, _ := t.open(context.Background())
	o := &outsider{t, c.(*backend)}
	o.b.timeout = time.Hour
	t.Cleanup(func() { o.b.Close() })
	return o
}

func (o *outsider) try(key Key, mode Mode) bool {
	o.t.server.mu.Lock()
	defer o.t.server.mu.Unlock()
	return o.t.server.try(o.b, key, mode)
}

func (o *outsider) unlock(key Key, mode Mode) {
	o.t.Helper()
	o.t.server.mu.Lock()
	defer o.t.server.mu.Unlock()
	if !o.t.server.unlock(o.b, key, mode) {
		o.t.Errorf("the outsider does not hold %v", key)
	}
}

// wait starts to wait for the lock, and sends the time of the grant.
func (o *outsider) wait(key Key, mode Mode) (granted chan time.Time) {
	granted = make(chan time.Time, 1)
	go func() {
		o.t.server.mu.Lock()
		defer o.t.server.mu.Unlock()
		o.b.active = true
		if err := o.b.wait(key, mode); err == nil {
			granted <- time.Now()
		}
	}()
	synctest.Wait()
	return granted
}

// held returns the PIDs of the backends that hold the key.
func (t *bench) held(key Key) (pids []int32) {
	t.server.mu.Lock()
	defer t.server.mu.Unlock()
	if l := t.server.locks[key]; l != nil {
		for b := range l.held {
			pids = append(pids, b.pid)
		}
	}
	slices.Sort(pids)
	return pids
}

func (t *bench) waiters(key Key) int {
	t.server.mu.Lock()
	defer t.server.mu.Unlock()
	if l := t.server.locks[key]; l != nil {
		return len(l.queue)
	}
	return 0
}

// free checks that another process can acquire the key.
func (t *bench) free(key Key) {
	t.Helper()
	o := t.outsider()
	if !o.try(key, Exclusive) {
		t.Errorf("%v is not free: held by %v, %d wait", key, t.held(key), t.waiters(key))
		return
	}
	o.unlock(key, Exclusive)
}

func (t *bench) stats(e *Engine, held, waiting int) {
	t.Helper()
	if s := e.Stats(); s.Held != held || s.Waiting != waiting {
		t.Errorf("want %d held and %d waiting: %+v", held, waiting, s)
	}
}

// count counts the statements that start with begins.
func (t *bench) count(begins string) (n int) {
	for _, line := range t.lines() {
		if strings.HasPrefix(line, begins) {
			n++
		}
	}
	return n
}

// lines returns the trace without times and PIDs.
func (t *bench) lines() (lines []string) {
	t.server.mu.Lock()
	defer t.server.mu.Unlock()
	for _, line := range t.trace {
		lines = append(lines, strings.SplitN(line, " ", 3)[2])
	}
	return lines
}
