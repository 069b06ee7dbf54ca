package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pglock-go/pglock/internal/sqlstate"
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
	t.server.mu.Lock()
	defer t.server.mu.Unlock()
	for _, line := range t.trace {
		if fields := strings.SplitN(line, " ", 3); strings.HasPrefix(fields[2], begins) {
			n++
		}
	}
	return n
}

// Within the process, a lock is handed over until HandOver is over. Then other processes
// get their turn, and lose it in the same way.
func TestHandOverIsBounded(t *testing.T) {
	for _, bound := range []time.Duration{0, 5 * time.Millisecond, 25 * time.Millisecond} {
		t.Run(bound.String(), func(t *testing.T) {
			inBubble(t, func(t *bench) {
				e := t.engine(handOver(bound))
				var wg sync.WaitGroup
				stop := time.Now().Add(300 * time.Millisecond)
				for range 4 {
					wg.Go(func() {
						for time.Now().Before(stop) {
							h := t.acquire(e, one, Exclusive)
							time.Sleep(time.Millisecond)
							t.must(h.Release())
						}
					})
				}
				time.Sleep(100 * time.Millisecond)
				before, unlocks := e.Stats(), t.count("x1")
				began, o := time.Now(), t.outsider()
				took := (<-o.wait(one, Exclusive)).Sub(began)
				if most := bound + time.Millisecond + trip + time.Millisecond; took > most {
					t.Errorf("another process waited %v, more than %v", took, most)
				}
				o.unlock(one, Exclusive)
				wg.Wait()
				// No other process wanted it for 100 ms: that cost a round trip with an
				// unlock at the end of each bound, five to open the session, and no turn.
				if most := int(100*time.Millisecond/(bound+2*time.Millisecond)) + 8; unlocks > most {
					t.Errorf("%d unlocks in 100 ms, with %d hand-overs", unlocks, before.HandOvers)
				}
				if bound > 0 && before.HandOvers < before.Acquired/2 || bound == 0 && before.HandOvers > 0 {
					t.Errorf("%d hand-overs for %d locks", before.HandOvers, before.Acquired)
				}
			})
		})
	}
}

func TestFirstComeFirstServed(t *testing.T) {
	inBubble(t, func(t *bench) {
		e, o := t.engine(), t.outsider()
		o.try(one, Exclusive)
		var mu sync.Mutex
		var order []int
		var wg sync.WaitGroup
		for i := range 20 {
			mode := Mode(i / 5 % 2)
			r := t.start(e, one, mode, Wait{})
			wg.Go(func() {
				<-r.done
				t.must(r.err)
				mu.Lock()
				order = append(order, i/5)
				mu.Unlock()
				time.Sleep(3 * time.Millisecond)
				t.must(r.hold.Release())
			})
			time.Sleep(time.Millisecond)
		}
		o.unlock(one, Exclusive)
		wg.Wait()
		if !slices.IsSorted(order) || len(order) != 20 {
			t.Errorf("served in the order %v", order)
		}
	})
}

// Readers join the holders of a shared lock: at first without a probe, later after a
// probe whether that keeps other sessions waiting.
func TestReadersJoin(t *testing.T) {
	inBubble(t, func(t *bench) {
		e, o := t.engine(), t.outsider()
		first := t.acquire(e, one, Shared)
		trips := e.Stats().RoundTrips
		second := t.acquire(e, one, Shared)
		if n := e.Stats().RoundTrips - trips; n != 0 {
			t.Errorf("joining at once took %d round trips", n)
		}
		t.must(second.Release())
		time.Sleep(30 * time.Millisecond)
		t.must(t.acquire(e, one, Shared).Release())
		if n := t.count("queued"); n != 1 {
			t.Errorf("%d queries of the waiters on the only session", n)
		}
		time.Sleep(30 * time.Millisecond) // now there is another session
		t.must(t.acquire(e, one, Shared).Release())
		if n := t.count("locks Q1"); n != 1 {
			t.Errorf("%d probes", n)
		}

		// A writer in another process gets its turn before later readers.
		time.Sleep(30 * time.Millisecond)
		turn := o.wait(one, Exclusive)
		_, err := e.Acquire(t.Context(), one, Shared, Wait{No: true})
		t.wantErr(err, ErrNotAcquired)
		late := t.start(e, one, Shared, Wait{})
		time.Sleep(100 * time.Millisecond)
		if late.finished() {
			t.Fatal("a reader overtook the writer")
		}
		t.must(first.Release())
		<-turn
		if late.finished() {
			t.Fatal("a reader holds it together with the writer")
		}
		o.unlock(one, Exclusive)
		t.grantedWithin(late, 10*time.Millisecond)
	})
}

// A waiting writer may give up, in this process or in another. The readers behind it then
// join the holders.
func TestReadersJoinWhenTheWriterGivesUp(t *testing.T) {
	t.Run("here", func(t *testing.T) {
		inBubble(t, func(t *bench) {
			e := t.engine()
			reader := t.acquire(e, one, Shared)
			writer := t.start(e, one, Exclusive, Wait{})
			behind := t.start(e, one, Shared, Wait{})
			time.Sleep(time.Second)
			if behind.finished() {
				t.Error("a reader overtook the writer")
			}
			writer.cancel()
			t.grantedWithin(behind, time.Second)
			t.must(reader.Release())
		})
	})
	t.Run("elsewhere", func(t *testing.T) {
		inBubble(t, func(t *bench) {
			e, o := t.engine(), t.outsider()
			reader := t.acquire(e, one, Shared)
			time.Sleep(30 * time.Millisecond)
			o.wait(one, Exclusive)
			behind := t.start(e, one, Shared, Wait{})
			time.Sleep(time.Second)
			if behind.finished() {
				t.Error("a reader overtook the writer")
			}
			o.b.Close()
			t.grantedWithin(behind, time.Second)
			t.must(reader.Release())
		})
	})
}

// With one session there is no other to probe on. The session that holds the lock queries
// the waiters, and a writer in another process still gets its turn.
func TestReadersJoinOnOneSession(t *testing.T) {
	inBubble(t, func(t *bench) {
		e, o := t.engine(sessions(1)), t.outsider()
		first := t.acquire(e, one, Shared)
		time.Sleep(time.Second)
		t.must(t.acquire(e, one, Shared).Release())
		time.Sleep(time.Second)
		turn := o.wait(one, Exclusive)
		late := t.start(e, one, Shared, Wait{})
		time.Sleep(100 * time.Millisecond)
		if late.finished() {
			t.Fatal("a reader overtook the writer")
		}
		t.must(first.Release())
		<-turn
		o.unlock(one, Exclusive)
		t.grantedWithin(late, time.Second)
	})
}

