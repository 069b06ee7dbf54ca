package prioritize

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/internal/signal"
)

// A fakeServer is a server with one prioritized session, PID 1, and others that block
// it. Its clock is an hour off.
type fakeServer struct {
	mu             sync.Mutex
	began          time.Time // when 1 began to wait; zero if it does not
	blockers       fakeBlockers
	noWaitStart    bool          // does not report when a wait began
	answerTime     time.Duration // how long an answer takes
	nextAnswerTime time.Duration // how long the next answer takes, if not 0
	queries        int           // how many queries it was sent
	stale          bool          // polls return the state when they were sent
	down           bool
	unreached      bool      // an answer failed, and none has come since
	firstAnswer    time.Time // the first answer after such a failure
	signals        []fakeSignal
	grace          time.Duration // what the grace must be
	fromArrival    bool          // the grace counts from the arrival, not from acquiring the lock
	wrong          []string      // what should not have happened
	polls          int
	open           int

	beforeSignal func()
}

// A fakeBlockers maps each blocker to when it began to block.
type fakeBlockers map[int32]*fakeBlocker

type fakeBlocker struct {
	arrived      time.Time // when it arrived
	since        time.Time // when it arrived or acquired the lock
	soft         bool
	backendStart time.Time // its backend_start
	result       signal.Result
	survives     bool // a signal does not end it
	hasXactStart bool // its transaction began when it acquired the lock
}

// protected returns the result for a superuser's session.
func protected() signal.Result {
	return signal.Result{Reason: inspect.Protected, Class: inspect.Superusers}
}

type fakeSignal struct {
	at     time.Time
	pid    int32
	action signal.Action
}

var errDown = errors.New("down")

const clockSkew = time.Hour

func newFakeServer() *fakeServer { return &fakeServer{blockers: fakeBlockers{}} }

func (f *fakeServer) connect(ctx context.Context) (observer, error) {
	if err := f.answer(); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.open++
	return f, nil
}

func (f *fakeServer) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.open--
}

// answer takes as long as the server's answers do.
func (f *fakeServer) answer() error {
	f.mu.Lock()
	takes, down := f.answerTime, f.down
	if f.nextAnswerTime > 0 {
		takes, f.nextAnswerTime = f.nextAnswerTime, 0
	}
	f.queries++
	f.mu.Unlock()
	time.Sleep(takes)
	f.mu.Lock()
	defer f.mu.Unlock()
	if down {
		f.unreached = true
		return errDown
	}
	if f.unreached {
		f.unreached, f.firstAnswer = false, time.Now()
	}
	return nil
}

// arrive adds a blocker.
func (f *fakeServer) arrive(pid int32, b fakeBlocker) {
	f.mu.Lock()
	defer f.mu.Unlock()
	b.since = time.Now()
	if b.backendStart.IsZero() {
		b.backendStart = b.since
	}
	if b.arrived.IsZero() {
		b.arrived = b.since
	}
	f.blockers[pid] = &b
	if f.began.IsZero() {
		f.began = b.since
	}
}

// leave removes a blocker.
func (f *fakeServer) leave(pid int32) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.remove(pid)
}

func (f *fakeServer) remove(pid int32) {
	delete(f.blockers, pid)
	if len(f.blockers) == 0 {
		f.began = time.Time{}
	}
}

