package main

import (
	"context"
	"io"
	"time"

	"github.com/pglock-go/pglock/stress/bench/internal/host"
)

// A scenario is one kind of work.
type scenario struct {
	name  string // for the command line
	group string // the section of the report
	title string
	size  int    // how many of what makes it grow, for a plot of the growth; 0 for none
	what  string // what is done, in a sentence

	metrics []Metric // contenders are compared by the first
	ours    string   // the contender that the others are compared with
	behind  string   // why a peer is ahead of pglock; "" if there is nothing to explain

	// setup prepares what all contenders need until teardown, which may be nil.
	setup func(ctx context.Context, e *env) (contenders []contender, teardown func() error, err error)
}

// A contender is a library that does the work of a scenario.
type contender struct {
	name    string // stable
	label   string // for people
	missing string // why it cannot take part; then measure is nil
	variant bool   // shown but not compared: another way to use pglock

	// measure does the work once and returns a value for each metric.
	measure func(ctx context.Context) ([]float64, error)
}

// An env is the environment of a scenario.
type env struct {
	host  *host.Host
	log   io.Writer
	scale scale
	self  []string // how to start this program as a worker

	built map[string]string // programs that build has built
}

// A scale is how thorough a run is.
type scale struct {
	Name       string
	Rounds     int           // turns of each contender
	Time       time.Duration // length of a turn that counts operations
	Warm       time.Duration // warm-up before it, not counted
	Once       time.Duration // length of a turn that measures single durations
	Reps       int           // reactions measured in each turn
	Grace      time.Duration // the wait limit of prioritize
	Held, Most int           // how many locks "many" and "very many" are
	Rows       []int         // how many locks there are when the command shows a few
	Crowds     []int         // how many keys are waited for at a time
	Blocked    []int         // how many sessions wait in one queue
	Queue      int           // goroutines that wait while TryLock fails
	AtMost     int           `json:",omitempty"` // limit on goroutines of every scenario; 0 means no limit
}

func full() scale {
	return scale{
		Name: "full", Rounds: 5, Time: time.Second, Warm: 200 * time.Millisecond,
		Once: 400 * time.Millisecond, Reps: 5, Grace: 200 * time.Millisecond,
		Held: 10_000, Most: 100_000, Queue: 1000,
		Rows: []int{10_000, 100_000, 400_000}, Crowds: []int{1000, 10_000}, Blocked: []int{50, 200, 800},
	}
}

func quick() scale {
	s := full()
	s.Name, s.Rounds, s.Time, s.Warm = "quick", 2, 250*time.Millisecond, 80*time.Millisecond
	s.Once, s.Reps, s.Grace = 50*time.Millisecond, 2, 100*time.Millisecond
	return s
}

// smoke returns a scale for tests: everything runs once, and briefly.
func smoke() scale {
	return scale{
		Name: "smoke", Rounds: 1, Time: 20 * time.Millisecond,
		Once: time.Millisecond, Reps: 1, Grace: 20 * time.Millisecond,
		Held: 200, Most: 1000, Queue: 30, AtMost: 16,
		Rows: []int{100, 1000}, Crowds: []int{10, 40}, Blocked: []int{3, 8},
	}
}

// scenarios returns all scenarios, in the order of the report.
func scenarios(s scale) []scenario {
	var all []scenario
	all = append(all, ownKeys()...)
	all = append(all, lone())
	all = append(all, sharedKeys()...)
	all = append(all, slowNetwork()...)
	all = append(all, heldLocks(s)...)
	all = append(all, leases(s)...)
	all = append(all, refused(s))
	all = append(all, crowds(s)...)
	all = append(all, snapshots(s)...)
	all = append(all, manyRows(s)...)
	all = append(all, queues(s)...)
	all = append(all, firstLocks()...)
	return append(all, clearing(), loss(), startUp())
}