// A probe takes the lock for an instant. Release returns only after that.
func TestReleaseWaitsForTheProbe(t *testing.T) {
	inBubble(t, func(t *bench) {
		e := t.engine()
		first := t.acquire(e, one, Shared)
		time.Sleep(30 * time.Millisecond)
		t.must(t.acquire(e, one, Shared).Release()) // opens a session to probe on
		time.Sleep(30 * time.Millisecond)
		t.once(1, "locks Q1", fault{takes: 40 * time.Millisecond})
		join := t.start(e, one, Shared, Wait{})
		time.Sleep(trip)
		began := time.Now()
		t.must(first.Release())
		if time.Since(began) < 20*time.Millisecond {
			t.Errorf("released after %v, while the probe was running", time.Since(began))
		}
		t.grantedWithin(join, 10*time.Millisecond)
		t.free(one)
	})
}

func TestNoWait(t *testing.T) {
	inBubble(t, func(t *bench) {
		e, o := t.engine(), t.outsider()

		// While the lock is being unlocked, it will be free in a moment.
		h := t.acquire(e, one, Exclusive)
		go h.Release()
		synctest.Wait()
		r := t.start(e, one, Exclusive, Wait{No: true})
		t.grantedWithin(r, 10*time.Millisecond)

		// While it is tried exclusively, a reader may still get it.
		o.try(one, Shared)
		writer := t.start(e, one, Exclusive, Wait{No: true})
		reader := t.start(e, one, Shared, Wait{No: true})
		<-writer.done
		t.wantErr(writer.err, ErrNotAcquired)
		t.grantedWithin(reader, 10*time.Millisecond)

		// Of two that try, one gets it.
		o.unlock(one, Shared)
		first := t.start(e, one, Exclusive, Wait{No: true})
		second := t.start(e, one, Exclusive, Wait{No: true})
		<-second.done
		t.wantErr(second.err, ErrNotAcquired)
		<-first.done
		t.must(first.err)
		_, err := e.Acquire(t.Context(), one, Shared, Wait{No: true})
		t.wantErr(err, ErrNotAcquired)
		t.must(first.hold.Release())

		// While another process holds it, no request without waiting waits.
		o.try(one, Exclusive)
		waiting := t.start(e, one, Exclusive, Wait{})
		time.Sleep(20 * time.Millisecond)
		_, err = e.Acquire(t.Context(), one, Exclusive, Wait{No: true})
		t.wantErr(err, ErrNotAcquired)
		o.unlock(one, Exclusive)
		t.grantedWithin(waiting, 10*time.Millisecond)
	})
}

// The first request in the queue gives up, and the next one wants another mode.
func TestModeChangesInTheQueue(t *testing.T) {
	inBubble(t, func(t *bench) {
		e, o := t.engine(), t.outsider()
		o.try(one, Shared)
		writer := t.start(e, one, Exclusive, Wait{})
		reader := t.start(e, one, Shared, Wait{})
		time.Sleep(100 * time.Millisecond)
		if writer.finished() || reader.finished() || t.waiters(one) != 1 {
			t.Fatal("the writer should wait in Postgres, and the reader behind it")
		}
		writer.cancel()
		t.grantedWithin(reader, 20*time.Millisecond)
		<-writer.done
		t.wantErr(writer.err, ErrNotAcquired)
		t.wantErr(writer.err, context.Canceled)
		t.stats(e, 0, 0)
		if t.waiters(one) != 0 {
			t.Error("the session still waits for the writer")
		}
		o.unlock(one, Shared)
	})
}

// If more keys have waiting requests than there are sessions to wait on, they take turns.
func TestPolling(t *testing.T) {
	inBubble(t, func(t *bench) {
		e, o := t.engine(sessions(2)), t.outsider()
		var keys []Key
		var requests []*request
		for i := range 4 {
			key := Key{ID: int64(i)}
			keys = append(keys, key)
			o.try(key, Exclusive)
			requests = append(requests, t.start(e, key, Exclusive, Wait{}))
		}
		waited := make(map[Key]bool)
		for range 40 {
			time.Sleep(100 * time.Millisecond)
			waiting := 0
			for _, key := range keys {
				if t.waiters(key) > 0 {
					waited[key] = true
					waiting++
				}
			}
			if waiting > 1 {
				t.Errorf("%d sessions wait, and none is left for other requests", waiting)
			}
		}
		if len(waited) != len(keys) {
			t.Errorf("only %v were waited for in Postgres", waited)
		}
		for i, r := range requests {
			if t.waiters(keys[i]) == 0 {
				o.unlock(keys[i], Exclusive)
				t.grantedWithin(r, pollInterval+10*time.Millisecond)
			} else {
				defer func() {
					o.unlock(keys[i], Exclusive)
					t.grantedWithin(r, 10*time.Millisecond)
				}()
			}
		}
	})
}

// Two other processes pass the lock to each other and never leave Postgres' lock queue. A
// new wait loses its place there, so waits grow until this process gets its turn. A wait
// that keeps another session waiting is ended and started again.
func TestWaitsGrowBesideOthers(t *testing.T) {
	inBubble(t, func(t *bench) {
		e := t.engine()
		stop := make(chan struct{})
		var others sync.WaitGroup
		for i := range 2 {
			o := t.outsider()
			time.Sleep(time.Duration(i) * 100 * time.Millisecond)
			others.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					<-o.wait(one, Exclusive)
					time.Sleep(time.Second)
					o.unlock(one, Exclusive)
				}
			})
		}
		time.Sleep(time.Second)
		r := t.start(e, one, Exclusive, Wait{For: time.Minute})
		<-r.done
		close(stop)
		t.must(r.err)
		t.must(r.hold.Release())
		others.Wait()
	})
}

