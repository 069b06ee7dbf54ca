package engine

import (
	"sync"
	"testing"
	"time"

	"github.com/pglock-go/pglock/internal/sqlstate"
)

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
// The wait ends within Postgres' deadlock_timeout, even if the checks are slow.
func TestLongWaitsEndWhenAwaited(t *testing.T) {
	t.Run("fast", func(t *testing.T) { longWaitAwaited(t, 0) })
	t.Run("slow", func(t *testing.T) { longWaitAwaited(t, 150*time.Millisecond) })
}

func longWaitAwaited(t *testing.T, check time.Duration) {
	inBubble(t, func(t *bench) {
		t.always("monitor", fault{takes: check})
		e, o := t.engine(), t.outsider()
		h := t.acquire(e, two, Exclusive) // opens a session to check from
		o.try(one, Exclusive)
		r := t.start(e, one, Exclusive, Wait{})
		time.Sleep(20 * time.Millisecond)
		t.makeLong(e, one)
		time.Sleep(time.Second + monitorInterval) // the next wait is a long one, and has been checked
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

// The holder waits for the end of our long wait, and Postgres ends that as a deadlock before
// the monitor does. The request continues with short waits.
func TestDeadlockOfALongWait(t *testing.T) {
	inBubble(t, func(t *bench) {
		e, o := t.engine(), t.outsider()
		h := t.acquire(e, two, Exclusive)
		o.try(one, Exclusive)
		r := t.start(e, one, Exclusive, Wait{})
		time.Sleep(20 * time.Millisecond)
		t.makeLong(e, one)
		t.once(1, "wait", fault{err: pgError(sqlstate.DeadlockDetected)})
		time.Sleep(time.Second)
		if r.finished() {
			t.Fatalf("it was refused: %v", r.err)
		}
		e.mu.Lock()
		if len(e.longWaits()) > 0 {
			t.Error("it waits as long again")
		}
		e.mu.Unlock()
		o.unlock(one, Exclusive)
		t.grantedWithin(r, 10*time.Millisecond)
		t.must(h.Release())
	})
}

// makeLong makes the next wait for the lock a long one.
func (t *bench) makeLong(e *Engine, key Key) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.locks[key].history = waitHistory{since: time.Now().Add(-time.Minute), turnover: true, sampled: true}
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
