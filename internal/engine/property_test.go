package engine

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/pglock-go/pglock/internal/sqlstate"
)

// TestAnyProgram runs random programs of several processes with several goroutines each,
// against a server on which anything may fail, and compares what the engine promises with
// what the server knows.
//
// Go's scheduler is not reproducible: a failure that -rapid.failfile does not reproduce
// at once may need some more tries.
func TestAnyProgram(t *testing.T) {
	if f := flag.Lookup("rapid.checks"); f.Value.String() == f.DefValue {
		f.Value.Set("400")
		defer f.Value.Set(f.DefValue)
	}
	rapid.Check(t, func(rt *rapid.T) {
		p := rapid.Custom(drawProgram).Draw(rt, "program")
		var problems, trace []string
		synctest.Test(t, func(t *testing.T) { problems, trace = p.run() })
		if len(problems) > 0 {
			if len(trace) > 400 {
				trace = trace[len(trace)-400:]
			}
			rt.Fatalf("\n%s\n\n%s", strings.Join(trace, "\n"), strings.Join(problems, "\n"))
		}
	})
}

// A program is what several processes do, and what happens to them.
type program struct {
	Seed        uint64
	Processes   []process
	Faults      rates
	CannotWatch bool
	Events      []event
	Workers     []worker
}

type process struct {
	Sessions                   int
	Slice, HandOver, Heartbeat time.Duration
}

// rates are how often something goes wrong, per thousand statements.
type rates struct {
	Slow                                 time.Duration // the longest transit time
	Fails, Lies, Swaps, Dies, Cuts, Open int
}

func (r rates) any() bool { return r.Fails+r.Lies+r.Swaps+r.Dies+r.Cuts+r.Open > 0 }

type event struct {
	At   time.Duration
	What string
	Pick int
}

type worker struct {
	Process int
	Steps   []step
}

type step struct {
	Sleep    time.Duration
	Keys     []int // more than one: together
	Mode     Mode
	Wait     Wait
	Cancel   time.Duration // of ctx, 0 for never
	Deadline bool          // ctx has a deadline rather than a cancel
	Hold     time.Duration
	Releases int
}

var testKeys = []Key{{ID: 7}, {ID: 7<<32 | 7, Pair: true}, {ID: -1}, {ID: 1 << 40}}

func drawProgram(rt *rapid.T) program {
	durations := func(label string, ds ...time.Duration) time.Duration { return rapid.SampledFrom(ds).Draw(rt, label) }
	millis := func(label string, most int) time.Duration {
		return time.Duration(rapid.IntRange(0, most).Draw(rt, label)) * time.Millisecond
	}
	p := program{Seed: rapid.Uint64().Draw(rt, "seed"), CannotWatch: rapid.Bool().Draw(rt, "deaf")}
	keys := rapid.IntRange(1, len(testKeys)).Draw(rt, "keys")
	for range rapid.IntRange(1, 3).Draw(rt, "processes") {
		p.Processes = append(p.Processes, process{
			Sessions:  rapid.SampledFrom([]int{1, 2, 3, 8}).Draw(rt, "sessions"),
			Slice:     durations("slice", 10*time.Millisecond, 50*time.Millisecond, 750*time.Millisecond),
			HandOver:  durations("hand over", 0, 2*time.Millisecond, 25*time.Millisecond),
			Heartbeat: durations("heartbeat", 100*time.Millisecond, time.Second, 10*time.Second),
		})
	}
	rate := func(label string) int { return rapid.SampledFrom([]int{0, 0, 0, 10, 50, 200}).Draw(rt, label) }
	p.Faults = rates{Slow: durations("slow", 0, 100*time.Microsecond, 3*time.Millisecond, 15*time.Millisecond)}
	if rapid.Bool().Draw(rt, "faulty") {
		p.Faults.Fails, p.Faults.Lies, p.Faults.Swaps = rate("fails"), rate("lies"), rate("swaps")
		p.Faults.Dies, p.Faults.Cuts, p.Faults.Open = rate("dies"), rate("cuts"), rate("open")
	}
	for range rapid.IntRange(0, 6).Draw(rt, "events") {
		kinds := []string{"cancel", "close"}
		if p.Faults.any() {
			kinds = append(kinds, "terminate", "silence")
		}
		p.Events = append(p.Events, event{
			At: millis("at", 400), What: rapid.SampledFrom(kinds).Draw(rt, "what"), Pick: rapid.IntRange(0, 9).Draw(rt, "pick"),
		})
	}
	for range rapid.IntRange(1, 8).Draw(rt, "workers") {
		w := worker{Process: rapid.IntRange(0, len(p.Processes)-1).Draw(rt, "process")}
		for range rapid.IntRange(1, 6).Draw(rt, "steps") {
			s := step{Sleep: millis("sleep", 15), Releases: rapid.IntRange(1, 2).Draw(rt, "releases")}
			for range rapid.SampledFrom([]int{1, 1, 1, 1, 2, 3}).Draw(rt, "together") {
				s.Keys = append(s.Keys, rapid.IntRange(0, keys-1).Draw(rt, "key"))
			}
			s.Mode = Mode(rapid.IntRange(0, 1).Draw(rt, "mode"))
			switch rapid.IntRange(0, 3).Draw(rt, "wait") {
			case 0:
				s.Wait.No = true
			case 1:
				s.Wait.For = time.Millisecond + millis("for", 60)
			}
			if rapid.IntRange(0, 2).Draw(rt, "ctx") == 0 {
				s.Cancel, s.Deadline = 500*time.Microsecond+millis("cancel", 60), rapid.Bool().Draw(rt, "deadline")
			}
			s.Hold = durations("hold", 0, 0, time.Millisecond, 10*time.Millisecond, 100*time.Millisecond, 2*time.Second)
			w.Steps = append(w.Steps, s)
		}
		p.Workers = append(p.Workers, w)
	}
	return p
}

