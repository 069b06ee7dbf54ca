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
