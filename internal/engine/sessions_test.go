package engine

import (
	"testing"
	"time"
)

func TestManyLocksOnOneSession(t *testing.T) {
	inBubble(t, func(t *bench) {
		e := t.engine()
		keys := make([]Key, 10_000)
		for i := range keys {
			keys[i] = Key{ID: int64(i)}
		}
		holds, errs := e.AcquireAll(t.Context(), append(keys, keys[0]), Exclusive, Wait{})
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
			holds, errs := e.AcquireAll(t.Context(), keys, Exclusive, Wait{})
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
