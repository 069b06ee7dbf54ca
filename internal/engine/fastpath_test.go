package engine

import (
	"errors"
	"testing"
	"time"
)

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
