package engine

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

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
