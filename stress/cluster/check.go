//go:build unix

package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pglock-go/pglock/stress/chaos"
)

// What a run promises, and how that is checked.
//
// A holder trusts its lock from the moment when Lock returns until it releases the lock or
// is notified of its loss. All processes read these moments from one clock. No two holders
// trust the same lease at the same time if replication is synchronous, whatever happens. If
// it is asynchronous, a kill may lose the latest leases with the transactions that took
// them: then the time in which two holders trusted the same lease is counted. An advisory
// lock is lost with its server, so that is counted for it in both cases.
//
// A checked write is never followed by one with a lower token: neither in the order of the
// database's log, nor in that of the replies, which a failover cannot change. With
// synchronous replication no write that was acknowledged is lost.

// An outcome is the result of a run.
type outcome struct {
	load
	version string
	wrong   []string // broken promises
	dir     string   // with the histories, if something is wrong
	effects []effect // of the events

	crashes   int            // of PgBouncer
	acquired  map[string]int // locks, by group
	overlaps  []time.Duration
	advisory  []time.Duration // overlaps of advisory locks
	checked   int             // acknowledged writes with a check
	refused   int             // writes that a check refused
	lost      int             // acknowledged writes that are gone
	unchecked int             // writes without a check that were followed by one with a lower token
}

// An effect is what an event did.
type effect struct {
	happened
	noPrimary time.Duration
	again     map[string]time.Duration // how long nobody acquired a lock, by group
	kept      map[string]int           // locks that were held when it happened and not lost
	lost      map[string]int           // locks that were lost
}

// notice is how long a holder may take to notice a loss, beyond the time that it may trust
// a lock without hearing from the server.
const notice = 10 * time.Second

// check checks a run.
func (r *running) check(s *stored) (*outcome, error) {
	o := &outcome{load: *r.load, version: s.version, wrong: r.wrong, dir: r.Dir, crashes: r.crashes, acquired: map[string]int{}}
	for _, h := range r.events {
		o.effects = append(o.effects, effect{
			happened: h, noPrimary: gap(r.beat.times(), h.begin, h.rest),
			again: map[string]time.Duration{}, kept: map[string]int{}, lost: map[string]int{},
		})
	}
	var writes []workerWrite
	for _, group := range []string{leases, pooled, advisory} {
		workers := r.workers(group)
		for _, worker := range workers {
			more, err := readWrites(r.Dir, worker)
			if err != nil {
				return nil, err
			}
			for _, w := range more {
				writes = append(writes, workerWrite{w, worker})
			}
		}
	}
	// Both groups of leases take the same ones.
	leaseHolds, err := r.checkHolds(o, &o.overlaps, r.TTL, func(h happened) bool { return h.kill && !r.Sync }, leases, pooled)
	if err != nil {
		return nil, err
	}
	advisoryHolds, err := r.checkHolds(o, &o.advisory, heartbeat, func(happened) bool { return true }, advisory)
	if err != nil {
		return nil, err
	}
	o.measure(slices.Concat(leaseHolds, advisoryHolds))
	o.checkWrites(writes, s.writes)
	return o, nil
}

// heartbeat is the default of a Locker.
const heartbeat = 10 * time.Second

func (r *running) workers(groups ...string) (names []string) {
	for _, p := range r.processes {
		if slices.Contains(groups, groupOf(p.config.Name)) {
			names = append(names, p.config.Name)
		}
	}
	return names
}

// groupOf returns the group of a worker.
func groupOf(worker string) string {
	group, _, _ := strings.Cut(worker, "-")
	return group
}

// checkHolds checks the histories of groups that take the same locks. ends reports whether
// an event may end a lock before its holder can know.
func (r *running) checkHolds(o *outcome, overlaps *[]time.Duration, trust time.Duration, ends func(happened) bool, groups ...string) ([]chaos.Hold, error) {
	// HAProxy, on a busy machine, may end sessions at any time.
	e := chaos.Evidence{Dir: r.Dir, Workers: r.workers(groups...), Notice: trust + notice, AnyLoss: true}
	for _, h := range r.events {
		e.Rests = append(e.Rests, h.rest)
		f := chaos.Fault{Name: h.name, Begin: h.begin, End: h.end}
		if ends(h) {
			f.Ends = h.begin
		}
		e.Faults = append(e.Faults, f)
	}
	found, err := e.Check()
	if err != nil {
		return nil, err
	}
	o.wrong = append(o.wrong, found.Wrong...)
	for _, overlap := range found.Overlaps {
		*overlaps = append(*overlaps, overlap.Long)
	}
	return found.Holds, nil
}