// Another session waits for the end of our long wait, as CREATE INDEX CONCURRENTLY does.
// The wait ends within Postgres' deadlock_timeout.
func TestLongWaitsEndWhenAwaited(t *testing.T) {
	inBubble(t, func(t *bench) {
		e, o := t.engine(), t.outsider()
		h := t.acquire(e, two, Exclusive) // opens a session to check from
		o.try(one, Exclusive)
		r := t.start(e, one, Exclusive, Wait{})
		time.Sleep(20 * time.Millisecond)
		e.mu.Lock()
		e.locks[one].history = waitHistory{since: time.Now().Add(-time.Minute), turnover: true, sampled: true}
		e.mu.Unlock()
		time.Sleep(time.Second) // the next wait is a long one
		waiter := func() (pid int32) {
			e.mu.Lock()
			defer e.mu.Unlock()
			if long := e.longWaits(); len(long) == 1 {
				for pid = range long {
				}
			}
			return pid
		}
		pid := waiter()
		if pid == 0 {
			t.Fatal("no wait is long, so this test checks nothing")
		}
		t.server.mu.Lock()
		t.awaited = map[int32]bool{pid: true}
		t.server.mu.Unlock()
		time.Sleep(time.Second)
		if waiter() != 0 {
			t.Error("the wait continues")
		}
		o.unlock(one, Exclusive)
		t.grantedWithin(r, 10*time.Millisecond)
		t.must(h.Release())
	})
}

// A polling request gives up, and leaves nothing behind.
func TestPollerGivesUp(t *testing.T) {
	inBubble(t, func(t *bench) {
		e, o := t.engine(sessions(1)), t.outsider()
		h := t.acquire(e, two, Exclusive) // so this session cannot wait
		o.try(one, Exclusive)
		r := t.start(e, one, Exclusive, Wait{})
		time.Sleep(100*time.Millisecond + pollInterval/2)
		if t.waiters(one) != 0 {
			t.Fatal("a session that holds a lock waits")
		}
		r.cancel()
		synctest.Wait()
		if !r.finished() {
			t.Error("giving up between two tries took time")
		}
		o.unlock(one, Exclusive)
		time.Sleep(100 * time.Millisecond)
		t.free(one)
		t.must(h.Release())
		e.mu.Lock()
		defer e.mu.Unlock()
		if len(e.pollers) > 0 || len(e.locks) > 0 {
			t.Errorf("left: %d pollers, %d locks", len(e.pollers), len(e.locks))
		}
	})
}

// With one session, a wait delays other requests until the end of its slice, and giving
// up ends the session.
func TestOneSession(t *testing.T) {
	inBubble(t, func(t *bench) {
		e, o := t.engine(sessions(1)), t.outsider()
		o.try(one, Exclusive)
		waiting := t.start(e, one, Exclusive, Wait{})
		time.Sleep(100 * time.Millisecond)
		if t.waiters(one) != 1 {
			t.Fatal("the only session should wait")
		}
		other := t.start(e, two, Exclusive, Wait{})
		t.grantedWithin(other, 750*time.Millisecond)
		time.Sleep(2 * time.Second)
		pids := t.pids()
		waiting.cancel()
		<-waiting.done
		t.wantErr(waiting.err, context.Canceled)
		o.unlock(one, Exclusive)
		time.Sleep(trip) // the server may grant it before it notices that the client is gone
		t.free(one)
		t.must(t.acquire(e, two, Exclusive).Release())
		if slices.Equal(pids, t.pids()) {
			t.Error("the wait was not ended by a signal")
		}
	})
}

