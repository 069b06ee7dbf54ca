//go:build unix

package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
	"github.com/pglock-go/pglock/stress/chaos"
)

func TestMain(m *testing.M) {
	if worker, err := workerMain(); worker {
		end(err)
	}
	pgtest.Main(m)
}

// Locks are taken while a cluster with synchronous replication is switched over, and its
// primary killed.
func TestCluster(t *testing.T) {
	if os.Getenv("CI") == "true" {
		t.Skip("not in CI: it takes two minutes, and Patroni needs a machine that is not busy; run it with go test ./stress/cluster")
	}
	p, err := findPrograms(t.Context(), os.Stderr)
	var missing *missingError
	if errors.As(err, &missing) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	l := load{Sync: true, TTL: 3 * time.Second, Failover: 12 * time.Second, Dir: t.TempDir(), Log: t.Output()}
	for _, e := range events() {
		if e.name == "switchover" || e.name == "kill -9 of the node" {
			l.Events = append(l.Events, e)
		}
	}
	if len(l.Events) != 2 {
		t.Fatalf("%d events", len(l.Events))
	}
	o, err := l.run(t.Context(), p)
	if errors.Is(err, errUnplanned) {
		o, err = l.run(t.Context(), p)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Log("\n" + markdown([]*outcome{o}))
	if len(o.wrong) > 0 {
		t.Error(strings.Join(o.wrong, "\n"))
	}
	for _, group := range []string{leases, pooled, advisory} {
		if o.acquired[group] == 0 {
			t.Errorf("no lock of the group %s was acquired", group)
		}
	}
	if o.checked == 0 {
		t.Error("nothing was written")
	}
}

// A write is wrong if it follows one with a higher token, in the order of the database or
// in that of the replies, and with synchronous replication if it is lost.
func TestCheckWrites(t *testing.T) {
	t.Parallel()
	line := func(number, token, begin, end int64, result result) workerWrite {
		return workerWrite{write{Number: number, Key: "k", Way: byFence, Token: token, Requested: begin, Ended: end, Result: result}, "w"}
	}
	row := func(number, token int64) storedWrite { return storedWrite{"k", byFence, token, "w", number} }
	late := line(2, 5, 30, 40, written)
	late.Way = unchecked
	lateRow := row(2, 5)
	lateRow.Way = unchecked
	first := line(1, 6, 10, 20, written)
	first.Way = unchecked
	firstRow := row(1, 6)
	firstRow.Way = unchecked
	for name, test := range map[string]struct {
		writes             []workerWrite
		stored             []storedWrite
		sync               bool
		wrong              string // part of the error; "" means none
		lost, out, refused int
	}{
		"in order": {
			writes: []workerWrite{line(1, 5, 10, 20, written), line(2, 5, 21, 30, written), line(3, 6, 31, 40, written)},
			stored: []storedWrite{row(1, 5), row(2, 5), row(3, 6)},
		},
		"stored out of order": {
			writes: []workerWrite{line(1, 6, 10, 30, written), line(2, 5, 10, 30, written)},
			stored: []storedWrite{row(1, 6), row(2, 5)}, wrong: "is stored after",
		},
		"acknowledged out of order, the first lost": {
			writes: []workerWrite{line(1, 6, 10, 20, written), line(2, 5, 21, 30, written)},
			stored: []storedWrite{row(2, 5)}, wrong: "was acknowledged before", lost: 1,
		},
		"at the same time": {
			writes: []workerWrite{line(1, 6, 10, 22, written), line(2, 5, 21, 30, written)},
			stored: []storedWrite{row(2, 5), row(1, 6)},
		},
		"refused and failed": {
			writes:  []workerWrite{line(1, 6, 10, 20, written), line(2, 5, 21, 30, refused), line(3, 5, 31, 40, failed)},
			stored:  []storedWrite{row(1, 6)},
			refused: 1,
		},
		"lost": {writes: []workerWrite{line(1, 5, 10, 20, written)}, lost: 1},
		"lost with synchronous replication": {
			writes: []workerWrite{line(1, 5, 10, 20, written)}, sync: true, lost: 1, wrong: "is lost",
		},
		"unchecked": {
			writes: []workerWrite{first, late}, stored: []storedWrite{firstRow, lateRow}, out: 1,
		},
	} {
		o := &outcome{load: load{Sync: test.sync}}
		o.checkWrites(test.writes, test.stored)
		wrong := strings.Join(o.wrong, "\n")
		if (wrong != "") != (test.wrong != "") || !strings.Contains(wrong, test.wrong) {
			t.Errorf("%s: wrong is %q, want %q", name, wrong, test.wrong)
		}
		if o.lost != test.lost || o.unchecked != test.out || o.refused != test.refused {
			t.Errorf("%s: %d lost, %d unchecked out of order, %d refused", name, o.lost, o.unchecked, o.refused)
		}
	}
}

// The effect of an event is the longest time without a lock, and what happened to those
// that were held.
func TestMeasure(t *testing.T) {
	t.Parallel()
	const s = int64(time.Second)
	o := &outcome{acquired: map[string]int{}, effects: []effect{{
		happened: happened{event: event{name: "kill"}, begin: 10 * s, end: 11 * s, back: 20 * s, rest: 30 * s},
		again:    map[string]time.Duration{}, kept: map[string]int{}, lost: map[string]int{},
	}}}
	o.measure([]chaos.Hold{
		{Worker: "lease-0", Acquired: 1 * s, Until: 2 * s},
		{Worker: "lease-0", Acquired: 9 * s, Until: 12 * s, Lost: true},
		{Worker: "lease-0", Acquired: 8 * s, Until: 25 * s},
		{Worker: "lease-0", Acquired: 21 * s, Until: 22 * s},
		{Worker: "advisory-0", Acquired: 9 * s, Until: 10 * s, Lost: true},
		{Worker: "advisory-0", Acquired: 23 * s, Until: 24 * s},
		{Worker: "pooled-0", Requested: 12 * s}, // failed
	})
	e := o.effects[0]
	if e.again[leases] != 12*time.Second || e.again[advisory] != 14*time.Second {
		t.Errorf("without a lock: %v", e.again)
	}
	if e.lost[leases] != 1 || e.kept[leases] != 1 || e.lost[advisory] != 1 || o.acquired[leases] != 4 {
		t.Errorf("lost %v, kept %v, acquired %v", e.lost, e.kept, o.acquired)
	}
	if len(o.wrong) != 1 || !strings.Contains(o.wrong[0], pooled) {
		t.Errorf("wrong: %q", o.wrong)
	}
}

func TestFormats(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{3 * time.Second: "3s", 2 * time.Minute: "2m", time.Hour: "1h", 90 * time.Second: "1m30s"} {
		if got := short(d); got != want {
			t.Errorf("short(%v) = %q", d, got)
		}
	}
	if got := seconds([]time.Duration{3 * time.Second, time.Second, 1500 * time.Millisecond}); got != "1.5 (3.0)" {
		t.Errorf("seconds: %q", got)
	}
	if got := seconds([]time.Duration{time.Second}); got != "1.0" {
		t.Errorf("seconds: %q", got)
	}
	if got := times([]time.Duration{time.Second, 2 * time.Second}); got != "2 (2s)" {
		t.Errorf("times: %q", got)
	}
}

func TestArguments(t *testing.T) {
	t.Parallel()
	for _, args := range []string{"-sync both", "-sync maybe", "-load -n 0", "-failover 1s", "-load -only nothing", "extra"} {
		if err := run(t.Context(), strings.Fields(args), t.Output()); err == nil {
			t.Errorf("%s: no error", fmt.Sprint(args))
		}
	}
}
