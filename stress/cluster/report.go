//go:build unix

package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// markdown returns the tables of docs/reliability.md.
func markdown(outcomes []*outcome) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Postgres %s; Patroni's ttl is %v. Times in seconds.\n\n", outcomes[0].version, outcomes[0].Failover)
	b.WriteString("How long nobody could write, and nobody could acquire a lock; if it happened several times, the median and (the longest):\n\n")
	b.WriteString("| replication | TTL of leases | event | times | no primary | no lease | no lease through PgBouncer | no advisory lock | leases lost | leases kept |\n")
	b.WriteString("|---|---|---|---:|---:|---:|---:|---:|---:|---:|\n")
	for _, o := range outcomes {
		for _, group := range byName(o.effects) {
			column := func(of func(effect) time.Duration) string {
				var all []time.Duration
				for _, e := range group {
					all = append(all, of(e))
				}
				return seconds(all)
			}
			again := func(name string) string { return column(func(e effect) time.Duration { return e.again[name] }) }
			lost, kept := 0, 0
			for _, e := range group {
				lost += e.lost[leases] + e.lost[pooled]
				kept += e.kept[leases] + e.kept[pooled]
			}
			cells := []any{
				o.replication(), short(o.TTL), group[0].name, len(group), column(func(e effect) time.Duration { return e.noPrimary }),
				again(leases), again(pooled), again(advisory), lost, kept,
			}
			b.WriteString(row(cells))
		}
	}
	b.WriteString("\nWhat was checked:\n\n")
	b.WriteString("| replication | TTL of leases | events | leases acquired | a lease held twice (longest) | checked writes | refused | out of order | acknowledged, then lost | unchecked writes out of order | advisory locks acquired | one held twice (longest) |\n")
	b.WriteString("|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n")
	for _, o := range outcomes {
		// A run in which a checked write was out of order is not reported at all.
		b.WriteString(row([]any{
			o.replication(), short(o.TTL), len(o.effects), o.acquired[leases] + o.acquired[pooled], times(o.overlaps),
			o.checked, o.refused, 0, o.lost, o.unchecked, o.acquired[advisory], times(o.advisory),
		}))
	}
	crashes := 0
	for _, o := range outcomes {
		crashes += o.crashes
	}
	if crashes > 0 {
		fmt.Fprintf(&b, "\nPgBouncer itself crashed %d times, and was started again at once.\n", crashes)
	}
	return b.String()
}

func row(cells []any) string {
	var texts []string
	for _, cell := range cells {
		texts = append(texts, fmt.Sprint(cell))
	}
	return "| " + strings.Join(texts, " | ") + " |\n"
}

// byName returns the effects of each kind of event.
func byName(effects []effect) (groups [][]effect) {
	for _, e := range effects {
		i := slices.IndexFunc(groups, func(g []effect) bool { return g[0].name == e.name })
		if i < 0 {
			i = len(groups)
			groups = append(groups, nil)
		}
		groups[i] = append(groups[i], e)
	}
	return groups
}

// short formats a duration without zero units.
func short(d time.Duration) string {
	s := d.String()
	for _, zero := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(s, zero) {
			s = s[:len(s)-2]
		}
	}
	return s
}

// seconds formats the median of some durations and, in parentheses, the longest.
func seconds(all []time.Duration) string {
	slices.Sort(all)
	text := func(d time.Duration) string { return fmt.Sprintf("%.1f", d.Seconds()) }
	if len(all) == 1 {
		return text(all[0])
	}
	return fmt.Sprintf("%s (%s)", text(all[(len(all)-1)/2]), text(all[len(all)-1]))
}

// times formats the number of some durations and the longest of them.
func times(all []time.Duration) string {
	if len(all) == 0 {
		return "0"
	}
	longest := slices.Max(all)
	return fmt.Sprintf("%d (%v)", len(all), longest.Round(100*time.Microsecond))
}

// rewrite replaces the text between the markers of a document.
func rewrite(path, text string) error {
	const begin, end = "<!-- cluster: begin -->\n", "<!-- cluster: end -->"
	old, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	head, rest, ok := strings.Cut(string(old), begin)
	_, tail, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		return errors.New(path + " has no markers for the table")
	}
	return os.WriteFile(path, []byte(head+begin+text+end+tail), 0o644)
}
