package engine

import (
	"fmt"
	"testing"
)

// parseHeld reads valid results and ignores everything else.
func FuzzParseHeld(f *testing.F) {
	for _, s := range []string{
		"", "0 1 1 ExclusiveLock", "4294967295 4294967295 2 ShareLock,0 0 1 ExclusiveLock", "0 1 1", "-1 1 1 ExclusiveLock", ",,,", "4294967296 0 1 ExclusiveLock", "0 1 1 ExclusiveLock ,",
	} {
		f.Add(s, uint32(1), uint32(2))
	}
	f.Fuzz(func(t *testing.T, s string, classid, objid uint32) {
		parseHeld(s)
		for _, pair := range []bool{false, true} {
			sub := map[bool]int{false: 1, true: 2}[pair]
			held := parseHeld(fmt.Sprintf("%d %d %d ShareLock,%[1]d %d %d ExclusiveLock", classid, objid, sub, objid, sub))
			key := Key{ID: int64(uint64(classid)<<32 | uint64(objid)), Pair: pair}
			if len(held) != 2 || !held[heldLock{key, Shared}] || !held[heldLock{key, Exclusive}] {
				t.Errorf("%v", held)
			}
		}
	})
}
