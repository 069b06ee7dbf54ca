package cli

import (
	"context"
	"strings"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/inspect"
)

// Postgres knows an advisory lock by a number. A pglock run tells others its lock's name
// in application_name, of which Postgres keeps 63 bytes and only printable ASCII. A name
// that does not fit there is in a comment of each of its statements, encoded as in a URL,
// which every encoding of a database can hold.

// lockComment is the key of the comment, and so the name's key in a session's context.
const lockComment = "lock"

// longestApplication is how many bytes Postgres keeps of an application_name
// (NAMEDATALEN - 1).
const longestApplication = 63

// applicationName returns what pg_stat_activity shows of a session. Other than printable
// ASCII is replaced, which Postgres would do in ways that differ between its versions.
func applicationName(verb, detail string) string {
	name := "pglock " + verb
	if detail != "" {
		name += " " + printableASCII(detail)
	}
	return name[:min(len(name), longestApplication)]
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

// applicationOf returns a session's application for people: of a pglock run, the name of
// its lock as it was given.
func applicationOf(s *inspect.Session) string {
	if name, ok := s.Context[lockComment]; ok && s.Application == applicationName("run", name) {
		return "pglock run " + name
	}
	return s.Application
}

// nameKeys gives advisory locks their names, where a pglock run that holds or
// waits for one tells its name, and the name proves true.
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

// longestComment is how many bytes of a name a comment has, encoded: the server shows
// the first 1,023 of a statement, unless track_activity_query_size says otherwise.
const longestComment = 950

// namedSource opens sessions whose statements tell the name of the lock that they are
// for. A longer name is cut.
type namedSource struct {
	pglock.Source
	name string
}

func (s namedSource) Open(ctx context.Context) (pglock.Session, error) {
	session, err := s.Source.Open(ctx)
	if err != nil {
		return nil, err
	}
	note := inspect.Annotate(context.Background(), lockComment, s.name)
	for kept := []rune(s.name); len(inspect.Comment(note, " ")) > longestComment; {
		kept = kept[:len(kept)-1]
		note = inspect.Annotate(note, lockComment, string(kept)+"…")
	}
	return namedSession{session, note}, nil
}

// A namedSession adds the comment to each statement.
type namedSession struct {
	pglock.Session
	note context.Context // holds what the comment says
}

func (s namedSession) Query(ctx context.Context, sql string, args ...any) (pglock.Rows, error) {
	return s.Session.Query(ctx, inspect.Comment(s.note, sql), args...)
}

func (s namedSession) Exec(ctx context.Context, sql string, args ...any) error {
	return s.Session.Exec(ctx, inspect.Comment(s.note, sql), args...)
}

func (s namedSession) Ask(ctx context.Context, sql string, args ...string) (string, error) {
	return s.Session.Ask(ctx, inspect.Comment(s.note, sql), args...)
}
