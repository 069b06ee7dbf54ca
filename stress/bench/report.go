package main

import (
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pglock-go/pglock/stress/bench/internal/peer"
	"github.com/pglock-go/pglock/stress/bench/internal/plot"
)

// groups returns the sections of the report that have scenarios, in order.
func groups() []string {
	return []string{"own", "contended", "slow", "held", "lease", "crowd", "inspect", "reaction"}
}

// blocks returns the generated parts of docs/performance.md, by the names of their
// markers.
func blocks(r *Results) map[string]string {
	all := map[string]string{"run": runBlock(r), "peers": peersBlock(), "goals": goalsBlock(r), "behind": behindBlock(r)}
	for _, g := range groups() {
		var b strings.Builder
		for _, c := range charts(r, g) {
			fmt.Fprintf(&b, "<picture>\n<source media=\"(prefers-color-scheme: dark)\" srcset=\"performance/%s-dark.svg\">\n<img alt=\"%s\" src=\"performance/%[1]s-light.svg\">\n</picture>\n\n", c.name, c.title)
		}
		for i := range r.Scenarios {
			if r.Scenarios[i].Group == g {
				b.WriteString(table(&r.Scenarios[i], i == 0 || r.Scenarios[i-1].What != r.Scenarios[i].What))
			}
		}
		all[g] = b.String()
	}
	return all
}

func runBlock(r *Results) string {
	var b strings.Builder
	fmt.Fprintf(&b, "| | |\n|---|---|\n")
	row := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, "| %s | %s |\n", name, value)
		}
	}
	row("started", r.Began.UTC().Format("2006-01-02 15:04 UTC")+", took "+formatTook(r.Took))
	row("pglock", r.Commit)
	machine := fmt.Sprintf("%s, %d cores", r.Machine.CPU, r.Machine.Cores)
	if r.Machine.Memory != "" {
		machine += ", " + r.Machine.Memory
	}
	row("machine", strings.TrimPrefix(machine, ", "))
	row("system", r.Machine.System+", "+r.Machine.Go)
	if r.BusyFrom != "" {
		row("load average", fmt.Sprintf("%s at the start; below 1, the machine was idle", r.BusyFrom))
	}
	var versions []string
	for _, name := range slices.Sorted(maps.Keys(r.Versions)) {
		versions = append(versions, name+" "+r.Versions[name])
	}
	row("versions", strings.Join(versions, ", "))
	s := r.Settings
	row("settings", fmt.Sprintf("%s: %d rounds, each with a turn of %v for every contender (after %v of warm-up)", s.Name, s.Rounds, s.Time, s.Warm))
	for _, name := range slices.Sorted(maps.Keys(r.LeftOut)) {
		row("left out", name+": "+strings.Join(strings.Fields(r.LeftOut[name]), " "))
	}
	for _, failed := range r.Failed {
		row("failed", strings.Join(strings.Fields(failed), " "))
	}
	return b.String()
}

func peersBlock() string {
	var b strings.Builder
	b.WriteString("| | how it is used |\n|---|---|\n")
	for _, k := range peer.Kinds() {
		fmt.Fprintf(&b, "| %s | %s |\n", k.Label, k.How)
	}
	return b.String()
}

