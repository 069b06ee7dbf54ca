package inspect

import (
	"cmp"
	"math/bits"
	"slices"
	"time"
)

// A Tree is a session and those that it keeps waiting.
type Tree struct {
	*Session // who; never nil

	// Pair is how it is blocked by the session above it; nil at a root.
	Pair *Pair

	Depth int // 0 at a root

	// Behind is how many sessions wait for this one, for those that do, and so on.
	Behind int

	// Longest is the longest wait of those behind it.
	Longest time.Duration

	// Cycle says that the session waits for itself by way of others: a deadlock,
	// which Postgres ends after deadlock_timeout, or a circle through the order
	// of a queue, which it dissolves.
	Cycle bool

	// Again says that the session stands elsewhere too, with what is below it:
	// several others hold what it waits for.
	Again bool

	// Blocked are the sessions that wait for this one: those for which it holds
	// the lock, and those that only stand behind it in a queue and for which
	// nobody holds a conflicting lock. The longest wait comes first.
	Blocked []*Tree
}

// Forest are the trees of who waits for whom: at each root a session, or a
// prepared transaction, that waits for nobody, or one of a circle. The root with
// the most sessions behind it comes first. Each session that waits is in the
// forest below each that holds what it waits for, but what is below it is there
// only once. With pids there are only the trees with one of these sessions.
func (s *Snapshot) Forest(pids ...int32) []*Tree { return forest(s.Pairs, pids) }

// Grow makes a forest of pairs, such as [Blocked] returns, as [Snapshot.Forest]
// does of all. Of a pair whose blocking session waits itself, the pairs of that
// session must be there for the tree to reach its root.
func Grow(pairs []Pair) []*Tree { return forest(pairs, nil) }

func forest(pairs []Pair, pids []int32) []*Tree {
	g := newGraph(pairs)
	trees := g.trees()
	if len(pids) > 0 {
		trees = slices.DeleteFunc(trees, func(t *Tree) bool { return !t.has(pids) })
	}
	return trees
}

func (t *Tree) has(pids []int32) bool {
	return slices.Contains(pids, t.PID) || slices.ContainsFunc(t.Blocked, func(b *Tree) bool { return b.has(pids) })
}

// graph is who waits for whom. A session is a number here, its index in nodes.
type graph struct {
	nodes   []*Session
	index   map[*Session]int
	waiters [][]edge // from a session to those that it blocks
	circle  []int    // the number of the circle that a node is in; circles of one are none
	size    []int    // of each circle
	behind  []int
	wait    []time.Duration // of each node itself
	placed  []bool
}

type edge struct {
	to   int
	pair *Pair
}

func newGraph(pairs []Pair) *graph {
	g := &graph{index: map[*Session]int{}}
	// Who waits for one that holds the lock belongs to that one, and not to those
	// who stand in the same queue: they only draw the picture out.
	hard := map[*Session]bool{}
	for i := range pairs {
		if p := &pairs[i]; p.Block == Hard && p.Session != p.Blocking {
			hard[p.Session] = true
		}
	}
	for i := range pairs {
		p := &pairs[i]
		if p.Session == p.Blocking || p.Block == Soft && hard[p.Session] {
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
	g.findCircles()
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

// findCircles finds the strongly connected components, as Tarjan does. They come
// in such an order that whoever a circle blocks is in a circle with a lower
// number.
func (g *graph) findCircles() {
	const unseen = -1
	order := make([]int, len(g.nodes))
	low := make([]int, len(g.nodes))
	g.circle = make([]int, len(g.nodes))
	for i := range order {
		order[i], g.circle[i] = unseen, unseen
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
			case g.circle[e.to] == unseen:
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
			g.circle[m] = len(g.size)
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

// countBehind counts for each node who can be reached from it, with a bit for
// each node, circle by circle from the ends.
func (g *graph) countBehind() {
	words := (len(g.nodes) + 63) / 64
	reach := make([][]uint64, len(g.size))
	members := make([][]int, len(g.size))
	for n, c := range g.circle {
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
				if d := g.circle[e.to]; d != c {
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

// trees grows the trees from the roots.
func (g *graph) trees() []*Tree {
	// A circle that nobody outside blocks has its longest wait for a root.
	fed := make([]bool, len(g.size))
	for n, edges := range g.waiters {
		for _, e := range edges {
			if g.circle[n] != g.circle[e.to] {
				fed[g.circle[e.to]] = true
			}
		}
	}
	root := make([]int, len(g.size))
	for c := range root {
		root[c] = -1
	}
	for n := range g.nodes {
		if c := g.circle[n]; !fed[c] && (root[c] < 0 || g.wait[n] > g.wait[root[c]]) {
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

// grow makes the tree below a node.
func (g *graph) grow(n int, pair *Pair, depth int) *Tree {
	t := &Tree{
		Session: g.nodes[n],
		Pair:    pair,
		Depth:   depth,
		Behind:  g.behind[n],
		Cycle:   g.size[g.circle[n]] > 1,
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
			Cycle:   g.size[g.circle[e.to]] > 1,
			Again:   true,
		})
	}
	for _, b := range t.Blocked {
		t.Longest = max(t.Longest, b.Pair.WaitDuration, b.Longest)
	}
	return t
}
