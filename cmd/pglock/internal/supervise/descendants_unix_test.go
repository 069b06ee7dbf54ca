//go:build unix

package supervise

import (
	"os"
	"slices"
	"testing"
)

func TestDescendants(t *testing.T) {
	all := []process{
		{pid: 1, parent: 0},
		{pid: 10, parent: 1},
		{pid: 13, parent: 12},
		{pid: 11, parent: 10},
		{pid: 12, parent: 10, group: 12},
		{pid: 20, parent: 1},
		{pid: 21, parent: 20},
		{pid: 30, parent: 31}, // two PIDs that were reused while the list was read
		{pid: 31, parent: 30},
	}
	for _, test := range []struct{ roots, want []int }{
		{[]int{10}, []int{11, 12, 13}},
		{[]int{12, 20}, []int{13, 21}},
		{[]int{10, 12}, []int{11, 13}},
		{[]int{13}, nil},
		{[]int{30}, []int{31}},
		{nil, nil},
	} {
		var pids []int
		for _, p := range descendants(all, test.roots...) {
			pids = append(pids, p.pid)
		}
		slices.Sort(pids)
		if !slices.Equal(pids, test.want) {
			t.Errorf("descended from %v are %v, not %v", test.roots, pids, test.want)
		}
	}
}

// The system lists this process correctly.
func TestProcesses(t *testing.T) {
	all, err := processes()
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(all, func(p process) bool { return p.pid == os.Getpid() })
	if i < 0 {
		t.Fatal("this process is not listed")
	}
	if p := all[i]; p.parent != os.Getppid() || p.zombie || p.name == "" || p.started == "" {
		t.Errorf("this process is %+v", p)
	}
}
