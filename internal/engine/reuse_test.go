package engine

import (
	"context"
	"strings"
	"testing"
	"time"
)

// A session may be lost just before it sends a statement, because the watchdog may be a
// moment late. By then the locks of its operations may be reused for other keys, and it
// must not read them.
func TestAskingWhenTheEntryIsUsedAgain(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		ops  []op
	}{
		{"one", []op{{kind: opTry}}},
		{"several", []op{{kind: opTry}, {kind: opTry}}},
		{"waiting", []op{{kind: opWait}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			e := New(Config{Heartbeat: time.Hour, Slice: time.Second})
			var said listener
			s := &session{
				engine: e, conn: &said, prefix: "1:", wakeup: make(chan struct{}, 1),
				watchdog: time.AfterFunc(time.Hour, func() {}), waitEnd: time.Now(),
			}
			defer s.watchdog.Stop()

			e.mu.Lock()
			var before []*localLock
			for i, o := range test.ops {
				o.lock = e.localLock(Key{ID: int64(71 + i)})
				o.lock.state, o.lock.session = trying, s
				before = append(before, o.lock)
				s.push(o)
			}
			if test.ops[0].kind == opWait {
				before[0].state, s.waiting = waiting, before[0]
			}
			s.fillBatch()
			s.markLost(errSilent)
			again := make(map[*localLock]bool)
			for i := range before {
				again[e.localLock(Key{ID: int64(81 + i), Pair: true})] = true
			}
			e.unlockMu()
			for _, l := range before {
				if !again[l] {
					t.Fatal("the lock is not reused, so this test checks nothing")
				}
			}

			if err := s.runBatch(); err == nil {
				t.Error("a lost session continued")
			}
			if !strings.Contains(string(said), "71") || strings.Contains(string(said), "81") || strings.ContainsAny(string(said), "PR") {
				t.Errorf("it sent %q", string(said))
			}
		})
	}
}

// A key may be lost and dropped while a probe for its waiters is running. The result must
// not be applied to the next key, whose readers would overtake a writer.
func TestAnswerToAProbeOfALostKey(t *testing.T) {
	inBubble(t, func(t *bench) {
		three := Key{ID: 3}
		e, o := t.engine(), t.outsider()
		// Three sessions: the first holds one, the second waits for three, and the third
		// probes for waiters of one, which takes a while.
		o.try(three, Exclusive)
		first := t.acquire(e, one, Shared)
		waiting := t.start(e, three, Exclusive, Wait{})
		time.Sleep(50 * time.Millisecond)
		t.must(t.acquire(e, one, Shared).Release())
		time.Sleep(50 * time.Millisecond)
		t.once(1, "locks Q1", fault{takes: time.Second})
		late := t.start(e, one, Shared, Wait{})
		time.Sleep(trip)
		late.cancel()
		<-late.done
		t.terminate(first.PID())
		<-first.Done()
		o.unlock(three, Exclusive)
		<-waiting.done
		t.must(waiting.err)
		if n := e.Stats().Sessions; n != 2 {
			t.Fatalf("%d sessions are left, so this test checks nothing", n)
		}

		reader := t.acquire(e, two, Shared)
		if reader.PID() != waiting.hold.PID() {
			t.Fatal("the reader's session is the one that probes, so this test checks nothing")
		}
		turn := o.wait(two, Exclusive)
		time.Sleep(50 * time.Millisecond)
		late = t.start(e, two, Shared, Wait{})
		time.Sleep(2 * time.Second)
		if late.finished() {
			t.Fatal("a reader overtook the writer")
		}
		t.must(reader.Release())
		<-turn
		o.unlock(two, Exclusive)
		t.grantedWithin(late, 10*time.Millisecond)
		t.must(waiting.hold.Release())
	})
}

// A listener is a session that replies yes to everything, and records the statements.
type listener string

func (a *listener) QueryText(_ context.Context, sql string, args ...string) (string, error) {
	*a += listener(strings.Join(args, " "))
	if strings.Contains(sql, ">> 32") && !strings.Contains(sql, "unnest") {
		*a += " P"
	}
	return "1:" + strings.Repeat("1", max(1, strings.Count(args[0], ",")+1)), nil
}

func (a *listener) QueryTextSimple(ctx context.Context, sql string) (string, error) {
	return a.QueryText(ctx, sql)
}
func (a *listener) Exec(context.Context, string, ...any) error { return nil }

func (a *listener) Watch(context.Context) error { return nil }
func (a *listener) PID() uint32                 { return 1 }
func (a *listener) Close() error                { return nil }