func (f *fakeServer) poll(context.Context, Who) (pollResult, error) {
	f.mu.Lock()
	stale, before := f.stale, f.state()
	f.mu.Unlock()
	if err := f.answer(); err != nil {
		return pollResult{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.polls++
	if stale {
		return before, nil
	}
	return f.state(), nil
}

// state returns what a poll returns.
func (f *fakeServer) state() pollResult {
	v := pollResult{Chosen: []chosen{{PID: 1, Application: "me"}}}
	if len(f.blockers) > 0 {
		v.Waiting = []waiting{{PID: 1, Blockers: slices.Sorted(maps.Keys(f.blockers))}}
	}
	return v
}

func (f *fakeServer) pairs(_ context.Context, _ []int32, filters []inspect.Filter) ([]inspect.Pair, error) {
	f.mu.Lock()
	var pairs []inspect.Pair
	now := time.Now()
	for pid, b := range f.blockers {
		wait := &inspect.Lock{Session: &inspect.Session{PID: 1}, Type: "relation", Mode: "AccessExclusiveLock", RelationOID: 1}
		wait.WaitStart, wait.WaitDuration = f.began.Add(clockSkew), now.Sub(f.began)
		if f.noWaitStart {
			wait.WaitApprox = true
			wait.WaitStart, wait.WaitDuration = wait.WaitStart.Add(-time.Minute), wait.WaitDuration+time.Minute
		}
		if len(filters) > 0 && pid%2 == 0 {
			continue
		}
		pairs = append(pairs, inspect.Pair{Lock: wait, Hard: !b.soft, Blocking: &inspect.Session{
			PID: pid, BackendStart: b.backendStart.Add(clockSkew),
		}})
		if b.hasXactStart {
			pairs[len(pairs)-1].Blocking.XactStart = b.since.Add(clockSkew)
		}
	}
	f.mu.Unlock()
	return pairs, f.answer()
}

func (f *fakeServer) signal(_ context.Context, s signal.Request) (signal.Result, error) {
	if f.beforeSignal != nil {
		f.beforeSignal()
	}
	if err := f.answer(); err != nil {
		return signal.Result{Reason: inspect.Failed}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	b := f.blockers[s.Blocker]
	switch {
	case b == nil, !s.WaitStart.IsZero() && !s.WaitStart.Equal(f.began.Add(clockSkew)):
		return signal.Result{Reason: inspect.NotBlocking}, nil
	case !b.backendStart.Add(clockSkew).Equal(s.BlockerStart):
		return signal.Result{Reason: inspect.Gone}, nil
	case b.result != signal.Result{}:
		return b.result, nil
	case b.soft && !s.Queue:
		return signal.Result{Reason: inspect.Queued}, nil
	case s.Action == signal.Check:
		return signal.Result{}, nil
	}
	since := b.since
	if f.fromArrival {
		since = b.arrived
	}
	must := f.grace
	switch {
	case !b.hasXactStart && !b.arrived.After(f.firstAnswer):
		// While the watcher had no session, it may have left and come back unseen.
		must = 0
	case !b.hasXactStart:
		// It came at some time between two polls.
		must -= 2*maxInterval + 10*f.answerTime
	}
	if grace := time.Since(since); grace < must {
		f.wrong = append(f.wrong, fmt.Sprintf("%d had a grace of %v, not %v", s.Blocker, grace, f.grace))
	}
	f.signals = append(f.signals, fakeSignal{time.Now(), s.Blocker, s.Action})
	if !b.survives {
		f.remove(s.Blocker)
	}
	return signal.Result{Signaled: true}, nil
}

// run calls Run with the fake server.
func (f *fakeServer) run(t *testing.T, fn func(), opts ...RunOption) []Event {
	t.Helper()
	var events []Event
	opts = append(opts, OnEvent(func(e Event) { events = append(events, e) }))
	c, err := newConfig(opRun, opts)
	if err != nil {
		t.Fatal(err)
	}
	w := newWatcher(&c, Who{PIDs: []int32{1}}, f.connect)
	defer w.close()
	if err := w.during(t.Context(), true, func(context.Context) error { fn(); return nil }); err != nil {
		t.Fatal(err)
	}
	return events
}

func kinds(events []Event) (kinds []EventKind) {
	for _, e := range events {
		kinds = append(kinds, e.Kind)
	}
	return kinds
}

// in runs a test in a bubble, and checks that the watcher has closed what it opened.
func in(t *testing.T, test func(t *testing.T, f *fakeServer)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f := newFakeServer()
		test(t, f)
		if f.open != 0 {
			t.Errorf("%d sessions are left open", f.open)
		}
	})
}

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
