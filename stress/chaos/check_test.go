//go:build unix

package chaos

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

const ms = int64(time.Millisecond)

// hold returns an operation that held "k" from got to giving.
func hold(worker string, id, acquired, releasing int64, shared bool) *op {
	return &op{
		worker: worker, id: id, verb: "Lock", keys: []string{"k"}, shared: shared,
		requested: acquired - 1*ms, acquired: acquired, releasing: releasing, released: releasing + 1*ms, outcome: outOK,
	}
}

// withToken gives o the token of a lease.
func (o *op) withToken(token int64) *op {
	o.token, o.tokenKey = token, o.keys[0]
	return o
}

// lostAt makes o an operation that was notified of its loss.
func (o *op) lostAt(notified int64, text string) *op {
	o.notified, o.releasing, o.released, o.outcome, o.notifiedText = notified, notified+1, notified+2, outLost, text
	return o
}

func TestCheck(t *testing.T) {
	t.Parallel()
	const reason, silence = "lock lost: terminated", "no answer within the heartbeat"
	terminated := fault{Name: "backend terminated", Begin: 20 * ms, End: 22 * ms, Ends: 20 * ms, Worker: "a"}
	hole := fault{Name: "black hole", Begin: 20 * ms, End: 90 * ms, Ends: 80 * ms, Worker: "a"}
	asleep := terminated
	asleep.Asleep = 9000 * ms
	killed := hold("a", 1, 10*ms, 0, false)
	killed.releasing, killed.released, killed.outcome, killed.died = 0, 0, "", 30*ms
	tx := hold("a", 1, 10*ms, 50*ms, false)
	tx.verb, tx.outcome, tx.text = "LockTx", outBroken, "EOF"
	txDone := hold("a", 1, 10*ms, 50*ms, false)
	txDone.verb = "LockTx"
	other := hold("a", 1, 10*ms, 30*ms, false)
	other.outcome, other.text = outOther, "what?"
	endless := hold("a", 1, 10*ms, 0, false)
	endless.releasing, endless.released = 0, 0
	byPID := hold("a", 1, 10*ms, 0, false).lostAt(40*ms, reason)
	byPID.pid = 7
	elsewhere := terminated
	elsewhere.PID = 8

	for name, test := range map[string]struct {
		ops      []*op
		faults   []fault
		rests    []int64
		wrong    string // part of the error; "" means none
		overlaps int
		losses   int
	}{
		"one after the other": {ops: []*op{hold("a", 1, 10*ms, 30*ms, false), hold("b", 1, 31*ms, 40*ms, false)}},
		"shared together":     {ops: []*op{hold("a", 1, 10*ms, 30*ms, true), hold("b", 1, 20*ms, 40*ms, true)}},
		"two exclusive": {
			ops:   []*op{hold("a", 1, 10*ms, 30*ms, false), hold("b", 1, 20*ms, 40*ms, false)},
			wrong: "two held k",
		},
		"shared beside exclusive": {
			ops:   []*op{hold("a", 1, 10*ms, 30*ms, true), hold("b", 1, 20*ms, 40*ms, false)},
			wrong: "two held k",
		},
		"lost by a fault, then acquired at once": {
			ops:    []*op{hold("a", 1, 10*ms, 0, false).lostAt(40*ms, reason), hold("b", 1, 25*ms, 50*ms, false)},
			faults: []fault{terminated}, overlaps: 1, losses: 1,
		},
		"lost by a fault, but acquired before it": {
			ops:    []*op{hold("a", 1, 10*ms, 0, false).lostAt(40*ms, reason), hold("b", 1, 15*ms, 50*ms, false)},
			faults: []fault{terminated}, overlaps: 1, losses: 1, wrong: "two held k",
		},
		"released without an error after a fault": {
			ops:    []*op{hold("a", 1, 10*ms, 80*ms, false), hold("b", 1, 25*ms, 50*ms, false)},
			faults: []fault{terminated}, wrong: "two held k",
		},
		"shared and released without a statement": {
			ops:    []*op{hold("a", 1, 10*ms, 80*ms, true), hold("b", 1, 25*ms, 50*ms, false)},
			faults: []fault{terminated}, overlaps: 1,
		},
		"a fault of another worker": {
			ops:    []*op{hold("c", 1, 10*ms, 0, false).lostAt(40*ms, reason), hold("b", 1, 25*ms, 50*ms, false)},
			faults: []fault{terminated}, losses: 1, wrong: "two held k",
		},
		"a fault of another session": {
			ops:    []*op{byPID, hold("b", 1, 25*ms, 50*ms, false)},
			faults: []fault{elsewhere}, losses: 1, wrong: "two held k",
		},
		"a fault before a rest": {
			ops:    []*op{hold("a", 1, 30*ms, 0, false).lostAt(60*ms, reason), hold("b", 1, 40*ms, 50*ms, false)},
			faults: []fault{terminated}, rests: []int64{25 * ms}, losses: 1, wrong: "two held k",
		},
		"a black hole: notified before it is free": {
			ops:    []*op{hold("a", 1, 10*ms, 0, false).lostAt(40*ms, silence), hold("b", 1, 41*ms, 50*ms, false)},
			faults: []fault{hole}, losses: 1,
		},
		"a black hole: free before it is notified": {
			ops:    []*op{hold("a", 1, 10*ms, 0, false).lostAt(40*ms, silence), hold("b", 1, 30*ms, 50*ms, false)},
			faults: []fault{hole}, losses: 1, wrong: "two held k",
		},
		"lost for no reason":          {ops: []*op{hold("a", 1, 10*ms, 0, false).lostAt(40*ms, reason)}, losses: 1, wrong: "without a fault"},
		"lost to a machine that hung": {ops: []*op{hold("a", 1, 10*ms, 0, false).lostAt(40*ms, silence)}, losses: 1},
		"ignoring the loss": {
			ops:    []*op{hold("a", 1, 10*ms, 0, false).lostAt(5000*ms, reason), hold("b", 1, 25*ms, 50*ms, false)},
			faults: []fault{terminated}, overlaps: 1, losses: 1, wrong: "a holder continued",
		},
		"asleep": {
			ops:    []*op{hold("a", 1, 10*ms, 0, false).lostAt(9001*ms, reason), hold("b", 1, 25*ms, 50*ms, false)},
			faults: []fault{asleep}, overlaps: 1, losses: 1,
		},
		"killed, then acquired":     {ops: []*op{killed, hold("b", 1, 35*ms, 50*ms, false)}},
		"killed, acquired before":   {ops: []*op{killed, hold("b", 1, 29*ms, 50*ms, false)}, wrong: "two held k"},
		"a transaction that failed": {ops: []*op{tx, hold("b", 1, 25*ms, 50*ms, false)}, faults: []fault{terminated}, losses: 1},
		"a transaction that committed": {
			ops: []*op{txDone, hold("b", 1, 25*ms, 50*ms, false)}, faults: []fault{terminated}, wrong: "two held k",
		},
		"tokens that grow": {ops: []*op{hold("a", 1, 10*ms, 30*ms, false).withToken(5), hold("b", 1, 35*ms, 40*ms, false).withToken(6)}},
		"a token twice": {
			ops:   []*op{hold("a", 1, 10*ms, 30*ms, false).withToken(5), hold("b", 1, 35*ms, 40*ms, false).withToken(5)},
			wrong: "do not grow: 5",
		},
		"a token that is too low, after a third": {
			ops: []*op{
				hold("a", 1, 10*ms, 20*ms, false).withToken(5), hold("b", 1, 25*ms, 30*ms, false).withToken(7),
				hold("c", 1, 35*ms, 40*ms, false).withToken(6),
			},
			wrong: "do not grow: 7",
		},
		"a lease that expired": {ops: []*op{hold("a", 1, 10*ms, 0, false).lostAt(40*ms, "the lease could not be renewed in time")}, losses: 1},
		"an unexpected error":  {ops: []*op{other}, wrong: "unexpected error"},
		"without an end":       {ops: []*op{endless}, wrong: "never stopped holding"},
		"granted while another certainly held, and lost at once": {
			// It must not be granted even for an instant.
			ops: []*op{
				{worker: "a", id: 1, verb: "Lock", keys: []string{"k"}, requested: 24 * ms, acquired: 30 * ms, notified: 31 * ms, releasing: 32 * ms, released: 33 * ms, outcome: outLost, notifiedText: reason},
				hold("b", 1, 21*ms, 50*ms, false),
			},
			faults: []fault{terminated}, losses: 1, overlaps: 1, wrong: "not linearizable",
		},
	} {
		r := record{ops: test.ops, faults: test.faults, rests: append(test.rests, 1<<40), notice: 3 * time.Second}
		v := r.check(t.TempDir())
		wrong := strings.Join(v.wrong, "\n")
		if (wrong != "") != (test.wrong != "") || !strings.Contains(wrong, test.wrong) {
			t.Errorf("%s: wrong is %q, want %q", name, wrong, test.wrong)
		}
		if len(v.overlaps) != test.overlaps || len(v.losses) != test.losses {
			t.Errorf("%s: %d overlaps, %d losses; want %d, %d", name, len(v.overlaps), len(v.losses), test.overlaps, test.losses)
		}
	}
}

