//go:build unix

package chaos

import (
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// A Row has the counts of one kind of fault.
type Row struct {
	Fault      string
	Times      int           // how often it happened
	Operations int           // operations that began during it
	Held       int           // operations that acquired their locks
	Refused    int           // operations that did not, because the locks were held or ctx ended
	NoSession  int           // operations that did not, because there was no session or the lock table was full
	Lost       int           // operations that lost their locks because of it, all of which were notified
	Overlaps   int           // losses of which the holder was notified after another acquired the lock
	Longest    time.Duration // the longest overlap
	Left       int           // leftover locks and sessions
}

// The rows for conditions that are not faults.
const (
	noFault   = "(none: slow machine)"
	canceled  = "ctx canceled while waiting (always)"
	poolOfOne = "pools of one connection (always)"
)

// count returns the rows for the results of a check.
func count(phases []phase, faults []fault, ops []*op, v verdict, lives []life, adapterOf func(string) string) []Row {
	var rows []Row
	row := func(name string) *Row {
		i := slices.IndexFunc(rows, func(r Row) bool { return r.Fault == name })
		if i < 0 {
			i = len(rows)
			rows = append(rows, Row{Fault: name})
		}
		return &rows[i]
	}
	for _, p := range phases {
		row(p.name).Left += p.left
	}
	for _, f := range faults {
		if !f.Part {
			row(f.Name).Times++
		}
	}
	for _, o := range ops {
		for _, p := range phases {
			if p.begin <= o.requested && o.requested <= p.end {
				row(p.name).operation(o)
			}
		}
		if o.cancel {
			r := row(canceled)
			r.Times++
			r.operation(o)
		}
		if strings.HasSuffix(adapterOf(o.worker), "/One") {
			row(poolOfOne).operation(o)
		}
	}
	for _, l := range lives {
		if strings.HasSuffix(adapterOf(l.worker), "/One") {
			row(poolOfOne).Times++
		}
	}
	for _, l := range v.losses {
		if l.cause == nil {
			r := row(noFault)
			r.Times++
			r.Lost++
			continue
		}
		row(l.cause.Name).Lost++
	}
	for _, o := range v.overlaps {
		r := row(o.cause.Name)
		r.Overlaps++
		r.Longest = max(r.Longest, o.long)
	}
	return rows
}

func (r *Row) operation(o *op) {
	r.Operations++
	switch {
	case o.acquired != 0:
		r.Held++
	case o.outcome == outHeld, o.outcome == outCanceled:
		r.Refused++
	case o.failed != 0:
		r.NoSession++
	}
}

// Add adds the rows of another round.
func Add(rows, more []Row) []Row {
	for _, m := range more {
		i := slices.IndexFunc(rows, func(r Row) bool { return r.Fault == m.Fault })
		if i < 0 {
			rows = append(rows, m)
			continue
		}
		r := &rows[i]
		r.Times += m.Times
		r.Operations += m.Operations
		r.Held += m.Held
		r.Refused += m.Refused
		r.NoSession += m.NoSession
		r.Lost += m.Lost
		r.Overlaps += m.Overlaps
		r.Longest = max(r.Longest, m.Longest)
		r.Left += m.Left
	}
	return rows
}

// sorted returns the rows in the order of the kinds, followed by those that are not
// faults.
func sorted(rows []Row, order []string) []Row {
	order = append(slices.Clone(order), canceled, poolOfOne, noFault)
	rows = slices.Clone(rows)
	slices.SortStableFunc(rows, func(a, b Row) int {
		return slices.Index(order, a.Fault) - slices.Index(order, b.Fault)
	})
	return rows
}

func (r Row) cells() []string {
	overlaps := "0"
	if r.Overlaps > 0 {
		overlaps = fmt.Sprintf("%d (%v)", r.Overlaps, r.Longest.Round(100*time.Microsecond))
	}
	cells := []string{r.Fault}
	for _, n := range []int{r.Times, r.Operations, r.Held, r.Refused, r.NoSession, r.Lost} {
		cells = append(cells, fmt.Sprint(n))
	}
	return append(cells, overlaps, fmt.Sprint(r.Left))
}

func heads() []string {
	return []string{"fault", "times", "operations", "held", "refused", "no session", "lost", "overlaps (longest)", "left behind"}
}

// Text formats the rows as a table for a terminal.
func Text(rows []Row, order []string) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, strings.Join(heads(), "\t"))
	for _, r := range sorted(rows, order) {
		fmt.Fprintln(w, strings.Join(r.cells(), "\t"))
	}
	w.Flush()
	return b.String()
}

// Markdown formats the rows as a table for a document.
func Markdown(rows []Row, order []string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "| %s |\n|---|%s\n", strings.Join(heads(), " | "), strings.Repeat("---:|", len(heads())-1))
	for _, r := range sorted(rows, order) {
		fmt.Fprintf(&b, "| %s |\n", strings.Join(r.cells(), " | "))
	}
	return b.String()
}
