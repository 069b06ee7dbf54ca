package inspect

import (
	"slices"
	"testing"
)

// Workers that wait are their leader, however many of them wait.
func TestWorkersThatWait(t *testing.T) {
	session := func(pid, leader int32) *Session { return &Session{PID: pid, LeaderPID: leader} }
	leader, worker1, worker2, holder, ahead := session(1, 0), session(2, 1), session(3, 1), session(4, 0), session(5, 4)
	lock := func(s *Session, mode string, granted bool) Lock {
		return Lock{Session: s, Type: typeRelation, RelationOID: 9, Mode: mode, Granted: granted}
	}
	r := &reading{
		sessions: map[int32]*Session{1: leader, 2: worker1, 3: worker2, 4: holder, 5: ahead},
		waits:    map[int32][]int32{2: {4, 4, 1}, 3: {4}},
		locks: []Lock{
			lock(worker1, "AccessShareLock", false),
			lock(worker2, "AccessShareLock", false),
			lock(ahead, "AccessExclusiveLock", true), // a worker of holder
			lock(leader, "AccessShareLock", true),
		},
	}
	pairs := r.pairs()
	if len(pairs) != 1 {
		t.Fatalf("%d pairs, want 1: %+v", len(pairs), pairs)
	}
	if p := pairs[0]; p.Session != leader || p.Blocking != holder || p.Block != Hard || p.Held.Session != ahead || p.waiter != 2 {
		t.Errorf("%+v", p)
	}
	if r.locks[0].Session != worker1 {
		t.Error("the lock itself was changed")
	}
}

func TestNumbersIn(t *testing.T) {
	for text, want := range map[string][]int32{
		"4711":                       {4711},
		"4711 ":                      {4711}, // blocked by nobody any more
		"1 2147483647 0":             {1, 2147483647, 0},
		"":                           nil,
		" 1":                         nil,
		"1  2":                       nil,
		"1,2":                        nil,
		"-1":                         nil,
		"2147483648":                 nil,
		"99999999999999999999999999": nil,
	} {
		if got, ok := numbersIn(text); !slices.Equal(got, want) || ok != (want != nil) {
			t.Errorf("%q: %v, %t", text, got, ok)
		}
	}
}