// with returns o with a token and, unless committed is 0, a fenced write that was committed.
func (o *op) with(token, fenced, committed int64) *op {
	o.token, o.tokenKey = token, "k"
	if committed != 0 {
		o.fenced, o.commit, o.wrote, o.wroteOutcome = fenced, committed, committed+1, outOK
	}
	return o
}

func TestCheckLeases(t *testing.T) {
	t.Parallel()
	const ttl = 5 * time.Second
	const gone = "lock lost: the lease was broken, or taken over after it expired"
	const expired = "lock lost: the lease " + unrenewed
	second := 1000 * ms
	paused := fault{Name: "process paused (SIGSTOP)", Worker: "a", Begin: 10 * second, Untold: 10 * second, Asleep: 17 * second, End: 17 * second}
	stepped := fault{Name: "clock stepped", Worker: "a", Begin: 10 * second, Untold: 10 * second, End: 10*second + 1}
	restarted := fault{Name: "server stopped, fast", Begin: 10 * second, Ends: 10 * second, End: 10*second + 900*ms}
	hole := fault{Name: "black hole, longer than the TTL", Worker: "a", Begin: 8 * second, Ends: 15 * second, End: 15 * second}
	lost := func(at int64, text string) *op { return hold("a", 1, 9*second, 0, false).lostAt(at, text) }
	unconfirmed := hold("a", 1, 9*second, 10*second+100*ms, false)
	unconfirmed.outcome = outUnconfirmed
	checked := lost(17*second+100*ms, expired)
	checked.checked = 17*second + 50*ms
	late := hold("b", 1, 9*second+10*ms, 9*second+20*ms, false).with(5, 0, 0)
	late.requested = 8 * second
	writer := func() *op { return lost(11*second, gone).with(5, 9*second, 12*second) }

	for name, test := range map[string]struct {
		ops      []*op
		faults   []fault
		log      []logged
		wrong    string // part of the error; "" means none
		overlaps int
		losses   int
	}{
		"notified, then taken over": {
			ops:    []*op{lost(12*second, expired), hold("b", 1, 13*second, 14*second, false)},
			faults: []fault{hole}, losses: 1,
		},
		"taken over, then notified": {
			ops:    []*op{lost(13*second, expired), hold("b", 1, 12*second, 14*second, false)},
			faults: []fault{hole}, losses: 1, wrong: "two held k",
		},
		"taken over while it was stopped": {
			ops:    []*op{lost(17*second+100*ms, expired), hold("b", 1, 15*second, 16*second, false)},
			faults: []fault{paused}, losses: 1, overlaps: 1,
		},
		"told after it woke up that it holds the lease": {
			ops:    []*op{checked, hold("b", 1, 15*second, 16*second, false)},
			faults: []fault{paused}, losses: 1, overlaps: 1, wrong: "two held k",
		},
		"not notified when it woke up": {
			ops:    []*op{lost(18*second, expired), hold("b", 1, 15*second, 16*second, false)},
			faults: []fault{paused}, losses: 1, overlaps: 1, wrong: "a holder continued",
		},
		"taken over before it was stopped": {
			ops:    []*op{lost(17*second, expired), hold("b", 1, 9*second+500*ms, 16*second, false)},
			faults: []fault{paused}, losses: 1, overlaps: 1, wrong: "two held k",
		},
		"released without an error, but taken over": {
			ops:    []*op{hold("a", 1, 9*second, 18*second, false), hold("b", 1, 15*second, 16*second, false)},
			faults: []fault{paused}, wrong: "two held k",
		},
		"taken over after a step of the clock": {
			ops:    []*op{lost(12*second, gone), hold("b", 1, 11*second, 13*second, false)},
			faults: []fault{stepped}, losses: 1, overlaps: 1,
		},
		"not notified at the next renewal after a step of the clock": {
			ops:    []*op{lost(15*second, gone), hold("b", 1, 11*second, 13*second, false)},
			faults: []fault{stepped}, losses: 1, overlaps: 1, wrong: "a holder continued",
		},
		"lost to a server that was restarted":        {ops: []*op{lost(11*second, expired)}, faults: []fault{restarted}, losses: 1, wrong: "took only 900ms"},
		"not released by a server that is restarted": {ops: []*op{unconfirmed}, faults: []fault{restarted}, losses: 1},
		"lost to a machine that hung":                {ops: []*op{lost(11*second, expired)}, losses: 1},
		"lost for no reason":                         {ops: []*op{lost(11*second, gone)}, losses: 1, wrong: "without a fault"},
		"tokens that grow":                           {ops: []*op{hold("a", 1, 10*ms, 20*ms, false).with(5, 0, 0), hold("b", 1, 30*ms, 40*ms, false).with(6, 0, 0)}},
		"the same token":                             {ops: []*op{hold("a", 1, 10*ms, 20*ms, false).with(5, 0, 0), hold("b", 1, 30*ms, 40*ms, false).with(5, 0, 0)}, wrong: "do not grow"},
		"a smaller token": {
			ops: []*op{
				hold("a", 1, 10*ms, 20*ms, false).with(5, 0, 0), hold("b", 1, 30*ms, 40*ms, false).with(7, 0, 0),
				hold("a", 2, 50*ms, 60*ms, false).with(6, 0, 0),
			},
			wrong: "do not grow",
		},
		"writes in order": {
			ops:    []*op{writer(), hold("b", 1, 13*second, 15*second, false).with(6, 13*second, 14*second)},
			faults: []fault{stepped}, losses: 1,
			log: []logged{{"k", 1, 5, "a", 1}, {"k", 2, 6, "b", 1}},
		},
		"a stale write": {
			ops:    []*op{writer(), hold("b", 1, 13*second, 15*second, false).with(6, 13*second, 14*second)},
			faults: []fault{stepped}, losses: 1,
			log: []logged{{"k", 1, 6, "b", 1}, {"k", 2, 5, "a", 1}}, wrong: "stale fenced write",
		},
		"overtaken": {
			ops:    []*op{writer(), hold("b", 1, 11*second+500*ms, 15*second, false).with(6, 0, 0)},
			faults: []fault{stepped}, losses: 1,
			log: []logged{{"k", 1, 5, "a", 1}}, wrong: "was overtaken",
		},
		"acquired before, and learned late": {
			ops: []*op{late, hold("a", 1, 9*second, 10*second, false).with(6, 9*second, 9*second+500*ms)},
			log: []logged{{"k", 1, 6, "a", 1}}, wrong: "two held k", // but not overtaken
		},
		"a write that is gone": {
			ops:   []*op{hold("a", 1, 9*second, 10*second, false).with(6, 9*second, 9*second+500*ms)},
			wrong: "is gone",
		},
		"a write of nobody": {
			ops: []*op{hold("a", 1, 9*second, 10*second, false).with(6, 0, 0)},
			log: []logged{{"k", 1, 6, "a", 1}}, wrong: "is not that of",
		},
	} {
		r := record{ops: test.ops, faults: test.faults, rests: []int64{1 << 40}, ttl: ttl, log: test.log}
		v := r.check(t.TempDir())
		wrong := strings.Join(v.wrong, "\n")
		if (wrong != "") != (test.wrong != "") || !strings.Contains(wrong, test.wrong) || strings.Contains(wrong, "overtaken") != (test.wrong == "was overtaken") {
			t.Errorf("%s: wrong is %q, want %q", name, wrong, test.wrong)
		}
		if len(v.overlaps) != test.overlaps || len(v.losses) != test.losses {
			t.Errorf("%s: %d overlaps, %d losses; want %d, %d", name, len(v.overlaps), len(v.losses), test.overlaps, test.losses)
		}
	}
}

// Two independent checkers agree about random histories.
func TestCheckersAgree(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	good, bad := 0, 0
	for range 5000 {
		var history []*claim
		for i := range 2 + r.IntN(6) {
			requested := r.Int64N(40)
			acquired := requested + r.Int64N(6)
			free := acquired + 1 + r.Int64N(10)
			freed := free + r.Int64N(20)
			o := &op{worker: fmt.Sprint(i), requested: requested, acquired: acquired, shared: r.IntN(2) == 0}
			history = append(history, &claim{op: o, key: "k", acquired: acquired, free: free, until: free, freed: freed})
		}
		pairs := conflicts(history)
		if porcupine.CheckOperations(lockModel(), operations(history)) != (len(pairs) == 0) {
			for _, c := range history {
				t.Logf("%+v asked %d shared %v", c, c.op.requested, c.op.shared)
			}
			t.Fatalf("seed %d: porcupine does not agree with %v", seed, pairs)
		}
		if len(pairs) == 0 {
			good++
		} else {
			bad++
		}
	}
	if good < 100 || bad < 100 {
		t.Errorf("only %d right and %d wrong histories", good, bad)
	}
}
