package cli

import (
	"context"
	"strings"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/inspect"
)

// Postgres identifies an advisory lock by a number. pglock run publishes its lock's name
// in application_name, of which Postgres keeps 63 bytes and only printable ASCII. A name
// that does not fit is also in a comment of each of its statements, percent-encoded, so
// that it is valid in every database encoding.

// lockComment is the key of the comment, and of the name in a session's context.
const lockComment = "lock"

// maxApplicationBytes is how many bytes Postgres keeps of an application_name
// (NAMEDATALEN - 1).
const maxApplicationBytes = 63

// applicationName returns the application_name for a verb. It replaces characters other
// than printable ASCII, which Postgres would do in ways that differ between its versions.
func applicationName(verb, detail string) string {
	name := "pglock " + verb
	if detail != "" {
		name += " " + printableASCII(detail)
	}
	return name[:min(len(name), maxApplicationBytes)]
}

// printableASCII returns s with a ? in place of each other character.
func printableASCII(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
}

// applicationOf returns a session's application for people. For a pglock run it contains
// the lock's full name.
func applicationOf(s *inspect.Session) string {
	if name, ok := s.Context[lockComment]; ok && s.Application == applicationName("run", name) {
		return "pglock run " + name
	}
	return s.Application
}

// nameKeys sets the names of advisory locks that a pglock run holds or waits for and
// has published, if the name maps to the key.
func nameKeys(locks []*inspect.Lock) {
	names := map[pglock.Key]pglock.Key{}
	for _, l := range locks {
		if !l.HasKey || l.Key.IsPair() {
			continue
		}
		fromApplication, _ := strings.CutPrefix(l.Application, applicationName("run", "")+" ")
		for _, name := range []string{l.Context[lockComment], fromApplication} {
			if key := pglock.Name(name); name != "" && key.ID() == l.Key.ID() {
				names[l.Key] = key
			}
		}
	}
	for _, l := range locks {
		if key, ok := names[l.Key]; ok && l.HasKey {
			l.Key = key
		}
	}
}

// maxCommentBytes is how many bytes of an encoded name a comment holds. By default the
// server shows the first 1,023 bytes of a statement (track_activity_query_size).
const maxCommentBytes = 950

// A namedSource opens sessions whose statements have the lock's name in a comment. It
// cuts a name that is too long.
type namedSource struct {
	driver.Source
	name string
}

func (s namedSource) Open(ctx context.Context) (driver.Session, error) {
	session, err := s.Source.Open(ctx)
	if err != nil {
		return nil, err
	}
	note := inspect.Annotate(context.Background(), lockComment, s.name)
	for kept := []rune(s.name); len(inspect.Comment(note, " ")) > maxCommentBytes; {
		kept = kept[:len(kept)-1]
		note = inspect.Annotate(note, lockComment, string(kept)+"…")
	}
	return namedSession{session, note}, nil
}

// A namedSession adds the comment to each statement.
type namedSession struct {
	driver.Session
	note context.Context // holds the comment
}

func (s namedSession) Query(ctx context.Context, sql string, args ...any) (driver.Rows, error) {
	return s.Session.Query(ctx, inspect.Comment(s.note, sql), args...)
}

func (s namedSession) Exec(ctx context.Context, sql string, args ...any) error {
	return s.Session.Exec(ctx, inspect.Comment(s.note, sql), args...)
}

func (s namedSession) QueryText(ctx context.Context, sql string, args ...string) (string, error) {
	return s.Session.QueryText(ctx, inspect.Comment(s.note, sql), args...)
}