// With several sessions, giving up does not cost a session.
func TestGivingUp(t *testing.T) {
	inBubble(t, func(t *bench) {
		e, o := t.engine(sessions(2)), t.outsider()
		o.try(one, Exclusive)
		for range 5 {
			r := t.start(e, one, Exclusive, Wait{})
			time.Sleep(100 * time.Millisecond)
			r.cancel()
			time.Sleep(10 * time.Millisecond)
			if !r.finished() || t.waiters(one) != 0 {
				t.Fatal("the wait continues")
			}
		}
		if n := t.server.opened; n != 3 { // one is the outsider's
			t.Errorf("%d sessions were opened", n)
		}
		r := t.start(e, one, Exclusive, Wait{For: 50 * time.Millisecond})
		<-r.done
		t.wantErr(r.err, ErrNotAcquired)
		if r.took > 50*time.Millisecond+2*trip {
			t.Errorf("it took %v", r.took)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		_, err := e.Acquire(ctx, one, Exclusive, Wait{})
		t.wantErr(err, ErrNotAcquired)
		t.wantErr(err, context.DeadlineExceeded)
		_, err = e.Acquire(ctx, two, Exclusive, Wait{}) // ctx is done
		t.wantErr(err, context.DeadlineExceeded)
		_, errs := e.AcquireAll(ctx, []Key{one, two}, Exclusive, 0)
		t.wantErr(errs[0], context.DeadlineExceeded)
		t.wantErr(errs[1], context.DeadlineExceeded)
		t.stats(e, 0, 0)
		o.unlock(one, Exclusive)
	})
}

// An order to cancel a wait that comes after its end must not hit the next statement.
func TestLateCancel(t *testing.T) {
	inBubble(t, func(t *bench) {
		e, o := t.engine(), t.outsider()
		o.try(one, Exclusive)
		r := t.start(e, one, Exclusive, Wait{})
		time.Sleep(100 * time.Millisecond)
		t.once(1, "cancel", fault{there: 50 * time.Millisecond})
		t.always("locks x1", fault{takes: 80 * time.Millisecond})
		r.cancel()
		time.Sleep(10 * time.Millisecond) // now there is a session to cancel from
		o.unlock(one, Exclusive)
		<-r.done
		t.wantErr(r.err, context.Canceled)
		t.free(one)
		if t.count("cancels") != 1 || t.count("held") != 0 {
			t.Error("the cancel request hit the unlock")
		}
	})
}

// No cancel order is given for a wait that has ended, while its outcome is being queried.
func TestNoCancelAfterTheWait(t *testing.T) {
	inBubble(t, func(t *bench) {
		e, o := t.engine(), t.outsider()
		o.try(one, Exclusive)
		t.once(1, "wait", fault{err: pgError(sqlstate.DeadlockDetected)})
		t.once(1, "held", fault{takes: 100 * time.Millisecond})
		r := t.start(e, one, Exclusive, Wait{})
		time.Sleep(20 * time.Millisecond)
		r.cancel()
		<-r.done
		t.wantErr(r.err, context.Canceled)
		if t.count("cancel") != 0 {
			t.Error("the query of the outcome was canceled")
		}
		o.unlock(one, Exclusive)
	})
}

// The session that should cancel a wait does not open. The waiting session, which holds
// nothing, is closed.
func TestCancelFromASessionThatNeverOpens(t *testing.T) {
	inBubble(t, func(t *bench) {
		e, o := t.engine(), t.outsider()
		o.try(one, Exclusive)
		r := t.start(e, one, Exclusive, Wait{})
		time.Sleep(100 * time.Millisecond)
		t.refuse = func() (time.Duration, error) { return time.Hour, errSocket }
		r.cancel()
		began := time.Now()
		<-r.done
		if took := time.Since(began); took > settleTimeout {
			t.Errorf("giving up took %v", took)
		}
		t.server.mu.Lock()
		t.refuse = nil
		t.server.mu.Unlock()
		o.unlock(one, Exclusive)
		time.Sleep(trip)
		t.free(one)
	})
}

// The session that should wait does not open either. A request that gives up returns at
// once.
func TestWaitOnASessionThatNeverOpens(t *testing.T) {
	inBubble(t, func(t *bench) {
		e, o := t.engine(), t.outsider()
		h := t.acquire(e, two, Exclusive)
		o.try(one, Exclusive)
		t.server.mu.Lock()
		t.refuse = func() (time.Duration, error) { return time.Hour, errSocket }
		t.server.mu.Unlock()
		r := t.start(e, one, Exclusive, Wait{})
		behind := t.start(e, one, Shared, Wait{})
		time.Sleep(100 * time.Millisecond)
		for _, r := range []*request{r, behind} {
			r.cancel()
			if !r.finished() {
				t.Error("giving up took time")
			}
		}
		o.unlock(one, Exclusive)
		t.must(h.Release())
	})
}

// A batch fails in the middle. Operations that took effect are kept, and the others are
// run.
func TestBatchFails(t *testing.T) {
	for _, state := range []string{sqlstate.OutOfMemory, sqlstate.QueryCanceled, "XX000"} {
		for done := range 5 {
			t.Run(fmt.Sprint(state, done), func(t *testing.T) {
				inBubble(t, func(t *bench) {
					e := t.engine()
					before := t.acquire(e, Key{ID: 9}, Exclusive)
					give := t.acquire(e, Key{ID: 8}, Exclusive)
					keep := t.acquire(e, Key{ID: 7}, Shared)
					t.once(1, "locks X100", fault{takes: 10 * time.Millisecond})
					t.once(1, "locks X1 x8 X2 S3", fault{err: pgError(state), done: done})
					blocker := t.start(e, Key{ID: 100}, Exclusive, Wait{})
					requests := []*request{t.start(e, one, Exclusive, Wait{})}
					released := make(chan error, 1)
					go func() { released <- give.Release() }()
					synctest.Wait()
					requests = append(requests, t.start(e, two, Exclusive, Wait{}), t.start(e, Key{ID: 3}, Shared, Wait{}))
					t.grantedWithin(blocker, 20*time.Millisecond)
					t.must(<-released)
					t.free(Key{ID: 8})
					for i, r := range requests {
						<-r.done
						failed := state == sqlstate.OutOfMemory && done <= []int{0, 2, 3}[i]
						if failed != (r.err != nil) || failed && sqlstate.Of(r.err) != state {
							t.Errorf("request %d: %v", i, r.err)
						}
						if r.err == nil {
							t.must(r.hold.Release())
						}
					}
					for _, h := range []*Hold{before, keep} {
						t.must(h.Release())
					}
					t.stats(e, 0, 0)
					for _, key := range []Key{one, two, {ID: 3}, {ID: 7}, {ID: 9}} {
						t.free(key)
					}
					if t.count("locks X1 x8 X2 S3") != 1 {
						t.Error("the batch was never sent")
					}
				})
			})
		}
	}
}

// The unlock and the next try of a key fail together, which leaves three ways in which it
// may be held.
func TestUnlockAndTryFailTogether(t *testing.T) {
	for _, modes := range [][2]Mode{{Exclusive, Exclusive}, {Exclusive, Shared}, {Shared, Exclusive}} {
		for done := range 3 {
			t.Run(fmt.Sprint(modes, done), func(t *testing.T) {
				inBubble(t, func(t *bench) {
					e := t.engine(handOver(0))
					h := t.acquire(e, one, modes[0])
					next := t.start(e, one, modes[1], Wait{})
					t.once(1, "locks "+letter(opUnlock, one, modes[0])+"1 ", fault{err: pgError("XX000"), done: done})
					t.must(h.Release())
					<-next.done
					t.must(next.err)
					t.server.mu.Lock()
					for _, n := range t.server.locks[one].held {
						if n[modes[1]] != 1 || n[1-modes[1]] != 0 {
							t.Errorf("held %v times", n)
						}
					}
					t.server.mu.Unlock()
					t.must(next.hold.Release())
					t.free(one)
				})
			})
		}
	}
}

// Statements fail before or after they took effect.
func TestStatementsFail(t *testing.T) {
	fails := pgError("XX000")
	inBubble(t, func(t *bench) {
		e, o := t.engine(), t.outsider()
		for done := range 2 {
			t.once(1, "locks X1", fault{err: fails, done: done})
			h := t.acquire(e, one, Exclusive)
			t.once(1, "locks x1", fault{err: fails, done: done})
			t.must(h.Release())
			t.free(one)
		}

		// Twice is too often: the request fails, and nothing is held.
		t.once(1, "locks X1", fault{err: fails})
		t.once(1, "locks X1", fault{err: fails})
		_, err := e.Acquire(t.Context(), one, Exclusive, Wait{})
		if sqlstate.Of(err) != "XX000" {
			t.Error(err)
		}
		t.free(one)

		// It fails again, but took effect.
		t.once(1, "locks X1", fault{err: fails})
		t.once(1, "locks X1", fault{err: fails, done: 1})
		t.must(t.acquire(e, one, Exclusive).Release())
		t.free(one)

		// The lock was granted, and then the wait failed.
		for _, state := range []pgError{sqlstate.LockNotAvailable, sqlstate.QueryCanceled, sqlstate.OutOfMemory} {
			o.try(one, Exclusive)
			t.once(1, "wait", fault{err: state, done: 1})
			r := t.start(e, one, Exclusive, Wait{})
			time.Sleep(100 * time.Millisecond)
			o.unlock(one, Exclusive)
			t.grantedWithin(r, 10*time.Millisecond)
			if t.free(one); t.Failed() {
				return // the rest would block forever
			}
		}
		// It failed, but not because of the timeout.
		o.try(one, Exclusive)
		t.once(1, "wait", fault{err: pgError(sqlstate.DeadlockDetected)})
		_, err = e.Acquire(t.Context(), one, Exclusive, Wait{})
		if sqlstate.Of(err) != sqlstate.DeadlockDetected {
			t.Error(err)
		}
		// It was canceled from outside: it continues.
		r := t.start(e, one, Exclusive, Wait{})
		time.Sleep(100 * time.Millisecond)
		for _, pid := range t.pids() {
			t.interrupt(pid)
		}
		time.Sleep(100 * time.Millisecond)
		if t.waiters(one) != 1 {
			t.Error("it does not wait any more")
		}
		o.unlock(one, Exclusive)
		t.grantedWithin(r, 10*time.Millisecond)
		if e.Stats().Lost != 0 {
			t.Error("locks were lost")
		}

		// An unlock fails twice: the session is closed, which releases the lock.
		h := t.acquire(e, one, Exclusive)
		t.always("locks x1", fault{err: fails})
		t.wantErr(h.Release(), ErrUnconfirmed)
		t.wantErr(h.Release(), ErrNotHeld)
		time.Sleep(trip)
		t.free(one)
	})
}

// A probe fails between acquiring the lock and releasing it.
func TestProbeFailsInTheMiddle(t *testing.T) {
	inBubble(t, func(t *bench) {
		e := t.engine()
		h := t.acquire(e, one, Shared)
		time.Sleep(30 * time.Millisecond)
		t.must(t.acquire(e, one, Shared).Release()) // opens a session to probe on
		time.Sleep(30 * time.Millisecond)
		t.once(1, "locks Q1", fault{err: pgError("XX000"), half: true})
		r := t.start(e, one, Shared, Wait{})
		t.grantedWithin(r, time.Second)
		if t.count("locks Q1") == 0 {
			t.Error("there was no probe")
		}
		t.must(h.Release())
		time.Sleep(trip)
		t.free(one)
	})
}

// A session that holds nothing is closed after a minute.
func TestUnusedSessionsAreClosed(t *testing.T) {
	for _, deaf := range []bool{false, true} {
		t.Run(fmt.Sprint(deaf), func(t *testing.T) {
			inBubble(t, func(t *bench) {
				t.cannotWatch = deaf
				e := t.engine()
				h := t.acquire(e, one, Exclusive)
				time.Sleep(time.Hour)
				t.must(h.Err())
				t.must(h.Release())
				time.Sleep(50 * time.Second)
				if len(t.pids()) != 1 {
					t.Error("it was closed too early")
				}
				time.Sleep(20 * time.Second)
				if len(t.pids()) != 0 || e.Stats().Sessions != 0 {
					t.Error("it is still there")
				}
				t.must(t.acquire(e, one, Exclusive).Release())
			})
		})
	}
}

// The server is pinged no more than necessary, and a silent loss is noticed within the
// heartbeat.
func TestHeartbeat(t *testing.T) {
	for _, deaf := range []bool{false, true} {
		t.Run(fmt.Sprint(deaf), func(t *testing.T) {
			inBubble(t, func(t *bench) {
				t.cannotWatch = deaf
				t.notice = func(*backend, bool) time.Duration { return 35 * time.Second }
				e := t.engine()
				h := t.acquire(e, one, Exclusive)
				trips := e.Stats().RoundTrips
				time.Sleep(10 * time.Minute)
				if n := e.Stats().RoundTrips - trips; n < 118 || n > 122 {
					t.Errorf("%d pings in ten minutes", n)
				}
				t.silence(h.PID())
				cut := time.Now()
				<-h.Done()
				if d := time.Since(cut); d > 10*time.Second {
					t.Errorf("noticed after %v", d)
				}
				t.wantErr(h.Err(), ErrLost)
				t.wantErr(h.Release(), ErrLost)
			})
		})
	}
}

// Closing a connection to a silent server may take long. The holders are notified of the
// loss before that.
func TestSilenceIsToldBeforeTheSessionIsClosed(t *testing.T) {
	for _, deaf := range []bool{false, true} {
		t.Run(fmt.Sprint(deaf), func(t *testing.T) {
			inBubble(t, func(t *bench) {
				t.cannotWatch, t.closing = deaf, 20*time.Second
				t.notice = func(*backend, bool) time.Duration { return 35 * time.Second }
				e := t.engine()
				h := t.acquire(e, one, Exclusive)
				t.silence(h.PID())
				cut := time.Now()
				<-h.Done()
				if d := time.Since(cut); d > 10*time.Second {
					t.Errorf("noticed after %v", d)
				}
			})
		})
	}
}

// A pooler that resets the session has released its locks, although the backend is the
// same. The holders are notified after the next ping.
func TestSessionIsReset(t *testing.T) {
	inBubble(t, func(t *bench) {
		e := t.engine()
		h := t.acquire(e, one, Exclusive)
		t.once(2, "ping", fault{reset: true})
		time.Sleep(7 * time.Second)
		t.must(h.Err())
		time.Sleep(5 * time.Second)
		t.wantErr(h.Err(), ErrLost)
		t.wantErr(h.Err(), ErrPooler)
		t.wantErr(h.Release(), ErrLost)
		t.free(one)
	})
}

// Prepared statements that are missing, or that exist already, were prepared in another
// session. Nothing that this session holds can be relied on, and no request is refused
// because of it.
func TestPreparedStatementsOfAnotherSession(t *testing.T) {
	for _, state := range []string{sqlstate.InvalidStatementName, sqlstate.DuplicateStatement} {
		for _, kind := range []string{"locks X1", "locks x1", "ping", "wait X1"} {
			t.Run(state+" "+kind, func(t *testing.T) {
				inBubble(t, func(t *bench) {
					e, o := t.engine(), t.outsider()
					other := t.acquire(e, two, Exclusive)
					if kind == "wait X1" {
						o.try(one, Exclusive)
					}
					t.once(1, kind, fault{err: pgError(state)})
					r := t.start(e, one, Exclusive, Wait{})
					time.Sleep(10 * time.Second)
					if kind == "wait X1" {
						// It waits on a separate session, which is opened again.
						t.must(other.Err())
						t.must(other.Release())
						if n := t.server.opened; n != 4 { // one is the outsider's
							t.Errorf("%d sessions were opened", n)
						}
						o.unlock(one, Exclusive)
						t.grantedWithin(r, 10*time.Millisecond)
						return
					}
					<-r.done
					t.must(r.err)
					if err := r.hold.Release(); kind == "locks X1" {
						t.must(err)
					} else {
						t.wantErr(err, ErrLost)
						t.wantErr(err, ErrPooler)
					}
					t.wantErr(other.Err(), ErrLost)
					t.wantErr(other.Err(), ErrPooler)
					t.wantErr(other.Release(), ErrLost)
				})
			})
		}
	}
}

// The error with which Postgres ends a session is the cause of the loss, even if it is
// the reply to another statement.
func TestTerminationIsTheReason(t *testing.T) {
	inBubble(t, func(t *bench) {
		e := t.engine()
		h := t.acquire(e, one, Exclusive)
		t.once(1, "locks x1", fault{die: before})
		err := h.Release()
		t.wantErr(err, ErrLost)
		if sqlstate.Of(err) != sqlstate.AdminShutdown {
			t.Error(err)
		}
	})
}

// A loss that the server reports is noticed at once if the driver supports Watch.
func TestTermination(t *testing.T) {
	for _, after := range []time.Duration{0, 5 * time.Millisecond, time.Second, time.Minute} {
		t.Run(after.String(), func(t *testing.T) {
			inBubble(t, func(t *bench) {
				e := t.engine()
				h := t.acquire(e, one, Exclusive)
				next := t.start(e, one, Exclusive, Wait{})
				var told error
				h.OnLoss(func(err error) {
					told = err
					if next.hold != nil {
						t.Error("another request acquired it before")
					}
				})
				time.Sleep(after)
				t.terminate(h.PID())
				killed := time.Now()
				<-h.Done()
				if d := time.Since(killed); d > idleSpin+time.Millisecond {
					t.Errorf("noticed after %v", d)
				}
				t.wantErr(h.Err(), ErrLost)
				t.wantErr(told, ErrLost)
				if sqlstate.Of(h.Err()) != sqlstate.AdminShutdown {
					t.Error(h.Err())
				}
				h.OnLoss(func(err error) { told = nil })
				if told != nil {
					t.Error("a late Notify was not called at once")
				}
				t.grantedWithin(next, 10*time.Millisecond)
				if s := e.Stats(); s.Lost != 1 || s.Acquired != 2 {
					t.Errorf("%+v", s)
				}
			})
		})
	}
}

// The server hangs while a lock is released, or the session dies.
func TestLossWhileReleasing(t *testing.T) {
	for name, f := range map[string]fault{
		"silence before": {cut: before}, "silence after": {cut: after}, "death before": {die: before}, "death after": {die: after},
		"another backend answers": {swap: true},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *bench) {
				e := t.engine()
				h, other := t.acquire(e, one, Exclusive), t.acquire(e, two, Exclusive)
				t.once(1, "locks x1", f)
				began := time.Now()
				t.wantErr(h.Release(), ErrLost) // it is not known when
				if d := time.Since(began); d > 5*time.Second+trip {
					t.Errorf("it took %v", d)
				}
				t.wantErr(other.Err(), ErrLost)
				time.Sleep(trip)
				t.free(one)
				t.free(two)
			})
		})
	}
}

