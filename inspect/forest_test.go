package inspect

import (
	"math/rand/v2"
	"testing"
	"time"
)

// For any pairs, each waiter is in the forest in full once, the forest is finite, and
// the counts are those of the reachable sessions.
func TestForestOfAnything(t *testing.T) {
	for seed := range uint64(2000) {
		random := rand.New(rand.NewPCG(seed, 1))
		sessions := make([]*Session, 1+random.IntN(9))
		for i := range sessions {
			sessions[i] = &Session{PID: int32(i + 1)}
		}
		var pairs []Pair
		involved := map[*Session]bool{}
		for range random.IntN(20) {
			a, b := sessions[random.IntN(len(sessions))], sessions[random.IntN(len(sessions))]
			pairs = append(pairs, Pair{
				Lock:     &Lock{Session: a, WaitDuration: time.Duration(random.IntN(5))},
				Blocking: b,
				Hard:     random.IntN(2) != 0,
			})
			if a != b {
				involved[a] = true
			}
		}
		seen := map[*Session]int{}
		var walk func(trees []*Tree, depth int)
		walk = func(trees []*Tree, depth int) {
			for _, tree := range trees {
				if tree.Depth != depth || (tree.Pair == nil) != (depth == 0) {
					t.Fatalf("seed %d: %d at depth %d, want %d", seed, tree.PID, tree.Depth, depth)
				}
				if tree.Again {
					if len(tree.Blocked) != 0 {
						t.Fatalf("seed %d: %d is drawn out again", seed, tree.PID)
					}
					continue
				}
				seen[tree.Session]++
				for _, b := range tree.Blocked {
					if b.Session == tree.Session {
						t.Fatalf("seed %d: %d waits for itself", seed, b.PID)
					}
				}
				walk(tree.Blocked, depth+1)
			}
		}
		forest := (&Snapshot{Pairs: pairs}).Forest()
		walk(forest, 0)
		for s := range involved {
			if seen[s] != 1 {
				t.Fatalf("seed %d: %d is there %d times", seed, s.PID, seen[s])
			}
		}
		for s, n := range seen {
			if n != 1 {
				t.Fatalf("seed %d: %d is there %d times", seed, s.PID, n)
			}
		}
		for i := 1; i < len(forest); i++ {
			if forest[i-1].Behind < forest[i].Behind {
				t.Fatalf("seed %d: the roots are out of order", seed)
			}
		}
	}
}

func TestOrder(t *testing.T) {
	locks := []Lock{
		{Type: "a", Granted: true},
		{Type: "b", Session: &Session{}, WaitDuration: 1},
		{Type: "c", Granted: true},
		{Type: "d", Session: &Session{}, WaitDuration: 2},
		{Type: "e", Granted: true},
	}
	order(locks)
	got := ""
	for _, l := range locks {
		got += l.Type
	}
	if got != "dbace" {
		t.Errorf("%s, want dbace", got)
	}
}
