package prioritize

import (
	"slices"
	"testing"
	"time"
)

// Each waiting session is one of the chosen, and lists each blocker once.
func FuzzParseView(f *testing.F) {
	for _, s := range []string{
		`{"chosen": null, "waiting": null}`, `{"chosen": [{"pid": 1, "start": "2026-01-31T12:00:00+00:00", "application": "a", "user": "u"}], "waiting": [{"pid": 1, "blockers": [3, 2, 3, 0]}]}`,
		`{"chosen": [], "waiting": [{"pid": 1}]}`, `{}`, ``, `[]`, `{"chosen": [{"pid": -1, "start": null}]}`,
	} {
		f.Add(s, int64(0))
		f.Add(s, int64(1769860800))
	}
	f.Fuzz(func(t *testing.T, s string, start int64) {
		who := Who{PIDs: []int32{1}}
		if start != 0 {
			who.start = time.Unix(start, 0)
		}
		v, err := parsePoll(s, who)
		if err != nil {
			return
		}
		for _, w := range v.Waiting {
			if !slices.ContainsFunc(v.Chosen, func(c chosen) bool { return c.PID == w.PID }) {
				t.Errorf("%d waits and is not chosen", w.PID)
			}
			if !slices.IsSorted(w.Blockers) || len(slices.Compact(slices.Clone(w.Blockers))) != len(w.Blockers) {
				t.Errorf("the blockers are %v", w.Blockers)
			}
		}
	})
}