func goalsBlock(r *Results) string {
	var b strings.Builder
	b.WriteString("| work | goal | measured | |\n|---|---|---|---|\n")
	for _, g := range goals(r.Settings) {
		v := g.verdict(r)
		status, measured := "**not met**", v.measured
		switch {
		case v.unknown:
			status, measured = "not measured", ""
		case v.met:
			status = "met"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", g.work, g.want, measured, status)
	}
	return b.String()
}

// behindBlock lists every measurement in which a peer is better.
func behindBlock(r *Results) string {
	var b strings.Builder
	for i := range r.Scenarios {
		m := &r.Scenarios[i]
		if m.row(m.Ours) == nil {
			continue
		}
		var lines []string
		for j, metric := range m.Metrics {
			if metric.Better == "" {
				continue
			}
			for k := range m.Rows {
				row := &m.Rows[k]
				if row.Name == m.Ours || row.Variant || len(row.Rounds) == 0 {
					continue
				}
				theirs, ours := row.summary(j), m.row(m.Ours).summary(j)
				if !ahead(metric, theirs.Median, ours.Median) {
					continue
				}
				lines = append(lines, fmt.Sprintf("%s: %s %s, %s %s", metric.Name, row.Label, formatValue(theirs.Median, metric.Unit), m.row(m.Ours).Label, formatValue(ours.Median, metric.Unit)))
			}
		}
		if len(lines) == 0 {
			continue
		}
		fmt.Fprintf(&b, "- **%s.** %s", m.Title, strings.Join(lines, "; ")+".")
		if m.Behind != "" {
			b.WriteString(" " + m.Behind)
		}
		b.WriteString("\n")
	}
	if b.Len() == 0 {
		return "Nowhere, in this run.\n"
	}
	return b.String()
}

// ahead reports whether theirs is better by more than 5 %; a smaller difference may be
// chance.
func ahead(m Metric, theirs, ours float64) bool {
	if theirs == unknown || ours == unknown {
		return false
	}
	if m.Better == "less" {
		return theirs < ours*0.95
	}
	return theirs > ours*1.05
}

// table formats a scenario in Markdown.
func table(m *Measured, what bool) string {
	var b strings.Builder
	fmt.Fprintf(&b, "**%s**", m.Title)
	if what {
		b.WriteString("\n\n" + m.What)
	}
	b.WriteString("\n\n| |")
	for _, metric := range m.Metrics {
		b.WriteString(" " + metric.Name + " |")
	}
	ours := m.row(m.Ours)
	if ours != nil {
		fmt.Fprintf(&b, " %s is |", ours.Label)
	}
	b.WriteString("\n|---|" + strings.Repeat("---:|", len(m.Metrics)))
	if ours != nil {
		b.WriteString("---:|")
	}
	b.WriteString("\n")
	for i := range m.Rows {
		row := &m.Rows[i]
		if len(row.Rounds) == 0 {
			fmt.Fprintf(&b, "| %s | *%s* |%s\n", row.Label, row.Missing, strings.Repeat(" |", len(m.Metrics)))
			continue
		}
		label := row.Label
		if row.Name == m.Ours {
			label = "**" + label + "**"
		}
		fmt.Fprintf(&b, "| %s |", label)
		for j, metric := range m.Metrics {
			fmt.Fprintf(&b, " %s |", formatSummary(row.summary(j), metric.Unit))
		}
		if ours != nil {
			fmt.Fprintf(&b, " %s |", comparison(m, row))
		}
		b.WriteString("\n")
	}
	return b.String() + "\n"
}

// comparison compares ours with a row, by the first metric.
func comparison(m *Measured, row *Row) string {
	times := m.times(row, 0).Median
	if row.Name == m.Ours || row.Variant || math.IsNaN(times) || m.Metrics[0].Unit == "B" && row.summary(0).Median == unknown {
		return ""
	}
	if m.Metrics[0].Unit == "B" {
		return formatTimes(times) + " as small"
	}
	return formatTimes(times) + " as fast"
}

// A picture is an image with the name of its file.
type picture struct {
	name, title string
	image       interface{ SVG(dark bool) string }
}

// charts returns the pictures of a group.
func charts(r *Results, group string) []picture {
	seconds := func(v float64) string { return formatDuration(v) }
	var all []picture
	add := func(name string, c plot.Chart, metric int, goals map[string]float64, names ...string) {
		for i := range r.Scenarios {
			m := &r.Scenarios[i]
			if m.Group == group && (len(names) == 0 || slices.ContainsFunc(names, func(n string) bool { return m.Name == n || strings.HasSuffix(n, "-") && strings.HasPrefix(m.Name, n) })) {
				c.Panels = append(c.Panels, panel(m, metric, goals[m.Name]))
			}
		}
		if len(c.Panels) > 0 {
			all = append(all, picture{name, c.Title, c})
		}
	}
	addGrowth := func(name string, g plot.Growth) {
		if len(g.Panels) > 0 {
			all = append(all, picture{name, g.Title, g})
		}
	}
	switch group {
	case "own":
		add("own", plot.Chart{Title: "Locks and unlocks per second, each goroutine with its own key", Format: formatNumber, Log: true}, 0, nil)
	case "contended":
		add("contended", plot.Chart{Title: "Locks and unlocks per second, goroutines contending for keys", Format: formatNumber, Log: true}, 0, nil)
		add("fairness", plot.Chart{
			Title: "Fairness: the slowest goroutine compared with the fastest", Top: 1,
			Format: func(v float64) string { return formatValue(v, "ratio") },
		}, 1, nil)
		add("longest", plot.Chart{Title: "Longest wait for a lock", Format: seconds, Log: true}, 4, nil)
	case "slow":
		g := plot.Growth{Title: "Locks and unlocks per second, over a slow network"}
		for _, ms := range []string{"1", "5", "50"} {
			g.Panels = append(g.Panels, growth(r, "slow-"+ms+"-", 0, ms+" ms each way", "goroutines")...)
		}
		addGrowth("slow", g)
	case "held":
		add("more", plot.Chart{Title: "Lock and unlock while other locks are held", Format: seconds, Log: true}, 0, nil, "more-")
	case "crowd":
		g := plot.Growth{Title: "Waiting for many keys of another process"}
		for i, title := range []string{"First grant after a release", "", "Processor time of the waiting process", "Processor time of the server"} {
			if title != "" {
				g.Panels = append(g.Panels, growth(r, "crowd-", i, title, "keys that are waited for")...)
			}
		}
		addGrowth("crowd", g)
	case "inspect":
		add("inspect", plot.Chart{Title: "Reading locks", Format: seconds, Log: true}, 0, nil, "snapshot-")
		g := plot.Growth{Title: "Seeing locks: growth"}
		g.Panels = append(g.Panels, growth(r, "rows-", 0, "Showing 25 of many locks", "locks")...)
		g.Panels = append(g.Panels, growth(r, "blocked-", 0, "Who blocks whom", "sessions queued on one table")...)
		addGrowth("seeing", g)
	case "reaction":
		add("reaction", plot.Chart{Title: "Reaction times", Format: seconds, Log: true}, 0, map[string]float64{"clear": 0.025, "loss": 0.050, "startup": 0.040})
	}
	return all
}

// growth returns a panel with one metric of the scenarios whose names begin with prefix. It
// returns none if nothing was measured.
func growth(r *Results, prefix string, metric int, title, x string) []plot.GrowthPanel {
	var lines []plot.Line
	unit := ""
	for i := range r.Scenarios {
		m := &r.Scenarios[i]
		if !strings.HasPrefix(m.Name, prefix) || m.Size == 0 {
			continue
		}
		unit = m.Metrics[metric].Unit
		for _, row := range m.Rows {
			s := row.summary(metric)
			if s.N == 0 || s.Median == unknown {
				continue
			}
			at := slices.IndexFunc(lines, func(l plot.Line) bool { return l.Label == row.Label })
			if at < 0 {
				at = len(lines)
				lines = append(lines, plot.Line{Label: row.Label, Ours: row.Name == m.Ours, Variant: row.Variant})
			}
			lines[at].Points = append(lines[at].Points, plot.Point{X: float64(m.Size), Value: s.Median, Low: s.Min, High: s.Max})
		}
	}
	if len(lines) == 0 {
		return nil
	}
	return []plot.GrowthPanel{{
		Title: title, X: x, Lines: lines, FormatX: func(v float64) string { return thousands(int(v)) },
		Format: func(v float64) string { return formatValue(v, unit) },
	}}
}

func panel(m *Measured, metric int, goal float64) plot.Panel {
	p := plot.Panel{Title: m.Title, Goal: goal}
	for i := range m.Rows {
		row := &m.Rows[i]
		r := plot.Row{Label: row.Label, Missing: row.Missing, Ours: row.Name == m.Ours, Variant: row.Variant}
		if len(row.Rounds) > 0 {
			s := row.summary(metric)
			r.Value, r.Low, r.High = s.Median, s.Min, s.Max
		} else if r.Missing == "" {
			r.Missing = "not measured"
		}
		p.Rows = append(p.Rows, r)
	}
	return p
}

// writeReport writes the blocks between their markers in the document, and the pictures
// next to it.
func writeReport(document string, r *Results) error {
	old, err := os.ReadFile(document)
	if err != nil {
		return err
	}
	text, err := replaceBlocks(string(old), blocks(r))
	if err != nil {
		return fmt.Errorf("%s: %w", document, err)
	}
	folder := strings.TrimSuffix(document, ".md")
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	for _, g := range groups() {
		for _, p := range charts(r, g) {
			for suffix, dark := range map[string]bool{"light": false, "dark": true} {
				file := filepath.Join(folder, p.name+"-"+suffix+".svg")
				if err := os.WriteFile(file, []byte(p.image.SVG(dark)), 0o644); err != nil {
					return err
				}
			}
		}
	}
	return os.WriteFile(document, []byte(text), 0o644)
}

// replaceBlocks puts each block between its markers, <!-- bench NAME --> and
// <!-- /bench NAME -->.
func replaceBlocks(text string, blocks map[string]string) (string, error) {
	for _, name := range slices.Sorted(maps.Keys(blocks)) {
		begin, end := "<!-- bench "+name+" -->", "<!-- /bench "+name+" -->"
		before, rest, ok := strings.Cut(text, begin)
		_, after, ok2 := strings.Cut(rest, end)
		if !ok || !ok2 || strings.Contains(after, begin) {
			return "", fmt.Errorf("markers %s and %s must occur exactly once", begin, end)
		}
		text = before + begin + "\n" + strings.TrimRight(blocks[name], "\n") + "\n" + end + after
	}
	return text, nil
}