func TestUnlockDenied(t *testing.T) {
	inBubble(t, func(t *bench) {
		e := t.engine(handOver(0))
		h, other := t.acquire(e, one, Exclusive), t.acquire(e, two, Exclusive)
		next := t.start(e, one, Exclusive, Wait{})
		t.once(1, "locks x1", fault{lie: true})
		t.wantErr(h.Release(), ErrLost)
		t.wantErr(other.Release(), ErrLost)
		<-next.done
		t.must(next.err)
		if next.hold.PID() == h.PID() {
			t.Error("the session is still in use")
		}
		t.must(next.hold.Release())
	})
}

func TestAnotherBackendAnswers(t *testing.T) {
	for _, kind := range []string{"locks X", "wait", "held", "ping"} {
		t.Run(kind, func(t *testing.T) {
			inBubble(t, func(t *bench) {
				e, o := t.engine(), t.outsider()
				o.try(one, Exclusive)
				if kind == "held" {
					t.once(1, "wait", fault{err: pgError(sqlstate.LockNotAvailable)})
				}
				t.once(1, kind, fault{swap: true})
				other := t.acquire(e, two, Exclusive)
				r := t.start(e, one, Exclusive, Wait{})
				time.Sleep(20 * time.Second)
				o.unlock(one, Exclusive)
				t.grantedWithin(r, 10*time.Millisecond)
				if kind == "ping" {
					t.wantErr(other.Release(), ErrLost)
					if !errors.Is(other.Err(), ErrPooler) {
						t.Error(other.Err())
					}
				} else {
					t.must(other.Release())
				}
			})
		})
	}
}

