package render

import (
	"math"
	"strings"

	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/internal/termtext"
)

// LeaseProcess describes the process that owns a lease.
func LeaseProcess(l *inspect.Lease) string {
	if l.Program == "" && l.Host == "" && l.Process == 0 {
		return "an unknown process" // its session is gone
	}
	return termtext.Lease(l.Process, l.Program, l.Host, termtext.Cut(l.Note, maxQuoted))
}

// LeaseHolder describes the owner of a lease: its process, for how long it has held the
// lease, and how long its session lasts.
func LeaseHolder(l *inspect.Lease) string {
	parts := []string{LeaseProcess(l)}
	if !l.Since.IsZero() {
		parts = append(parts, "for "+Duration(l.Duration))
	}
	if l.Left > 0 {
		parts = append(parts, "expires in "+Duration(l.Left)+" unless renewed")
	} else {
		parts = append(parts, "expired: others may take it")
	}
	return strings.Join(parts, ", ")
}

// LeaseDue describes when a lease may be taken again: in some time, or never.
func LeaseDue(l *inspect.Lease) string {
	if l.Due == math.MaxInt64 {
		return "never due again"
	}
	return "due in " + Duration(l.Due)
}

// LeaseState returns whether a lease is held, its owner's session has expired, or it is free.
func LeaseState(l *inspect.Lease) string {
	switch {
	case l.Held():
		return "held"
	case l.Owner != "":
		return "expired"
	}
	return "free"
}

// leaseAttributes returns the attributes of a lease, in the order in which they are shown. A
// value is nil if there is none.
func leaseAttributes() []leaseAttribute {
	return []leaseAttribute{
		{"lease", func(l *inspect.Lease) any { return l.Name }},
		{"slot", func(l *inspect.Lease) any { return l.Slot }},
		{"state", func(l *inspect.Lease) any { return LeaseState(l) }},
		{"process", func(l *inspect.Lease) any { return orNull(l.Process) }},
		{"program", func(l *inspect.Lease) any { return orNull(l.Program) }},
		{"host", func(l *inspect.Lease) any { return orNull(l.Host) }},
		{"note", func(l *inspect.Lease) any { return orNull(l.Note) }},
		{"token", func(l *inspect.Lease) any { return l.Token }},
		{"since", func(l *inspect.Lease) any { return orNull(l.Since) }},
		{"duration", func(l *inspect.Lease) any {
			if l.Since.IsZero() {
				return nil
			}
			return l.Duration
		}},
		{"left", func(l *inspect.Lease) any { return orNull(l.Left) }},
		{"due", func(l *inspect.Lease) any { return orNull(l.Due) }},
		{"wanted", func(l *inspect.Lease) any { return l.Wanted }},
	}
}

// A leaseAttribute is a column of a list of leases, and a name in JSON.
type leaseAttribute struct {
	name string
	get  func(*inspect.Lease) any
}

// leaseObject returns a lease as a JSON object.
func leaseObject(l *inspect.Lease) Object {
	var o Object
	for _, a := range leaseAttributes() {
		o.Add(a.name, a.get(l))
	}
	return o
}

// LeaseColumns returns the columns of a list of leases in a format: all, or those that people
// need.
func LeaseColumns(f Format) []inspect.Attribute {
	var columns []inspect.Attribute
	for _, a := range leaseAttributes() {
		if f.IsMachine() || f.Expanded || a.name != "token" && a.name != "since" {
			columns = append(columns, inspect.Attribute{Name: a.name})
		}
	}
	return columns
}

// AddLease adds a row for a lease. Its columns are those of LeaseColumns.
func (t *Table) AddLease(l *inspect.Lease) {
	t.add(l.Wanted, func(column inspect.Attribute) any {
		for _, a := range leaseAttributes() {
			if a.name != column.Name {
				continue
			}
			switch {
			case t.Format.IsMachine():
			case a.name == "slot": // left out if all are 0
				return orNull(l.Slot)
			case a.name == "wanted" && !l.Wanted:
				return nil
			case a.name == "due" && l.Due == math.MaxInt64:
				return "never"
			}
			return a.get(l)
		}
		return nil
	})
}
