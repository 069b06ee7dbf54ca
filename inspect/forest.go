package inspect

import (
	"cmp"
	"math/bits"
	"slices"
	"time"
)

// A Tree is a session and the sessions that wait for it.
type Tree struct {
	*Session // never nil

	// Pair is how the session above blocks it; nil at a root.
	Pair *Pair

	Depth int // 0 at a root

	// Behind is how many sessions wait for this one, directly or indirectly.
	Behind int

	// Longest is the longest wait of the sessions behind it.
	Longest time.Duration

	// Cycle is true if the session waits for itself through others: either a
	// deadlock, which Postgres resolves after deadlock_timeout, or a cycle through
	// the order of a lock queue, which Postgres resolves too.
	Cycle bool

	// Again is true if the session is also elsewhere in the forest, with its subtree,
	// because several sessions hold the lock that it waits for.
	Again bool

	// Blocked lists the sessions that wait for this one: those for which it holds the
	// lock, and those that are only behind it in a lock queue if no session holds a
	// conflicting lock. The longest wait comes first.
	Blocked []*Tree
}

// Forest returns the trees of waiting sessions. Each root is a session or a prepared
// transaction that waits for nothing, or one session of a cycle. The root with the
// most sessions behind it comes first. A waiting session is below each holder of the
// lock it waits for, but its subtree is there only once. With pids, Forest returns
// only the trees that contain one of these sessions.
//
// Forest uses only Pairs, so it also returns the trees of a Snapshot that has only the
// pairs of [Blocked]. If a blocking session waits itself, its own pairs must be
// included for the tree to reach its root.
func (s *Snapshot) Forest(pids ...int32) []*Tree {
	g := newGraph(s.Pairs)
	trees := g.trees()
	if len(pids) > 0 {
		trees = slices.DeleteFunc(trees, func(t *Tree) bool { return !t.has(pids) })
	}
	return trees
}

func (t *Tree) has(pids []int32) bool {
	return slices.Contains(pids, t.PID) || slices.ContainsFunc(t.Blocked, func(b *Tree) bool { return b.has(pids) })
}

// A graph records which sessions wait for which. A session is represented by its
// index in nodes.
type graph struct {
	nodes     []*Session
	index     map[*Session]int
	waiters   [][]edge // from a session to those it blocks
	component []int    // the strongly connected component of each node; a cycle if larger than 1
	size      []int    // of each component
	behind    []int
	wait      []time.Duration // the wait of each node
	placed    []bool
}

type edge struct {
	to   int
	pair *Pair
}

func newGraph(pairs []Pair) *graph {
	g := &graph{index: map[*Session]int{}}
	// If a session waits for a holder, leave out the sessions that are only ahead of
	// it in the same queue: they would make the picture deeper.
	hard := map[*Session]bool{}
	for i := range pairs {
		if p := &pairs[i]; p.Hard && p.Session != p.Blocking {
			hard[p.Session] = true
		}
	}
	for i := range pairs {
		p := &pairs[i]
		if p.Session == p.Blocking || !p.Hard && hard[p.Session] {
			continue
		}
		from, to := g.node(p.Blocking), g.node(p.Session)
		g.waiters[from] = append(g.waiters[from], edge{to, p})
		g.wait[to] = max(g.wait[to], p.WaitDuration)
	}
	for _, edges := range g.waiters {
		slices.SortStableFunc(edges, func(a, b edge) int { return compareWaits(a.pair.Lock, b.pair.Lock) })
	}
	g.placed = make([]bool, len(g.nodes))
	g.findComponents()
	g.countBehind()
	return g
}

func (g *graph) node(s *Session) int {
	i, ok := g.index[s]
	if !ok {
		i = len(g.nodes)
		g.index[s] = i
		g.nodes = append(g.nodes, s)
		g.waiters = append(g.waiters, nil)
		g.wait = append(g.wait, 0)
	}
	return i
}