// A session is lost during a wait or a try. Another one takes over, but only a limited
// number of times.
func TestLossWhileAsking(t *testing.T) {
	for _, kind := range []string{"wait", "locks X1"} {
		for losses := 1; losses <= maxRetries+2; losses++ {
			t.Run(fmt.Sprint(kind, losses), func(t *testing.T) {
				inBubble(t, func(t *bench) {
					e, o := t.engine(), t.outsider()
					if kind == "wait" {
						o.try(one, Exclusive)
						// Each new session tries first, and is not lost by that.
						for n := range losses {
							t.once(1, "wait", fault{die: point(1 + n%2)})
						}
					} else {
						for range losses {
							t.once(1, kind, fault{die: before})
						}
					}
					r := t.start(e, one, Exclusive, Wait{})
					time.Sleep(2 * time.Second)
					if kind == "wait" {
						o.unlock(one, Exclusive)
						t.grantedWithin(r, 10*time.Millisecond)
						return
					}
					<-r.done
					if losses <= maxRetries {
						t.must(r.err)
						t.must(r.hold.Release())
						return
					}
					t.wantErr(r.err, ErrUnavailable)
					if n := t.server.opened; n != maxRetries+2 { // including the outsider
						t.Errorf("%d sessions were opened", n)
					}
				})
			})
		}
	}
}

// If no session can be opened, all requests for a key fail.
func TestOpenFails(t *testing.T) {
	full := pgError(sqlstate.TooManyConnections)
	for name, after := range map[string]time.Duration{"at once": 0, "after a while": time.Second, "never": time.Hour} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *bench) {
				t.refuse = func() (time.Duration, error) { return after, full }
				e := t.engine()
				var rs []*request
				for i := range 6 {
					rs = append(rs, t.start(e, Key{ID: int64(i / 3)}, Mode(i%2), Wait{No: i%3 == 2}))
				}
				impatient := t.start(e, one, Exclusive, Wait{For: 500 * time.Millisecond})
				<-impatient.done
				if after == 0 {
					t.wantErr(impatient.err, ErrUnavailable)
				} else if t.wantErr(impatient.err, ErrUnavailable); impatient.took != 500*time.Millisecond {
					t.Errorf("it took %v", impatient.took)
				}
				for i, r := range rs {
					<-r.done
					t.wantErr(r.err, ErrUnavailable)
					if want := min(after, openTimeout); r.took != want {
						t.Errorf("request %d failed after %v", i, r.took)
					}
					if state := sqlstate.Of(r.err); after < time.Hour && state != string(full) {
						t.Errorf("request %d: %v", i, r.err)
					}
				}
				if s := e.Stats(); s.Sessions != 0 || s.Waiting != 0 || s.Refused != 7 {
					t.Errorf("%+v", s)
				}
				t.refuse = nil
				t.must(t.acquire(e, one, Exclusive).Release())
			})
		})
	}
}