// A world is a running program. server.mu guards all of it.
type world struct {
	p         program
	server    *server
	rng       *rand.Rand
	processes []*running
	claims    []*claim
	problems  []string
	calm      bool // nothing goes wrong any more
}

type running struct {
	process
	engine   *Engine
	pending  map[Key]int // requests and Holds whose Release has not returned
	closing  bool
	acquired uint64
	lost     uint64 // guarded by Engine.mu
}

// A claim is a Hold that has been returned and whose Release has not been called.
type claim struct {
	p        *running
	h        *Hold
	key      Key
	mode     Mode
	told     bool // Notify reported the loss
	released bool
}

func (w *world) wrong(format string, args ...any) {
	if len(w.problems) < 5 {
		w.problems = append(w.problems, time.Now().Format("05.000000 ")+fmt.Sprintf(format, args...))
	}
}

func (p program) run() (problems, trace []string) {
	s := newServer()
	w := &world{p: p, server: s, rng: rand.New(rand.NewPCG(p.Seed, 0))}
	s.cannotWatch = p.CannotWatch
	s.fault, s.refuse, s.granting, s.notice = w.fault, w.refuse, w.granting, w.notice
	for _, pr := range p.Processes {
		w.processes = append(w.processes, &running{process: pr, pending: make(map[Key]int), engine: New(Config{
			Open: s.open, Sessions: pr.Sessions, Slice: pr.Slice, HandOver: pr.HandOver, Heartbeat: pr.Heartbeat,
		})})
	}

	var work sync.WaitGroup
	for _, wk := range p.Workers {
		work.Go(func() { w.work(w.processes[wk.Process], wk.Steps) })
	}
	for _, ev := range p.Events {
		work.Go(func() { w.happen(ev) })
	}
	worked, stop, checked := make(chan struct{}), make(chan struct{}), make(chan struct{})
	go func() { work.Wait(); close(worked) }()
	go func() {
		defer close(checked)
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			case <-time.After(time.Duration(1+n*n/500) * 700 * time.Microsecond):
			}
			synctest.Wait()
			w.check()
		}
	}()

	select {
	case <-worked:
	case <-time.After(5 * time.Minute):
		w.problem("some request hangs\n%s", w.dump())
	}
	close(stop)
	<-checked
	s.mu.Lock()
	w.calm = true
	s.mu.Unlock()
	// A request that gave up while its session was silent leaves the rest to the engine.
	time.Sleep((maxRetries+1)*openTimeout + 10*time.Second)
	synctest.Wait()
	w.atRest()
	for _, pr := range w.processes {
		began := time.Now()
		pr.engine.Close()
		if d := time.Since(began); d > pr.Heartbeat+time.Second {
			w.problem("closing took %v with nothing held", d)
		}
		if st := pr.engine.Stats(); st.Sessions != 0 || st.Held != 0 || st.Waiting != 0 {
			w.problem("after Close: %+v", st)
		}
	}
	<-worked
	time.Sleep(time.Minute)
	if pids := s.pids(); len(pids) > 0 {
		w.problem("sessions are left: %v", pids)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, wrong := range s.wrongs {
		w.wrong("the session was misused: %s", wrong)
	}
	return w.problems, s.trace
}

func (w *world) problem(format string, args ...any) {
	w.server.mu.Lock()
	defer w.server.mu.Unlock()
	w.wrong(format, args...)
}

// chance reports true for n in a thousand calls. server.mu must be held.
func (w *world) chance(rate int) bool { return !w.calm && rate > 0 && w.rng.IntN(1000) < rate }

func (w *world) transit() time.Duration {
	if w.p.Faults.Slow == 0 || w.rng.IntN(4) == 0 {
		return 0
	}
	return time.Duration(w.rng.Int64N(int64(w.p.Faults.Slow)))
}

var serverErrors = []pgError{sqlstate.OutOfMemory, sqlstate.QueryCanceled, sqlstate.LockNotAvailable, sqlstate.DeadlockDetected, "XX000"}

