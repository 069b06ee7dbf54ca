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