func TestNotFitForLocks(t *testing.T) {
	inBubble(t, func(t *bench) {
		e := t.engine()
		t.standby = true
		_, err := e.Acquire(t.Context(), one, Exclusive, Wait{})
		t.wantErr(err, ErrStandby)
		t.standby, t.pooled = false, true
		_, err = e.Acquire(t.Context(), one, Exclusive, Wait{})
		t.wantErr(err, ErrPooler)
		t.must(t.acquire(t.engine(func(c *Config) { c.AllowPooler = true }), one, Exclusive).Release())
		t.pooled = false
		t.once(1, "hello", fault{err: pgError("XX000")})
		_, err = e.Acquire(t.Context(), one, Exclusive, Wait{})
		t.wantErr(err, ErrUnavailable)
		t.once(1, "keepalive", fault{err: pgError("22023")}) // this system has none of these settings
		t.must(t.acquire(e, one, Exclusive).Release())
	})
}

// Close comes in every state of a request.
func TestClose(t *testing.T) {
	closes := func(t *bench, e *Engine, within time.Duration, lost int) {
		t.Helper()
		began := time.Now()
		second := make(chan int)
		go func() { second <- e.Close() }()
		if n := e.Close() + <-second; n != lost {
			t.Errorf("Close returned %d lost locks, not %d", n, lost)
		}
		if d := time.Since(began); d > within {
			t.Errorf("Close took %v", d)
		}
		_, err := e.Acquire(t.Context(), one, Exclusive, Wait{})
		t.wantErr(err, ErrClosed)
		_, errs := e.AcquireAll(t.Context(), []Key{one}, Exclusive, 0)
		t.wantErr(errs[0], ErrClosed)
		_, err = e.Query(t.Context(), "SELECT 1")
		t.wantErr(err, ErrClosed)
		if s := e.Stats(); s.Sessions+s.Held+s.Waiting != 0 {
			t.Errorf("%+v", s)
		}
		time.Sleep(2 * trip)
	}
	t.Run("unused", func(t *testing.T) {
		inBubble(t, func(t *bench) { closes(t, t.engine(), 0, 0) })
	})
	t.Run("resting", func(t *testing.T) {
		inBubble(t, func(t *bench) {
			e := t.engine()
			t.must(t.acquire(e, one, Exclusive).Release())
			time.Sleep(time.Second)
			closes(t, e, 0, 0)
		})
	})
	t.Run("held to the end", func(t *testing.T) {
		inBubble(t, func(t *bench) {
			e := t.engine()
			h := t.acquire(e, one, Exclusive)
			var told []error
			h.OnLoss(func(err error) { told = append(told, err) })
			closes(t, e, closeTimeout+trip, 1)
			t.wantErr(h.Err(), ErrLost)
			t.wantErr(h.Release(), ErrLost)
			if len(told) != 2 || !errors.Is(told[0], ErrClosed) || errors.Is(told[0], ErrLost) || !errors.Is(told[1], ErrLost) {
				t.Errorf("notified of %v", told)
			}
			t.free(one)
		})
	})
	t.Run("held for a while", func(t *testing.T) {
		inBubble(t, func(t *bench) {
			e := t.engine()
			h := t.acquire(e, one, Exclusive)
			next := t.start(e, one, Exclusive, Wait{})
			h.OnLoss(func(error) {
				go func() {
					time.Sleep(time.Second)
					t.must(h.Err())
					t.must(h.Release())
				}()
			})
			closes(t, e, time.Second+trip, 0)
			<-next.done
			t.wantErr(next.err, ErrClosed)
			t.free(one)
		})
	})
	t.Run("waiting", func(t *testing.T) {
		inBubble(t, func(t *bench) {
			e, o := t.engine(), t.outsider()
			o.try(one, Exclusive)
			rs := []*request{t.start(e, one, Exclusive, Wait{}), t.start(e, one, Shared, Wait{})}
			time.Sleep(100 * time.Millisecond)
			// The only session waits, so none can cancel the wait: it ends with its
			// slice.
			closes(t, e, e.config.Slice, 0)
			for _, r := range rs {
				<-r.done
				t.wantErr(r.err, ErrClosed)
			}
			if n := t.waiters(one); n != 0 {
				t.Errorf("%d sessions still wait for the lock", n)
			}
			o.unlock(one, Exclusive)
			t.free(one)
		})
	})
	t.Run("polling", func(t *testing.T) {
		inBubble(t, func(t *bench) {
			e, o := t.engine(sessions(1)), t.outsider()
			h := t.acquire(e, two, Exclusive)
			o.try(one, Exclusive)
			r := t.start(e, one, Exclusive, Wait{})
			time.Sleep(105 * time.Millisecond)
			h.OnLoss(func(error) { go h.Release() })
			closes(t, e, 2*trip, 0)
			<-r.done
			t.wantErr(r.err, ErrClosed)
			o.unlock(one, Exclusive)
		})
	})
	t.Run("opening", func(t *testing.T) {
		inBubble(t, func(t *bench) {
			t.refuse = func() (time.Duration, error) { return time.Hour, errSocket }
			e := t.engine()
			r := t.start(e, one, Exclusive, Wait{})
			closes(t, e, 0, 0)
			<-r.done
			t.wantErr(r.err, ErrClosed)
		})
	})
	t.Run("a server that hangs", func(t *testing.T) {
		for _, kind := range []string{"hello", "keepalive", "locks X1", "ping", "query"} {
			t.Run(kind, func(t *testing.T) {
				inBubble(t, func(t *bench) {
					t.always(kind, fault{cut: before})
					e := t.engine()
					r := t.start(e, one, Exclusive, Wait{})
					time.Sleep(100 * time.Millisecond)
					within := trip
					switch kind {
					case "locks X1":
						within = closeTimeout // it may still come
					case "ping":
						<-r.done
						t.must(r.hold.Release())
						time.Sleep(6 * time.Second)
					case "query":
						<-r.done
						t.must(r.hold.Release())
						go e.Query(context.Background(), "SELECT 1")
						synctest.Wait()
					}
					closes(t, e, within, 0)
				})
			})
		}
	})
}

