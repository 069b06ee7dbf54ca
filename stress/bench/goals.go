package main

import (
	"fmt"
	"math"

	"github.com/pglock-go/pglock/stress/bench/internal/stats"
)

// A goal is a target for pglock that a program can check.
type goal struct {
	work, want string
	scenario   string
	check      func(m *Measured) verdict
}

// A verdict is the result of a goal.
type verdict struct {
	measured string
	met      bool
	unknown  bool // it was not measured
}

// goals returns all goals.
func goals(s scale) []goal {
	most := fmt.Sprintf("snapshot-%d", s.Most)
	all := []goal{
		{"64 goroutines, own keys, one connection", "4 times the best peer on 20 connections", "own-64", atLeastBest(4)},
		{"1,024 goroutines, the same", "8 times the best peer", "own-1024", atLeastBest(8)},
		{"one goroutine", "0.9 of two bare round trips", "lone", func(m *Measured) verdict { return atLeast(m, "bare", 0, 0.9) }},
		{thousands(s.Held) + " locks held", "1 session, 100,000 acquired per second", "held", func(m *Measured) verdict {
			r := m.row(m.Ours)
			if r == nil {
				return verdict{unknown: true}
			}
			rate, sessions := r.summary(0), r.summary(2)
			return verdict{
				measured: fmt.Sprintf("%s session, %s per second", formatSummary(sessions, "count"), formatSummary(rate, "/s")),
				met:      sessions.Max == 1 && rate.Median >= 100_000,
			}
		}},
		{"16 goroutines of one process, one key", "20 times a raw pool; the slowest gets 0.8 of the fastest", "one-key", fair(20, 0.8)},
		{"4 processes with 4 goroutines, one key", "no slower than a raw pool; the slowest gets 0.5 of the fastest", "processes", fair(1, 0.5)},
		{thousands(s.Most) + " rows in pg_locks, the full snapshot", "1.3 times `SELECT * FROM pg_locks`", most, atMost("take", "bare", 1.3)},
		{"from the wait limit to the end of the prioritized statement", "25 ms", "clear", within("terminate", 0.025)},
		{"from killing a backend to the holder's canceled ctx", "50 ms", "loss", within("pgx", 0.050)},
		{"the first lock over a network of 5 ms each way", "as many round trips as bare pgx, and 1.2 times its time", "first-5", sameTrips("pgx", "bare", 1.2)},
		{"`pglock ls` on an idle server, from start to exit", "40 ms", "startup", within("ls", 0.040)},
		{"the same, beside psql", "1.5 times `psql -c 'SELECT 1'`", "startup", atMost("ls", "select", 1.5)},
		{"`pglock version`, from start to exit", "2.2 times the smallest Go program", "startup", atMost("version", "hello", 2.2)},
	}
	all = append(all,
		goal{"64 goroutines, own leases, one connection", "10,840 pairs per second: 10 times what one connection does without sharing statements", "lease-64", func(m *Measured) verdict {
			r := m.row(m.Ours)
			if r == nil {
				return verdict{unknown: true}
			}
			rate := r.summary(0)
			return verdict{measured: formatSummary(rate, "/s"), met: rate.Median >= 10_840}
		}},
		goal{thousands(s.Held) + " leases held", "as few statements as one lease", "lease-held", atMost("many", "one", 1.05)},
		goal{"from the release of a lease to the next holder, directly", "20 ms", "lease-wake", within("lease", 0.020)},
		goal{"the same, through a pooler", "300 ms", "lease-wake", within("pooled", 0.300)},
	)
	for _, ms := range []int{1, 5} {
		for _, n := range []int{64, 256} {
			share := 0.75
			if ms == 1 {
				share = 0.5 // so much work in a millisecond that processor time counts, too
			}
			all = append(all, goal{
				fmt.Sprintf("%d goroutines, own keys, %d ms each way, one connection", n, ms), fmt.Sprintf("%g of two bare round trips, times %d", share, n),
				fmt.Sprintf("slow-%d-%d", ms, n), func(m *Measured) verdict { return atLeast(m, "bare", 0, share) },
			})
		}
	}
	for _, n := range s.Crowds {
		limit := 0.1
		if n > 1000 {
			limit = 1
		}
		all = append(all, goal{
			thousands(n) + " keys that another process holds", "the longest wait after a release " + formatDuration(limit) + ", 10 % of a core on either side",
			fmt.Sprintf("crowd-%d", n), idle("pglock", limit, 10),
		})
	}
	if n := len(s.Rows); n > 0 {
		all = append(all, goal{
			"`pglock ls -l 25` of " + thousands(s.Rows[n-1]) + " locks", "1.5 times `inspect.Locks`, which reads them all", fmt.Sprintf("rows-%d", s.Rows[n-1]), atMost("ls", "locks", 1.5),
		})
	}
	for _, n := range s.Blocked {
		g := goal{
			fmt.Sprintf("%d sessions queued on one table, who blocks whom", n), "2 times bare `pg_blocking_pids`",
			fmt.Sprintf("blocked-%d", n), atMost("blocked", "bare", 2),
		}
		if n < 200 { // planning takes longer than the bare statement
			g.want, g.check = "20 ms", within("blocked", 0.020)
		}
		all = append(all, g)
	}
	return all
}

