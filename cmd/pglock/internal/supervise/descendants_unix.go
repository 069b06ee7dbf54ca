//go:build unix

package supervise

// A process is an entry in the system's list of processes.
type process struct {
	pid, parent, group int
	zombie             bool
	name               string
	started            string // distinguishes it from a later process with the same PID
}

// descendants returns the processes of all that descend from roots, without the roots.
func descendants(all []process, roots ...int) []process {
	children := map[int][]process{}
	for _, p := range all {
		children[p.parent] = append(children[p.parent], p)
	}
	var found []process
	seen := map[int]bool{}
	add := func(parent int) {
		for _, p := range children[parent] {
			if !seen[p.pid] { // the list is not atomic, and may have cycles
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
