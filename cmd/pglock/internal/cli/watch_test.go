package cli

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestWatchFlag(t *testing.T) {
	for _, test := range []struct {
		args, rest string
		every      time.Duration
	}{
		{"4711", "4711", watchDefault},
		{"5s 4711", "4711", 5 * time.Second},
		{"4711 1m30s", "4711", 90 * time.Second},
		{"5 s", "5 s", watchDefault},
		{"1ms", "1ms", watchDefault},
	} {
		f := watchFlag{watchDefault}
		rest := f.fromArgs(strings.Fields(test.args))
		if !slices.Equal(rest, strings.Fields(test.rest)) || f.every != test.every {
			t.Errorf("%s: %v, every %v", test.args, rest, f.every)
		}
	}
	off := watchFlag{}
	if rest := off.fromArgs([]string{"5s"}); len(rest) != 1 || off.every != 0 {
		t.Error("a duration is parsed without --watch")
	}
}
