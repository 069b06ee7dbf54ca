package prioritize

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/internal/signal"
)

// The grace counts from the beginning of the wait, not from when it was first seen.
func TestPrompt(t *testing.T) {
	in(t, func(t *testing.T, f *fakeServer) {
		f.answerTime = time.Millisecond
		var came time.Time
		f.run(t, func() {
			time.Sleep(333 * time.Millisecond)
			came = time.Now()
			f.arrive(2, fakeBlocker{})
			time.Sleep(2 * time.Second)
		}, After(time.Second), Terminate())
		if len(f.signals) != 1 || f.signals[0].pid != 2 {
			t.Fatalf("signals: %v", f.signals)
		}
		if after := f.signals[0].at.Sub(came); after < time.Second || after > time.Second+3*time.Millisecond {
			t.Errorf("signaled after %v, want 1 s", after)
		}
	})
}

// If the server does not report when the wait began, the signal is late, never early.
func TestPromptOnOldServers(t *testing.T) {
	in(t, func(t *testing.T, f *fakeServer) {
		f.noWaitStart = true
		var came time.Time
		f.run(t, func() {
			time.Sleep(333 * time.Millisecond)
			came = time.Now()
			f.arrive(2, fakeBlocker{})
			time.Sleep(2 * time.Second)
		}, After(time.Second), Terminate())
		if len(f.signals) != 1 {
			t.Fatalf("signals: %v", f.signals)
		}
		if after := f.signals[0].at.Sub(came); after < time.Second || after > time.Second+maxInterval {
			t.Errorf("signaled after %v, want 1 s to 1.2 s", after)
		}
	})
}

func TestEscalationInTime(t *testing.T) {
	in(t, func(t *testing.T, f *fakeServer) {
		var came time.Time
		f.run(t, func() {
			came = time.Now()
			f.arrive(2, fakeBlocker{survives: true})
			time.Sleep(5 * time.Second)
		}, After(time.Second), CancelThenTerminate(2500*time.Millisecond), Every(time.Second))
		var got []string
		for _, s := range f.signals {
			got = append(got, fmt.Sprint(s.action, " ", s.at.Sub(came).Round(time.Millisecond)))
		}
		want := []string{"cancel 1s", "cancel 2s", "cancel 3s", "terminate 3.5s", "terminate 4.5s"}
		if !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	})
}

func TestOnceEscalates(t *testing.T) {
	in(t, func(t *testing.T, f *fakeServer) {
		f.run(t, func() {
			f.arrive(2, fakeBlocker{survives: true})
			time.Sleep(10 * time.Second)
		}, After(time.Second), CancelThenTerminate(2500*time.Millisecond), Once())
		if len(f.signals) != 2 || f.signals[0].action != signal.Cancel || f.signals[1].action != signal.Terminate {
			t.Errorf("signals: %v", f.signals)
		}
	})
}

// Another session with a reused PID is not touched, and has its own grace.
func TestNumberUsedAgain(t *testing.T) {
	in(t, func(t *testing.T, f *fakeServer) {
		var again time.Time
		once := sync.Once{}
		f.beforeSignal = func() {
			once.Do(func() {
				f.leave(2)
				again = time.Now()
				f.arrive(2, fakeBlocker{backendStart: again})
			})
		}
		events := f.run(t, func() {
			f.arrive(2, fakeBlocker{backendStart: time.Now().Add(-time.Hour)})
			time.Sleep(5 * time.Second)
		}, After(time.Second), Terminate())
		if len(f.signals) != 1 || f.signals[0].at.Sub(again) < time.Second {
			t.Errorf("signals: %v, the second came %v", f.signals, again)
		}
		if !slices.Contains(kinds(events), Spared) {
			t.Errorf("events: %v", kinds(events))
		}
	})
}

// The same between two polls, during the grace of the first session: the second has
// its own grace.
func TestNumberUsedAgainUnseen(t *testing.T) {
	in(t, func(t *testing.T, f *fakeServer) {
		var again time.Time
		f.run(t, func() {
			f.arrive(2, fakeBlocker{backendStart: time.Now().Add(-time.Hour)})
			f.arrive(3, fakeBlocker{result: protected()}) // so that the wait goes on
			time.Sleep(600 * time.Millisecond)
			f.leave(2)
			again = time.Now()
			f.arrive(2, fakeBlocker{backendStart: again})
			time.Sleep(5 * time.Second)
		}, After(time.Second), Terminate(), Every(50*time.Millisecond))
		if len(f.signals) != 1 || f.signals[0].at.Sub(again) < time.Second {
			t.Errorf("signals: %v, the second came %v", f.signals, again)
		}
	})
}

