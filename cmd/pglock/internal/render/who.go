package render

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/internal/termtext"
)

// LockUsers lists the sessions that hold a lock or wait for it, and the leases of the same
// name.
type LockUsers struct {
	Title   string // the lock as the user named it
	Name    string // its name, or "" if it was given by number
	Key     string
	Holders []*inspect.Lock
	Waiters []*inspect.Lock // the longest wait first
	Leases  []*inspect.Lease
}

// IsHeld reports whether the lock or a lease is held.
func (u LockUsers) IsHeld() bool { return len(u.Holders) > 0 || u.heldLeases() > 0 }

// heldLeases returns how many leases are held: one for each of several holders.
func (u LockUsers) heldLeases() int {
	n := 0
	for _, l := range u.Leases {
		if l.Held() {
			n++
		}
	}
	return n
}

// WriteLockUsers writes a line for each lock and one for each of its holders. It cuts the
// lines to width, unless that is 0.
func WriteLockUsers(out io.Writer, all []LockUsers, width int) error {
	var b strings.Builder
	line := func(format string, args ...any) {
		text := fmt.Sprintf(format, args...)
		if width > 0 {
			text = termtext.Cut(text, width)
		}
		b.WriteString(text + "\n")
	}
	for _, u := range all {
		if len(u.Holders)+len(u.Waiters) > 0 || u.heldLeases() == 0 {
			line("lock %s is %s%s", Quote(u.Title), u.state(), u.queue())
		}
		for _, l := range u.Holders {
			if name := ApplicationName("run", u.Title); l.Application == name {
				l.Application = "pglock run " + u.Title // the whole name
			}
			from := ""
			if l.Client != "" {
				from = " from " + termtext.Line(l.Client)
			}
			line("  %s%s%s", Session(l.Session), from, State(l.Session))
		}
		if len(u.Leases) > 0 {
			line("lease %s is %s", Quote(u.Title), u.leaseState())
		}
		for _, l := range u.Leases {
			if l.Owner != "" {
				line("  %s, token %d", LeaseHolder(l), l.Token)
			}
		}
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// state returns whether and how the lock is held.
func (u LockUsers) state() string {
	switch {
	case len(u.Holders) == 0:
		return "free"
	case len(u.Holders) > 1 && u.Holders[0].Mode != "ShareLock": // of slots
		return "held by " + Plural(len(u.Holders), "session", "sessions")
	case u.Holders[0].Mode == "ShareLock":
		return fmt.Sprintf("held in shared mode by %s", Plural(len(u.Holders), "session", "sessions"))
	}
	return "held"
}

// leaseState returns whether the lease is held, and whether others want it.
func (u LockUsers) leaseState() string {
	text := "free"
	switch n := u.heldLeases(); {
	case n == 1:
		text = "held"
	case n > 1:
		text = "held by " + Plural(n, "process", "processes")
	}
	for _, l := range u.Leases {
		if l.Owner == "" && len(u.Leases) == 1 {
			text += ", and " + LeaseDue(l)
		}
	}
	if slices.ContainsFunc(u.Leases, func(l *inspect.Lease) bool { return l.Wanted }) {
		text += "; others wait"
	}
	return text
}

// queue returns how many sessions wait, or "".
func (u LockUsers) queue() string {
	if len(u.Waiters) == 0 {
		return ""
	}
	verb := "wait"
	if len(u.Waiters) == 1 {
		verb = "waits"
	}
	if u.Waiters[0].WaitDuration == 0 { // of one that waits for slots
		return fmt.Sprintf("; %s %s", Plural(len(u.Waiters), "session", "sessions"), verb)
	}
	return fmt.Sprintf("; %s %s, for up to %s", Plural(len(u.Waiters), "session", "sessions"), verb, Duration(u.Waiters[0].WaitDuration))
}

// WriteLockUsersJSON writes an object for each lock.
func WriteLockUsersJSON(out io.Writer, all []LockUsers) error {
	var objects []Object
	for _, u := range all {
		var o Object
		o.Add("name", orNull(u.Name))
		o.Add("key", u.Key)
		o.Add("held", u.IsHeld())
		o.Add("holders", usersObjects(u.Holders))
		o.Add("waiters", usersObjects(u.Waiters))
		leases := []Object{}
		for _, l := range u.Leases {
			leases = append(leases, leaseObject(l))
		}
		o.Add("leases", leases)
		objects = append(objects, o)
	}
	return WriteObjects(out, objects)
}

// usersObjects returns sessions as JSON objects, with their mode and wait.
func usersObjects(locks []*inspect.Lock) []Object {
	objects := []Object{}
	for _, l := range locks {
		o := sessionObject(l.Session)
		o.Add("prepared", preparedObject(l.Prepared))
		for _, name := range []string{"mode", "wait_start", "wait_duration"} {
			a, _ := FindAttribute(inspect.Attributes(), name)
			o.Add(name, a.Value(l))
		}
		objects = append(objects, o)
	}
	return objects
}
