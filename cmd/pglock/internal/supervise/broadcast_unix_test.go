//go:build unix

package supervise

import (
	"slices"
	"syscall"
	"testing"
	"time"
)

func TestBroadcast(t *testing.T) {
	const hup, usr1, term = syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGTERM
	type step struct {
		after time.Duration
		to    string // what gets the signal: the guard, or the program, which passes it on
		sig   syscall.Signal
	}
	for name, test := range map[string]struct {
		steps []step
		want  []syscall.Signal
	}{
		"only the program":                      {[]step{{0, "program", term}}, []syscall.Signal{term}},
		"only the guard":                        {[]step{{0, "guard", term}}, nil},
		"the program, then the guard":           {[]step{{0, "program", term}, {passAfter - 1, "guard", term}}, nil},
		"the guard, then the program":           {[]step{{0, "guard", term}, {matchWithin, "program", term}}, nil},
		"the guard, long before":                {[]step{{0, "guard", term}, {matchWithin + 1, "program", term}}, []syscall.Signal{term}},
		"all, twice":                            {[]step{{0, "program", term}, {0, "guard", term}, {0, "program", term}, {0, "guard", term}}, nil},
		"all, twice, but the guard was stopped": {[]step{{0, "program", term}, {1, "program", term}, {1, "guard", term}}, nil},
		"all, then the program":                 {[]step{{0, "guard", term}, {0, "program", term}, {1, "program", term}}, []syscall.Signal{term}},
		"the program, three times":              {[]step{{0, "program", usr1}, {0, "program", usr1}, {0, "program", usr1}}, []syscall.Signal{usr1, usr1, usr1}},
		"one to all, another to one":            {[]step{{0, "program", hup}, {0, "program", term}, {0, "guard", term}}, []syscall.Signal{hup}},
		"several to the program":                {[]step{{0, "program", term}, {0, "program", hup}, {1, "program", usr1}}, []syscall.Signal{term, hup, usr1}},
		"several to all, in their order":        {[]step{{0, "program", term}, {0, "program", hup}, {0, "guard", term}, {0, "guard", hup}}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			now := time.Unix(1, 0)
			var b broadcast
			var got []syscall.Signal
			for _, s := range test.steps {
				now = now.Add(s.after)
				got = append(got, b.due(now)...)
				if s.to == "guard" {
					b.reached(s.sig, now)
				} else {
					b.pass(s.sig, now)
				}
			}
			for {
				next, ok := b.next()
				if !ok {
					break
				}
				if early := b.due(next.Add(-1)); len(early) > 0 {
					t.Errorf("%v too early", early)
				}
				got = append(got, b.due(next)...)
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("passed on: %v, not %v", got, test.want)
			}
		})
	}
}
