//go:build unix

package supervise

// process is a process as the system lists it.
type process struct {
	pid, parent, group int
	zombie             bool
	name               string
	started            string // tells it from another that has its number later
}

// descendants are those of all that descend from one of roots, which are not
// among them.
func descendants(all []process, roots ...int) []process {
	children := map[int][]process{}
	for _, p := range all {
		children[p.parent] = append(children[p.parent], p)
	}
	var found []process
	seen := map[int]bool{}
	add := func(parent int) {
		for _, p := range children[parent] {
			if !seen[p.pid] { // a list is no moment in time, and may be a ring
				seen[p.pid] = true
				found = append(found, p)
			}
		}
	}
	for _, root := range roots {
		seen[root] = true
	}
	for _, root := range roots {
		add(root)
	}
	for i := 0; i < len(found); i++ {
		add(found[i].pid)
	}
	return found
}