// findComponents finds the strongly connected components with Tarjan's algorithm. Their
// order is such that the sessions that a component blocks are in components with lower
// numbers.
func (g *graph) findComponents() {
	const unseen = -1
	order := make([]int, len(g.nodes))
	low := make([]int, len(g.nodes))
	g.component = make([]int, len(g.nodes))
	for i := range order {
		order[i], g.component[i] = unseen, unseen
	}
	var stack []int
	next := 0
	var visit func(n int)
	visit = func(n int) {
		order[n], low[n] = next, next
		next++
		stack = append(stack, n)
		for _, e := range g.waiters[n] {
			switch {
			case order[e.to] == unseen:
				visit(e.to)
				low[n] = min(low[n], low[e.to])
			case g.component[e.to] == unseen:
				low[n] = min(low[n], order[e.to])
			}
		}
		if low[n] != order[n] {
			return
		}
		size := 0
		for {
			m := stack[len(stack)-1]
			stack = stack[:len(stack)-1]
			g.component[m] = len(g.size)
			size++
			if m == n {
				break
			}
		}
		g.size = append(g.size, size)
	}
	for n := range g.nodes {
		if order[n] == unseen {
			visit(n)
		}
	}
}

// countBehind counts the nodes that can be reached from each node. It uses a bit for
// each node and proceeds component by component from the ends.
func (g *graph) countBehind() {
	words := (len(g.nodes) + 63) / 64
	reach := make([][]uint64, len(g.size))
	members := make([][]int, len(g.size))
	for n, c := range g.component {
		members[c] = append(members[c], n)
	}
	g.behind = make([]int, len(g.nodes))
	for c := range g.size {
		set := make([]uint64, words)
		reach[c] = set
		for _, n := range members[c] {
			set[n/64] |= 1 << (n % 64)
			for _, e := range g.waiters[n] {
				set[e.to/64] |= 1 << (e.to % 64)
				if d := g.component[e.to]; d != c {
					for i, w := range reach[d] {
						set[i] |= w
					}
				}
			}
		}
		count := 0
		for _, w := range set {
			count += bits.OnesCount64(w)
		}
		for _, n := range members[c] {
			g.behind[n] = count - 1
		}
	}
}

// trees returns the trees, grown from their roots.
func (g *graph) trees() []*Tree {
	// A cycle that no session outside blocks has its longest wait as its root.
	hasParent := make([]bool, len(g.size))
	for n, edges := range g.waiters {
		for _, e := range edges {
			if g.component[n] != g.component[e.to] {
				hasParent[g.component[e.to]] = true
			}
		}
	}
	root := make([]int, len(g.size))
	for c := range root {
		root[c] = -1
	}
	for n := range g.nodes {
		if c := g.component[n]; !hasParent[c] && (root[c] < 0 || g.wait[n] > g.wait[root[c]]) {
			root[c] = n
		}
	}
	roots := slices.DeleteFunc(root, func(n int) bool { return n < 0 })
	slices.SortFunc(roots, func(a, b int) int {
		return cmp.Or(cmp.Compare(g.behind[b], g.behind[a]), cmp.Compare(g.nodes[a].PID, g.nodes[b].PID))
	})
	trees := make([]*Tree, len(roots))
	for i, n := range roots {
		g.placed[n] = true
		trees[i] = g.grow(n, nil, 0)
	}
	return trees
}

// grow returns the tree below a node.
func (g *graph) grow(n int, pair *Pair, depth int) *Tree {
	t := &Tree{
		Session: g.nodes[n],
		Pair:    pair,
		Depth:   depth,
		Behind:  g.behind[n],
		Cycle:   g.size[g.component[n]] > 1,
	}
	// Place the children first, so that none of them goes below another.
	var here []edge
	var again []edge
	for _, e := range g.waiters[n] {
		if g.placed[e.to] {
			again = append(again, e)
			continue
		}
		g.placed[e.to] = true
		here = append(here, e)
	}
	for _, e := range here {
		t.Blocked = append(t.Blocked, g.grow(e.to, e.pair, depth+1))
	}
	for _, e := range again {
		t.Blocked = append(t.Blocked, &Tree{
			Session: g.nodes[e.to],
			Pair:    e.pair,
			Depth:   depth + 1,
			Behind:  g.behind[e.to],
			Cycle:   g.size[g.component[e.to]] > 1,
			Again:   true,
		})
	}
	for _, b := range t.Blocked {
		t.Longest = max(t.Longest, b.Pair.WaitDuration, b.Longest)
	}
	return t
}
