package engine

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

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