// The caller runs an operation itself if the session is idle. Requests that come
// meanwhile share the next batch.
func TestCallersHelp(t *testing.T) {
	inBubble(t, func(t *bench) {
		e := t.engine()
		first := t.acquire(e, two, Exclusive) // the session is open and idle
		time.Sleep(trip)
		t.once(1, "locks X1", fault{takes: 30 * time.Millisecond})
		helper := t.start(e, one, Exclusive, Wait{})
		e.mu.Lock()
		if s := e.sessions[0]; s.owner != caller {
			t.Errorf("the session is %v's", s.owner)
		}
		e.mu.Unlock()
		var rs []*request
		for i := range 20 {
			rs = append(rs, t.start(e, Key{ID: int64(10 + i)}, Exclusive, Wait{}))
		}
		trips := e.Stats().RoundTrips
		for _, r := range rs {
			<-r.done
			t.must(r.err)
		}
		if n := e.Stats().RoundTrips - trips; n != 1 {
			t.Errorf("20 requests took %d round trips", n)
		}
		var holds []*Hold
		for _, r := range rs {
			holds = append(holds, r.hold)
		}
		for _, err := range e.ReleaseAll(append(holds, holds[0])) {
			if err != nil && !errors.Is(err, ErrNotHeld) {
				t.Error(err)
			}
		}
		if n := e.Stats().RoundTrips - trips; n != 2 {
			t.Errorf("unlocking took %d round trips", n-1)
		}
		t.grantedWithin(helper, trip)

		// A caller does not help a session in Watch, which wakes up by itself.
		time.Sleep(time.Second)
		t.grantedWithin(t.start(e, one, Exclusive, Wait{}), 2*trip)
		t.must(first.Release())
	})
}

func TestManyLocksOnOneSession(t *testing.T) {
	inBubble(t, func(t *bench) {
		e := t.engine()
		keys := make([]Key, 10_000)
		for i := range keys {
			keys[i] = Key{ID: int64(i)}
		}
		holds, errs := e.AcquireAll(t.Context(), append(keys, keys[0]), Exclusive, 0)
		t.wantErr(errs[len(keys)], ErrNotAcquired)
		for _, err := range errs[:len(keys)] {
			t.must(err)
		}
		if s := e.Stats(); s.Sessions != 1 || s.Held != len(keys) || s.RoundTrips > 10 {
			t.Errorf("%+v", s)
		}
		for _, err := range e.ReleaseAll(holds[:len(keys)]) {
			t.must(err)
		}
		time.Sleep(trip)
		s := e.sessions[0]
		for _, o := range s.batchBuf[:cap(s.batchBuf)] {
			if o.lock != nil {
				t.Fatal("a finished operation is still referenced")
			}
		}
	})
}

// Callers that repeat their requests all share the same round trips, and do not take
// turns.
func TestTravelTogether(t *testing.T) {
	inBubble(t, func(t *bench) {
		const askers, pairs = 16, 50
		e := t.engine()
		t.must(t.acquire(e, one, Exclusive).Release()) // opens a session
		before := e.Stats().RoundTrips
		var wg sync.WaitGroup
		for i := range askers {
			wg.Go(func() {
				for range pairs {
					t.must(t.acquire(e, Key{ID: int64(100 + i)}, Exclusive).Release())
				}
			})
		}
		wg.Wait()
		// Two halves that take turns would need twice as many round trips.
		if trips := e.Stats().RoundTrips - before; trips > 2*pairs*3/2 {
			t.Errorf("%d round trips for %d pairs of each of %d", trips, pairs, askers)
		}
	})
}

// A session that holds many locks is slow, so new ones go to another session. No more
// than half of the sessions are opened for that.
func TestLadenSessions(t *testing.T) {
	inBubble(t, func(t *bench) {
		e := t.engine(sessions(4))
		take := func(from, n int) []*Hold {
			t.Helper()
			keys := make([]Key, n)
			for i := range keys {
				keys[i] = Key{ID: int64(from + i)}
			}
			holds, errs := e.AcquireAll(t.Context(), keys, Exclusive, 0)
			for _, err := range errs {
				t.must(err)
			}
			return holds
		}
		for i, step := range []struct{ locks, sessions int }{{maxLocksPerSession, 1}, {1, 2}, {maxLocksPerSession - 1, 2}, {1, 2}} {
			holds := take(i*maxLocksPerSession, step.locks)
			if got := e.Stats().Sessions; got != step.sessions {
				t.Errorf("step %d: %d sessions, want %d", i, got, step.sessions)
			}
			defer e.ReleaseAll(holds)
		}
	})
}

func TestQuery(t *testing.T) {
	inBubble(t, func(t *bench) {
		e := t.engine(sessions(2))
		h := t.acquire(e, one, Exclusive)
		reply, err := e.Query(t.Context(), "SELECT", "a", "b")
		t.must(err)
		if reply != "answer to SELECT a b" {
			t.Error(reply)
		}
		t.once(1, "query", fault{err: pgError("42P01")})
		if _, err = e.Query(t.Context(), "SELECT"); sqlstate.Of(err) != "42P01" {
			t.Error(err)
		}
		t.once(1, "query", fault{cut: after})
		_, err = e.Query(t.Context(), "SELECT")
		t.wantErr(err, ErrUnavailable)
		ctx, cancel := context.WithCancel(t.Context())
		t.once(1, "query", fault{cut: before})
		time.AfterFunc(time.Second, cancel)
		_, err = e.Query(ctx, "SELECT")
		t.wantErr(err, context.Canceled)
		_, err = e.Query(ctx, "SELECT")
		t.wantErr(err, context.Canceled)
		time.Sleep(time.Minute)
		t.must(h.Err()) // a hanging query does not cost a lock
		t.must(h.Release())
	})
}

func TestDropped(t *testing.T) {
	inBubble(t, func(t *bench) {
		var log strings.Builder
		e := t.engine(func(c *Config) { c.Log = slog.New(slog.NewTextHandler(&log, nil)) })
		h := t.acquire(e, one, Exclusive)
		e.Dropped("the lock")
		if s := e.Stats(); s.Dropped != 1 || s.Held != 1 {
			t.Errorf("%+v", s)
		}
		synctest.Wait()
		if !strings.Contains(log.String(), "the lock") {
			t.Errorf("the log has %q", log.String())
		}
		t.must(h.Release())
	})
}