// A session that no longer blocks when it is to be signaled is not signaled.
func TestGoneAtTheLastMoment(t *testing.T) {
	in(t, func(t *testing.T, f *fakeServer) {
		f.beforeSignal = func() { f.leave(2) }
		events := f.run(t, func() {
			f.arrive(2, fakeBlocker{})
			time.Sleep(5 * time.Second)
		}, After(time.Second), Terminate())
		if len(f.signals) != 0 {
			t.Errorf("signals: %v", f.signals)
		}
		if got, want := kinds(events), []EventKind{Watching, Blocked, Spared, Freed}; !slices.Equal(got, want) {
			t.Fatalf("events: %v, want %v", got, want)
		}
		if waited := events[3].Waited; waited > 1100*time.Millisecond {
			t.Errorf("Freed was reported after %v", waited)
		}
	})
}

// It releases its lock and then blocks the next one that we want, all between two
// polls: that is another wait.
func TestAnotherWaitUnseen(t *testing.T) {
	in(t, func(t *testing.T, f *fakeServer) {
		f.grace = time.Second
		f.run(t, func() {
			start := time.Now()
			f.arrive(2, fakeBlocker{backendStart: start})
			time.Sleep(950 * time.Millisecond)
			f.leave(2)
			f.arrive(2, fakeBlocker{backendStart: start, hasXactStart: true})
			time.Sleep(3 * time.Second)
		}, After(time.Second), Terminate())
		if len(f.signals) != 1 || len(f.wrong) > 0 {
			t.Errorf("signals: %v, %v", f.signals, f.wrong)
		}
	})
}

// A blocker that came while the watcher had no session has not blocked since the
// beginning.
func TestWhoCameUnseen(t *testing.T) {
	in(t, func(t *testing.T, f *fakeServer) {
		f.grace = time.Second
		set := func(down bool) {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.down = down
		}
		f.run(t, func() {
			time.Sleep(500 * time.Millisecond)
			set(true)
			f.arrive(3, fakeBlocker{result: protected()})
			time.Sleep(20 * time.Second)
			f.arrive(2, fakeBlocker{})
			set(false)
			time.Sleep(5 * time.Second)
		}, After(time.Second), Terminate())
		if len(f.signals) != 1 || len(f.wrong) > 0 {
			t.Errorf("signals: %v, %v", f.signals, f.wrong)
		}
	})
}

func TestSessionLostInTime(t *testing.T) {
	in(t, func(t *testing.T, f *fakeServer) {
		events := f.run(t, func() {
			f.arrive(2, fakeBlocker{})
			time.Sleep(500 * time.Millisecond)
			f.mu.Lock()
			f.down = true
			f.mu.Unlock()
			time.Sleep(10 * time.Second)
			f.mu.Lock()
			f.down = false
			f.mu.Unlock()
			time.Sleep(reopenMost + time.Millisecond)
		}, After(time.Second), Terminate())
		if got, want := kinds(events), []EventKind{Watching, Blocked, Watcher, Watcher, Terminated, Freed}; !slices.Equal(got, want) {
			t.Errorf("events: %v, want %v", got, want)
		}
	})
}

// Polling costs the server little, even a slow one, blocked or not.
func TestPace(t *testing.T) {
	for _, blocked := range []bool{false, true} {
		t.Run(fmt.Sprint("blocked ", blocked), func(t *testing.T) {
			in(t, func(t *testing.T, f *fakeServer) {
				f.run(t, func() {
					if blocked {
						f.arrive(2, fakeBlocker{result: protected()})
					}
					time.Sleep(time.Minute)
				}, Terminate())
				if f.polls > 5*60+5 || f.polls < 4*60 {
					t.Errorf("%d polls in a minute, want five a second", f.polls)
				}
			})
			in(t, func(t *testing.T, f *fakeServer) {
				f.answerTime = 100 * time.Millisecond
				f.run(t, func() {
					if blocked {
						f.arrive(2, fakeBlocker{result: protected()})
					}
					time.Sleep(time.Minute)
				}, Terminate())
				if f.polls > 60 || f.polls < 20 {
					t.Errorf("%d polls in a minute at a server that takes 100 ms", f.polls)
				}
			})
		})
	}
}

