package session

import (
	"context"
	"strings"
	"testing"
	"time"
)

// A session may be lost while it is about to ask: the watchdog may be a moment late.
// By the time that it asks, the entries that it was asked about may be used again for
// other keys, at which it must not look.
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
			c := &conn{
				engine: e, s: &said, prefix: "1:", wake: make(chan struct{}, 1),
				dog: time.AfterFunc(time.Hour, func() {}), waitEnds: time.Now(),
			}
			defer c.dog.Stop()

			e.mu.Lock()
			var before []*entry
			for i, o := range test.ops {
				o.ent = e.entry(Key{ID: int64(71 + i)})
				o.ent.state, o.ent.conn = trying, c
				before = append(before, o.ent)
				c.push(o)
			}
			if test.ops[0].kind == opWait {
				before[0].state, c.waiting = waiting, before[0]
			}
			c.takeBatch()
			e.lose(c, errSilent)
			again := make(map[*entry]bool)
			for i := range before {
				again[e.entry(Key{ID: int64(81 + i), Pair: true})] = true
			}
			e.unlock()
			for _, ent := range before {
				if !again[ent] {
					t.Fatal("the entry is not used again, which makes this test one of nothing")
				}
			}

			if err := c.work(); err == nil {
				t.Error("a lost session went on")
			}
			if !strings.Contains(string(said), "71") || strings.Contains(string(said), "81") || strings.ContainsAny(string(said), "PR") {
				t.Errorf("it asked about %q", string(said))
			}
		})
	}
}

// listener is a session that says yes to what it is asked, and remembers it.
type listener string

func (a *listener) Ask(_ context.Context, sql string, args ...string) (string, error) {
	*a += listener(strings.Join(args, " "))
	if strings.Contains(sql, ">> 32") && !strings.Contains(sql, "unnest") {
		*a += " P"
	}
	return "1:" + strings.Repeat("1", max(1, strings.Count(args[0], ",")+1)), nil
}

func (a *listener) AskSimple(ctx context.Context, sql string) (string, error) { return a.Ask(ctx, sql) }
func (a *listener) Exec(context.Context, string, ...any) error                { return nil }

func (a *listener) Watch(context.Context) error { return nil }
func (a *listener) PID() uint32                 { return 1 }
func (a *listener) Close() error                { return nil }
