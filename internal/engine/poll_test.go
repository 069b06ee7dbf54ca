package engine

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
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
		if e.pollers.n > 0 || len(e.locks) > 0 {
			t.Errorf("left: %d pollers, %d locks", e.pollers.n, len(e.locks))
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

// However many locks are polled, the number of tries is limited, and each lock is still
// tried often enough.
func TestPollingCrowd(t *testing.T) {
	for keys, limit := range map[int]time.Duration{100: pollInterval + 10*time.Millisecond, 1_000: 100 * time.Millisecond, 10_000: time.Second} {
		t.Run(strconv.Itoa(keys), func(t *testing.T) {
			inBubble(t, func(t *bench) {
				t.quiet = true
				tries := 0
				t.faults = append(t.faults, func(_ *backend, st *statement) (fault, bool) {
					if st.kind == "locks" {
						tries += len(st.ops)
					}
					return fault{}, false
				})
				tried := func() int {
					t.server.mu.Lock()
					defer t.server.mu.Unlock()
					return tries
				}
				e, o := t.engine(), t.outsider()
				granted := make(chan *Hold, keys)
				for i := range keys {
					key := Key{ID: int64(i)}
					o.try(key, Exclusive)
					go func() { granted <- t.acquire(e, key, Exclusive) }()
				}
				time.Sleep(time.Second)
				before := tried()
				time.Sleep(5 * time.Second)
				ticks := int(5 * time.Second / pollInterval)
				if n := tried() - before; n > ticks*maxPolls+100 || n < ticks*min(keys-10, maxPolls)*3/4 {
					t.Errorf("%d tries in %d ticks", n, ticks)
				}
				for i := range 20 {
					time.Sleep(time.Duration(i) * 3 * time.Millisecond)
					began := time.Now()
					o.unlock(Key{ID: int64(i * (keys / 20))}, Exclusive)
					h := <-granted
					if d := time.Since(began); d > limit {
						t.Errorf("granted %v after the release", d)
					}
					t.must(h.Release())
				}
				began := time.Now()
				o.b.Close()
				var holds []*Hold
				for range keys - 20 {
					holds = append(holds, <-granted)
				}
				if d := time.Since(began); d > limit {
					t.Errorf("all were granted %v after their release", d)
				}
				for _, err := range e.ReleaseAll(holds) {
					t.must(err)
				}
			})
		})
	}
}

// Locks that are polled over a slow network are mostly being tried when a turn to wait in
// Postgres ends. They still take turns, however long the network takes.
func TestTurnsWhileTrying(t *testing.T) {
	for there := time.Duration(0); there < 120*time.Millisecond; there += 9 * time.Millisecond {
		for keys := 3; keys <= 6; keys++ {
			t.Run(fmt.Sprint(there, keys), func(t *testing.T) { turnsWhileTrying(t, there, keys) })
		}
	}
}

func turnsWhileTrying(t *testing.T, there time.Duration, keys int) {
	inBubble(t, func(t *bench) {
		t.always("locks", fault{there: there})
		e, o := t.engine(sessions(2)), t.outsider()
		var requests []*request
		for i := range keys {
			o.try(Key{ID: int64(i)}, Exclusive)
			requests = append(requests, t.start(e, Key{ID: int64(i)}, Exclusive, Wait{}))
		}
		time.Sleep(20 * time.Second)
		var turns []int
		for i := range keys {
			turns = append(turns, t.count(fmt.Sprintf("waits for %v", Key{ID: int64(i)})))
		}
		if least := slices.Min(turns); least < 15/keys || slices.Max(turns) > least+1 {
			t.Errorf("number of turns: %v", turns)
		}
		for i, r := range requests {
			o.unlock(Key{ID: int64(i)}, Exclusive)
			t.grantedWithin(r, time.Second)
		}
	})
}

// A list of polled locks visits all of them by turns, also while some leave and others
// come.
func TestPollList(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 2))
	var list pollList
	in := make(map[*localLock]int) // when it was polled last
	for round := range 3000 {
		for range rng.IntN(8) {
			l := new(localLock)
			list.add(l)
			in[l] = round
		}
		polled := make(map[*localLock]bool)
		list.poll(func(l *localLock) {
			if polled[l] {
				t.Fatal("polled twice in one round")
			}
			polled[l] = true
			in[l] = round
			if rng.IntN(100) == 0 {
				list.remove(l)
				delete(in, l)
			}
		})
		if most := min(len(in), maxPolls); len(polled) < most {
			t.Fatalf("%d of %d polled", len(polled), most)
		}
		for l, last := range in {
			if round-last > list.n/maxPolls+2 {
				t.Fatalf("not polled for %d rounds, with %d in the list", round-last, list.n)
			}
			if rng.IntN(500) == 0 {
				list.remove(l)
				delete(in, l)
			}
		}
		if list.n != len(in) {
			t.Fatalf("%d in the list instead of %d", list.n, len(in))
		}
	}
	for l := list.first; l != nil; l = list.first {
		list.remove(l)
	}
	if list != (pollList{}) {
		t.Errorf("an empty list is %+v", list)
	}
}
