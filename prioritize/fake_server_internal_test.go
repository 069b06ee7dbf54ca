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
