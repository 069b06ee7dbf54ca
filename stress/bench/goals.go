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
	return []goal{
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
		{fmt.Sprintf("%d sessions queued on one table, who blocks whom", s.Waiters), "2 times bare `pg_blocking_pids`", "blocked", atMost("blocked", "bare", 2)},
		{"from the wait limit to the end of the prioritized statement", "25 ms", "clear", within("terminate", 0.025)},
		{"from killing a backend to the holder's canceled ctx", "50 ms", "loss", within("pgx", 0.050)},
		{"`pglock ls` on an idle server, from start to exit", "40 ms", "startup", within("ls", 0.040)},
	}
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