// measure counts the holds, and what each event did to them.
func (o *outcome) measure(holds []chaos.Hold) {
	grants := map[string][]int64{}
	for _, h := range holds {
		if h.Acquired != 0 {
			group := groupOf(h.Worker)
			o.acquired[group]++
			grants[group] = append(grants[group], h.Acquired)
		}
	}
	for i := range o.effects {
		e := &o.effects[i]
		for _, group := range []string{leases, pooled, advisory} {
			e.again[group] = gap(grants[group], e.begin, e.rest)
			if !slices.ContainsFunc(grants[group], func(t int64) bool { return e.end < t && t < e.rest }) {
				o.wrong = append(o.wrong, fmt.Sprintf("no worker of the group %s acquired a lock after this: %s", group, e.name))
			}
		}
		for _, h := range holds {
			group := groupOf(h.Worker)
			switch {
			case h.Acquired == 0 || h.Acquired > e.end || h.Until < e.begin:
			case h.Lost:
				e.lost[group]++
			case h.Until > e.back:
				e.kept[group]++
			}
		}
	}
}

// gap returns the longest time between two successive times, of which the second is after
// begin and the first before end.
func gap(times []int64, begin, end int64) (longest time.Duration) {
	times = slices.Sorted(slices.Values(times))
	for i, t := range times {
		if i > 0 && t > begin && times[i-1] < end {
			longest = max(longest, time.Duration(t-times[i-1]))
		}
	}
	return longest
}

// A workerWrite is a write with the name of its worker.
type workerWrite struct {
	write
	worker string
}

// A rowKey identifies a row of the table.
type rowKey struct {
	key string
	way way
}

// checkWrites checks the order of the writes, and that those that were acknowledged are
// stored.
func (o *outcome) checkWrites(writes []workerWrite, stored []storedWrite) {
	highest := map[rowKey]storedWrite{}
	type id struct {
		worker string
		number int64
	}
	exists := map[id]bool{}
	for _, s := range stored {
		exists[id{s.Worker, s.Number}] = true
		row := rowKey{s.Key, s.Way}
		before := highest[row]
		switch {
		case s.Token >= before.Token:
			highest[row] = s
		case s.Way == unchecked:
			o.unchecked++
		default:
			o.wrong = append(o.wrong, fmt.Sprintf("%s, by %s: %+v is stored after %+v", s.Key, s.Way, s, before))
		}
	}
	byRow := map[rowKey][]workerWrite{}
	for _, w := range writes {
		switch w.Result {
		case refused:
			o.refused++
		case written:
			if w.Way != unchecked {
				o.checked++
				row := rowKey{w.Key, w.Way}
				byRow[row] = append(byRow[row], w)
			}
			if !exists[id{w.worker, w.Number}] {
				o.lost++
				if o.Sync {
					o.wrong = append(o.wrong, fmt.Sprintf("an acknowledged write is lost: %+v", w))
				}
			}
		}
	}
	for row, writes := range byRow {
		for _, pair := range disordered(writes) {
			o.wrong = append(o.wrong, fmt.Sprintf("%s, by %s: %+v was acknowledged before this began: %+v", row.key, row.way, pair[0], pair[1]))
		}
	}
}

// disordered returns pairs of writes to a row: the first has a higher token and was
// acknowledged before the second, which succeeded too, was asked for.
func disordered(writes []workerWrite) (pairs [][2]workerWrite) {
	byEnd, byBegin := slices.Clone(writes), slices.Clone(writes)
	slices.SortFunc(byEnd, func(a, b workerWrite) int { return cmp.Compare(a.Ended, b.Ended) })
	slices.SortFunc(byBegin, func(a, b workerWrite) int { return cmp.Compare(a.Requested, b.Requested) })
	var highest workerWrite
	for _, w := range byBegin {
		for len(byEnd) > 0 && byEnd[0].Ended < w.Requested {
			if byEnd[0].Token > highest.Token {
				highest = byEnd[0]
			}
			byEnd = byEnd[1:]
		}
		if w.Token < highest.Token {
			pairs = append(pairs, [2]workerWrite{highest, w})
		}
	}
	return pairs
}