func (w *world) fault(b *backend, st *statement) fault {
	w.server.mu.Lock()
	defer w.server.mu.Unlock()
	f := fault{there: w.transit(), back: w.transit()}
	if w.rng.IntN(4) == 0 {
		f.takes = w.transit()
	}
	if w.chance(w.p.Faults.Fails) {
		f.err = serverErrors[w.rng.IntN(len(serverErrors))]
		f.done = w.rng.IntN(len(st.ops) + 1)
		f.half = w.rng.IntN(2) == 0
	}
	f.lie, f.swap = w.chance(w.p.Faults.Lies), w.chance(w.p.Faults.Swaps)
	if w.chance(w.p.Faults.Dies) {
		f.die = point(1 + w.rng.IntN(2))
	}
	if w.chance(w.p.Faults.Cuts) {
		f.cut = point(1 + w.rng.IntN(2))
	}
	return f
}

func (w *world) refuse() (time.Duration, error) {
	w.server.mu.Lock()
	defer w.server.mu.Unlock()
	d := w.transit()
	if w.chance(w.p.Faults.Open) {
		switch w.rng.IntN(3) {
		case 0:
			return d, pgError(sqlstate.TooManyConnections)
		case 1:
			return d, errors.New("connection refused")
		default:
			return time.Hour, errors.New("never comes")
		}
	}
	return d, nil
}

// notice returns how soon the server notices that the client is gone.
func (w *world) notice(b *backend, cut bool) time.Duration {
	if !cut {
		return w.transit()
	}
	for _, p := range w.processes {
		if p.owns(b) && w.rng.IntN(3) > 0 {
			return p.Heartbeat*7/2 + time.Second
		}
	}
	return time.Duration(w.rng.IntN(50)) * time.Millisecond
}

// owns reports whether b belongs to a session that the engine relies on.
func (p *running) owns(b *backend) bool {
	p.engine.mu.Lock()
	defer p.engine.mu.Unlock()
	return slices.ContainsFunc(p.engine.sessions, func(s *session) bool { return s.conn == Conn(b) })
}

func (w *world) happen(ev event) {
	time.Sleep(ev.At)
	if ev.What == "close" {
		if ev.Pick < len(w.processes)*2 { // not each time
			return
		}
		p := w.processes[ev.Pick%len(w.processes)]
		w.server.mu.Lock()
		p.closing = true
		w.server.logf("process %d closes", ev.Pick%len(w.processes))
		w.server.mu.Unlock()
		began := time.Now()
		p.engine.Close()
		if d := time.Since(began); d > closeTimeout+p.Heartbeat+time.Second {
			w.problem("closing took %v", d)
		}
		return
	}
	pids := w.server.pids()
	if len(pids) == 0 {
		return
	}
	pid := pids[ev.Pick%len(pids)]
	switch ev.What {
	case "cancel":
		w.server.interrupt(pid)
	case "terminate":
		w.server.terminate(pid)
	case "silence":
		w.server.silence(pid)
	}
}

func (w *world) work(p *running, steps []step) {
	for _, s := range steps {
		time.Sleep(s.Sleep)
		ctx, cancel := context.Background(), context.CancelFunc(func() {})
		if s.Cancel > 0 && s.Deadline {
			ctx, cancel = context.WithTimeout(ctx, s.Cancel)
		} else if s.Cancel > 0 {
			ctx, cancel = context.WithCancel(ctx)
			time.AfterFunc(s.Cancel, cancel)
		}
		var keys []Key
		for _, i := range s.Keys {
			keys = append(keys, testKeys[i])
		}
		w.server.mu.Lock()
		for _, key := range keys {
			p.pending[key]++
		}
		w.server.mu.Unlock()

		began := time.Now()
		var holds []*Hold
		var errs []error
		wait := s.Wait
		if len(keys) > 1 {
			wait.No = true
			holds, errs = p.engine.AcquireAll(ctx, keys, s.Mode, Wait{})
		} else {
			h, err := p.engine.Acquire(ctx, keys[0], s.Mode, s.Wait)
			holds, errs = []*Hold{h}, []error{err}
		}
		cancel()
		w.inTime(p, began, wait, s.Cancel)
		if slices.ContainsFunc(errs, func(err error) bool { return err != nil }) {
			time.Sleep(time.Nanosecond) // lets sessions that are being closed finish
		}

		var claims []*claim
		for i, h := range holds {
			w.acquired(p, keys[i], s.Mode, h, errs[i], wait, s.Cancel > 0, began, &claims)
		}
		if len(claims) == 0 {
			continue
		}
		time.Sleep(s.Hold)
		w.server.mu.Lock()
		for _, c := range claims {
			w.claims = slices.DeleteFunc(w.claims, func(other *claim) bool { return other == c })
		}
		w.server.mu.Unlock()
		for range s.Releases {
			errs := make([]error, len(claims))
			if len(claims) == 1 {
				errs[0] = claims[0].h.Release()
			} else {
				var hs []*Hold
				for _, c := range claims {
					hs = append(hs, c.h)
				}
				errs = p.engine.ReleaseAll(hs)
			}
			for i, c := range claims {
				w.released(c, errs[i])
			}
		}
	}
}
