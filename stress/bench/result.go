package main

import (
	"time"

	"github.com/pglock-go/pglock/stress/bench/internal/host"
	"github.com/pglock-go/pglock/stress/bench/internal/stats"
)

// Results holds the measurements of a run, as in docs/performance/results.json.
type Results struct {
	Began    time.Time
	Took     time.Duration
	Commit   string // of pglock
	Machine  host.Machine
	BusyFrom string // the load average at the start, and at the end
	BusyTo   string
	Settings scale
	Versions map[string]string // of servers, drivers and peers
	LeftOut  map[string]string // servers that could not be started, and why
	Failed   []string          `json:",omitempty"` // errors of scenarios

	Scenarios []Measured
}

// A Metric is one measured quantity.
type Metric struct {
	Name   string
	Unit   string // see formatValue
	Better string // more or less; "" means neither
}

// Measured is the result of a scenario.
type Measured struct {
	Name, Group, Title, What string
	Size                     int `json:",omitempty"` // how many of what makes it grow
	Metrics                  []Metric
	Ours                     string
	Behind                   string `json:",omitempty"`
	Rows                     []Row
}

// A Row is a contender with its measurements: in each round, a value for each metric.
type Row struct {
	Name, Label string
	Variant     bool        `json:",omitempty"`
	Missing     string      `json:",omitempty"`
	Rounds      [][]float64 `json:",omitempty"`
}

// values returns the values of one metric, round by round.
func (r *Row) values(metric int) []float64 {
	var v []float64
	for _, round := range r.Rounds {
		if metric < len(round) {
			v = append(v, round[metric])
		}
	}
	return v
}

func (r *Row) summary(metric int) stats.Summary { return stats.Summarize(r.values(metric)) }

// find returns the scenario with the given name, or nil.
func (r *Results) find(name string) *Measured {
	for i := range r.Scenarios {
		if r.Scenarios[i].Name == name {
			return &r.Scenarios[i]
		}
	}
	return nil
}

// row returns the row of a contender, or nil if it was not measured.
func (m *Measured) row(name string) *Row {
	for i := range m.Rows {
		if m.Rows[i].Name == name && len(m.Rows[i].Rounds) > 0 {
			return &m.Rows[i]
		}
	}
	return nil
}

// times returns how many times better than r ours is by a metric, for example how many
// times faster.
func (m *Measured) times(r *Row, metric int) stats.Summary {
	ours := m.row(m.Ours)
	if ours == nil {
		return stats.Summarize(nil)
	}
	if m.Metrics[metric].Better == "less" {
		return stats.Ratio(r.values(metric), ours.values(metric))
	}
	return stats.Ratio(ours.values(metric), r.values(metric))
}