// A panic of the user's function reaches the caller.
func TestPanicOfAUsersFunction(t *testing.T) {
	in(t, func(t *testing.T, f *fakeServer) {
		defer func() {
			if recover() != "a panic of the user's" {
				t.Error("the panic is lost")
			}
		}()
		f.run(t, func() {
			f.arrive(2, fakeBlocker{})
			time.Sleep(5 * time.Second)
		}, Call(func(context.Context, inspect.Pair) error { panic("a panic of the user's") }))
	})
}

// A happening is something that happens at a random time.
type happening struct {
	at    time.Duration
	pid   int32
	what  string
	tells bool
}

// Whatever happens, no session is signaled before it has blocked for the grace, or by
// more signals than allowed; and a holder that has blocked for long while the server
// answered is signaled.
func TestAnything(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		after := drawDuration(rt, "after", 0, 3*time.Second)
		takes := drawDuration(rt, "takes", 0, 20*time.Millisecond)
		old := rapid.Bool().Draw(rt, "old")
		queue := rapid.Bool().Draw(rt, "queue")
		most := rapid.IntRange(0, 3).Draw(rt, "max")
		n := rapid.IntRange(1, 20).Draw(rt, "n")
		var happenings []happening
		for range n {
			happenings = append(happenings, happening{
				at:    drawDuration(rt, "at", 0, 10*time.Second),
				pid:   rapid.Int32Range(2, 5).Draw(rt, "pid"),
				what:  rapid.SampledFrom([]string{"holds", "queues", "again", "leaves", "down", "up"}).Draw(rt, "what"),
				tells: rapid.Bool().Draw(rt, "tells"),
			})
		}
		slices.SortStableFunc(happenings, func(a, b happening) int { return int(a.at - b.at) })
		var wrong []string
		synctest.Test(t, func(t *testing.T) {
			f := newFakeServer()
			f.answerTime, f.noWaitStart = takes, old
			opts := []RunOption{After(after), Terminate()}
			if queue {
				opts = append(opts, ClearQueue())
			}
			if most > 0 {
				opts = append(opts, Max(most))
			}
			f.grace, f.fromArrival = after, queue
			f.run(t, func() {
				began := time.Now()
				for _, h := range happenings {
					time.Sleep(h.at - time.Since(began))
					f.happen(h)
				}
				f.happen(happening{what: "up"})
				time.Sleep(after + 10*time.Second)
			}, opts...)
			wrong = append(wrong, f.wrong...)
			if most > 0 && len(f.signals) > most {
				wrong = append(wrong, fmt.Sprintf("%d signals, %d are allowed", len(f.signals), most))
			}
			for pid, b := range f.blockers {
				if (!b.soft || queue) && most == 0 {
					wrong = append(wrong, fmt.Sprintf("%d is still in the way", pid))
				}
			}
			if f.open != 0 {
				wrong = append(wrong, "a session is left open")
			}
		})
		if len(wrong) > 0 {
			rt.Fatalf("%v", wrong)
		}
	})
}

func (f *fakeServer) happen(h happening) {
	f.mu.Lock()
	b, alone := f.blockers[h.pid], len(f.blockers) == 1
	f.mu.Unlock()
	switch h.what {
	case "holds":
		if b == nil || b.soft {
			next := fakeBlocker{hasXactStart: h.tells}
			if b != nil { // the same session, which has taken hold
				next.backendStart, next.arrived = b.backendStart, b.arrived
			}
			f.arrive(h.pid, next)
		}
	case "queues":
		if b == nil {
			f.arrive(h.pid, fakeBlocker{soft: true, hasXactStart: h.tells})
		}
	case "again": // it lets 1 continue, and blocks it again when 1 wants the same lock again
		if b != nil && alone {
			f.leave(h.pid)
			f.arrive(h.pid, fakeBlocker{backendStart: b.backendStart, hasXactStart: h.tells})
		}
	case "leaves":
		f.leave(h.pid)
	case "down", "up":
		f.mu.Lock()
		f.down = h.what == "down"
		f.mu.Unlock()
	}
}