func (g goal) verdict(r *Results) verdict {
	m := r.find(g.scenario)
	if m == nil {
		return verdict{unknown: true}
	}
	return g.check(m)
}

// atLeast compares ours with one row, by a metric of which more is better.
func atLeast(m *Measured, row string, metric int, want float64) verdict {
	r := m.row(row)
	if r == nil || m.row(m.Ours) == nil {
		return verdict{unknown: true}
	}
	times := m.times(r, metric)
	return verdict{
		measured: fmt.Sprintf("%s (%s–%s) of %s", formatTimes(times.Median), formatTimes(times.Min), formatTimes(times.Max), r.Label),
		met:      times.Median >= want,
	}
}

// atLeastBest compares ours with the best of the peers.
func atLeastBest(want float64) func(*Measured) verdict {
	return func(m *Measured) verdict {
		best := bestPeer(m)
		if best == nil {
			return verdict{unknown: true}
		}
		return atLeast(m, best.Name, 0, want)
	}
}

// bestPeer returns the row that is best by the first metric, other than ours.
func bestPeer(m *Measured) *Row {
	var best *Row
	for i := range m.Rows {
		r := &m.Rows[i]
		if r.Name == m.Ours || r.Variant || len(r.Rounds) == 0 {
			continue
		}
		if best == nil || better(m.Metrics[0], r.summary(0), best.summary(0)) {
			best = r
		}
	}
	return best
}

func better(metric Metric, a, b stats.Summary) bool {
	if metric.Better == "less" {
		return a.Median < b.Median
	}
	return a.Median > b.Median
}

// fair compares ours with the raw pool, and its slowest goroutine with its fastest.
func fair(times, slowest float64) func(*Measured) verdict {
	return func(m *Measured) verdict {
		v := atLeast(m, "pgx", 0, times)
		if v.unknown {
			return v
		}
		fairness := m.row(m.Ours).summary(1)
		v.measured += fmt.Sprintf("; the slowest got %s", formatSummary(fairness, "ratio"))
		v.met = v.met && fairness.Median >= slowest
		return v
	}
}

// atMost compares how long ours takes with how long the other row takes.
func atMost(ours, other string, want float64) func(*Measured) verdict {
	return func(m *Measured) verdict {
		a, b := m.row(ours), m.row(other)
		if a == nil || b == nil {
			return verdict{unknown: true}
		}
		times := stats.Ratio(a.values(0), b.values(0))
		return verdict{
			measured: fmt.Sprintf("%s (%s–%s)", formatTimes(times.Median), formatTimes(times.Min), formatTimes(times.Max)),
			met:      times.Median <= want,
		}
	}
}

// sameTrips compares ours with the other row: how long it takes, and that it waits for the
// server no more often.
func sameTrips(ours, other string, want float64) func(*Measured) verdict {
	return func(m *Measured) verdict {
		v := atMost(ours, other, want)(m)
		if v.unknown {
			return v
		}
		trips, others := m.row(ours).summary(2), m.row(other).summary(2)
		v.measured += fmt.Sprintf("; %s round trips instead of %s", formatSummary(trips, "count"), formatSummary(others, "count"))
		v.met = v.met && trips.Median <= others.Median
		return v
	}
}

// idle compares the longest time with a limit in seconds, and the processor time of client
// and server with a limit in percent of a core.
func idle(row string, seconds, percent float64) func(*Measured) verdict {
	return func(m *Measured) verdict {
		r := m.row(row)
		if r == nil {
			return verdict{unknown: true}
		}
		longest, client, server := r.summary(1), r.summary(2), r.summary(3)
		if client.Median == unknown || server.Median == unknown {
			return verdict{unknown: true}
		}
		return verdict{
			measured: fmt.Sprintf("%s; client %s, server %s", formatSummary(longest, "s"), formatSummary(client, "%"), formatSummary(server, "%")),
			met:      longest.Median <= seconds && client.Median <= percent && server.Median <= percent,
		}
	}
}

// within compares a time with a limit in seconds.
func within(row string, want float64) func(*Measured) verdict {
	return func(m *Measured) verdict {
		r := m.row(row)
		if r == nil {
			return verdict{unknown: true}
		}
		s := r.summary(0)
		return verdict{measured: formatSummary(s, "s"), met: !math.IsNaN(s.Median) && s.Median <= want}
	}
}
