package render

import (
	"iter"
	"strings"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/internal/termtext"
)

// Postgres identifies an advisory lock by a number. pglock run publishes its lock's name
// in application_name, of which Postgres keeps 63 bytes and only printable ASCII. A name
// that does not fit is also in a comment of each of its statements, percent-encoded, so
// that it is valid in every database encoding.

// LockComment is the key of the comment, and of the name in a session's context.
const LockComment = "lock"

// MaxApplicationBytes is how many bytes Postgres keeps of an application_name
// (NAMEDATALEN - 1).
const MaxApplicationBytes = 63

// ApplicationName returns the application_name for a verb. It replaces characters other
// than printable ASCII, which Postgres would do in ways that differ between its versions.
func ApplicationName(verb, detail string) string {
	name := "pglock " + verb
	if detail != "" {
		name += " " + termtext.ASCII(detail)
	}
	return name[:min(len(name), MaxApplicationBytes)]
}

// Application returns a session's application for people. For a pglock run it contains
// the lock's full name.
func Application(s *inspect.Session) string {
	if name, ok := s.Context.Lookup(LockComment); ok && s.Application == ApplicationName("run", name) {
		return "pglock run " + name
	}
	return s.Application
}

// NameKeys sets the names of the advisory locks in shown that are in known, or that a pglock
// run holds or waits for and has published in a session of all, if the name maps to the key. known
// may be nil.
func NameKeys(shown []*inspect.Lock, all iter.Seq[*inspect.Lock], known iter.Seq[string]) {
	named := map[pglock.Key]bool{} // the keys that are shown, and whether their name is found
	for _, l := range shown {
		if _, _, pair := l.Key.Pair(); l.HasKey && !pair {
			named[l.Key] = false
		}
	}
	if len(named) == 0 {
		return
	}
	names := map[pglock.Key]pglock.Key{}
	for l := range all {
		if !l.HasKey {
			continue
		}
		if found, ok := named[l.Key]; !ok || found {
			continue
		}
		fromApplication, _ := strings.CutPrefix(l.Application, ApplicationName("run", "")+" ")
		fromComment, _ := l.Context.Lookup(LockComment)
		for _, name := range []string{fromComment, fromApplication} {
			if key := pglock.Name(name); name != "" && key.ID() == l.Key.ID() {
				names[l.Key], named[l.Key] = key, true
			}
		}
	}
	if known == nil {
		known = func(func(string) bool) {}
	}
	for name := range known {
		key := pglock.Name(name)
		number := pglock.Int(key.ID())
		if found, ok := named[number]; ok && !found {
			names[number] = key
		}
	}
	for _, l := range shown {
		if key, ok := names[l.Key]; ok && l.HasKey {
			l.Key = key
		}
	}
}
