package main

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// printMeasured prints a scenario to a terminal.
func printMeasured(w io.Writer, m *Measured) {
	fmt.Fprintf(w, "\n%s (%s)\n", m.Title, m.Name)
	t := tabwriter.NewWriter(w, 2, 8, 2, ' ', 0)
	fmt.Fprint(t, "  ")
	for _, metric := range m.Metrics {
		fmt.Fprintf(t, "\t%s", metric.Name)
	}
	ours := m.row(m.Ours)
	if ours != nil {
		fmt.Fprintf(t, "\t%s is", ours.Label)
	}
	fmt.Fprintln(t)
	for i := range m.Rows {
		row := &m.Rows[i]
		fmt.Fprintf(t, "  %s", row.Label)
		if len(row.Rounds) == 0 {
			fmt.Fprintf(t, "\t%s\n", row.Missing)
			continue
		}
		for j, metric := range m.Metrics {
			fmt.Fprintf(t, "\t%s", formatSummary(row.summary(j), metric.Unit))
		}
		if ours != nil {
			fmt.Fprintf(t, "\t%s", comparison(m, row))
		}
		fmt.Fprintln(t)
	}
	_ = t.Flush() // to a terminal
}

// printGoals prints the goals that were measured.
func printGoals(w io.Writer, r *Results) {
	fmt.Fprintln(w, "\nGoals")
	t := tabwriter.NewWriter(w, 2, 8, 2, ' ', 0)
	for _, g := range goals(r.Settings) {
		v := g.verdict(r)
		switch {
		case v.unknown:
			continue
		case v.met:
			fmt.Fprintf(t, "  met\t%s\t%s\t%s\n", g.work, g.want, v.measured)
		default:
			fmt.Fprintf(t, "  NOT MET\t%s\t%s\t%s\n", g.work, g.want, v.measured)
		}
	}
	_ = t.Flush()
}
