package engine

import (
	"testing"
	"time"
)

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
