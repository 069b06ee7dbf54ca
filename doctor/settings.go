package doctor

import (
	"context"
	_ "embed"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/pglock-go/pglock/internal/sqltext"
)

var (
	//go:embed settings.sql
	settingsSQL string

	//go:embed queries.sql
	queriesSQL string
)

// A setting is a row of settings.sql.
type setting struct {
	Name   string `json:"name"`
	Value  string `json:"value"`
	Source string `json:"source"`

	// Both are nil if no default of a role or a database applies.
	OfRole     *bool `json:"of_role"`
	OfDatabase *bool `json:"of_database"`
}

// duration returns the value of a setting in milliseconds.
func (v setting) duration() time.Duration {
	n, err := strconv.ParseInt(v.Value, 10, 64)
	if err != nil {
		return 0
	}
	return time.Duration(n) * time.Millisecond
}

// scope returns the object whose default the setting is, as in ALTER, or "".
func (v setting) scope(s *server) string {
	switch {
	case v.OfRole == nil:
		return ""
	case *v.OfRole && *v.OfDatabase:
		return "ROLE " + sqltext.Identifier(s.Login) + " IN DATABASE " + sqltext.Identifier(s.Database)
	case *v.OfRole:
		return "ROLE " + sqltext.Identifier(s.Login)
	case *v.OfDatabase:
		return "DATABASE " + sqltext.Identifier(s.Database)
	}
	return "ROLE ALL"
}

// mend adds to a finding what changes the setting to value: the default of the role or
// the database is reset first, since it overrides that of the server.
func (v setting) mend(f Finding, s *server, value string) Finding {
	switch scope := v.scope(s); {
	case v.Source == "client":
		f.Note = "it comes from this client's own settings, such as PGOPTIONS"
	case scope != "":
		f.Advice = []string{"ALTER " + scope + " RESET " + v.Name + ";"}
		f.Note = s.inCatalog() + "; for new sessions"
	case v.Source == "command line":
		f.Note = "change it on the command line of the server, where it is set"
	default:
		f.Advice = []string{"ALTER SYSTEM SET " + v.Name + " = " + value + ";", "SELECT pg_reload_conf();"}
		f.Note = bySuperuser + "; in clouds, a parameter of the instance"
	}
	return f
}

// The range in which deadlock_timeout is useful: a shorter one makes the server check for
// deadlocks all the time, and a longer one delays that, and the log of waits.
const (
	minDeadlockTimeout = 100 * time.Millisecond
	maxDeadlockTimeout = 10 * time.Second
)

// minTimeout is the shortest limit of a session or a statement that is not reported: a
// shorter one ends ordinary work.
const minTimeout = time.Second

func checkSettings(ctx context.Context, e *examination) ([]Finding, error) {
	settings, err := ask[[]setting](ctx, e, settingsSQL)
	if err != nil {
		return nil, err
	}
	byName := map[string]setting{}
	for _, v := range settings {
		byName[v.Name] = v
	}
	findings := []Finding{
		byName["log_lock_waits"].logLockWaits(&e.server),
		byName["deadlock_timeout"].deadlockTimeout(&e.server),
		byName["track_activities"].trackActivities(&e.server),
	}
	cut, err := ask[cutQueries](ctx, e, queriesSQL)
	if err != nil {
		return findings, err
	}
	findings = append(findings, cut.finding(),
		byName["idle_in_transaction_session_timeout"].idleInTransaction(&e.server))
	for _, name := range []string{"statement_timeout", "lock_timeout", "idle_session_timeout", "transaction_timeout"} {
		if v, ok := byName[name]; ok && v.duration() > 0 {
			findings = append(findings, v.timeout(&e.server))
		}
	}
	return findings, nil
}

// logLockWaits reports whether the server logs long waits. The default is off before
// Postgres 19.
func (v setting) logLockWaits(s *server) Finding {
	f := Finding{ID: v.Name, Level: OK, Text: v.Name + " " + v.Value}
	if v.Value == "on" {
		return f
	}
	f.Level, f.Text = Warning, v.Name+" is off: waits for locks leave no line in the log"
	return v.mend(f, s, "on")
}

func (v setting) deadlockTimeout(s *server) Finding {
	f := Finding{ID: v.Name, Level: OK, Text: v.Name + " " + short(v.duration())}
	switch {
	case v.duration() > maxDeadlockTimeout:
		f.Text += ": deadlocks are resolved late, and waits are logged late"
	case v.duration() < minDeadlockTimeout:
		f.Text += ": the server checks for deadlocks at almost every wait, which blocks other locks"
	default:
		return f
	}
	f.Level = Warning
	return v.mend(f, s, "'1s'")
}

func (v setting) trackActivities(s *server) Finding {
	f := Finding{ID: v.Name, Level: OK, Text: v.Name + " " + v.Value}
	if v.Value == "on" {
		return f
	}
	f.Level, f.Text = Problem, v.Name+" is off: neither queries nor states of sessions are known"
	return v.mend(f, s, "on")
}

// idleInTransaction reports whether forgotten transactions end.
func (v setting) idleInTransaction(s *server) Finding {
	switch d := v.duration(); {
	case d == 0:
		f := Finding{ID: v.Name, Level: Warning, Text: v.Name + " is 0: a forgotten transaction holds its locks without end"}
		return v.mend(f, s, "'10min'")
	default:
		return v.timeout(s)
	}
}

// timeout reports a limit that is set. It is wrong only if it is very short.
func (v setting) timeout(s *server) Finding {
	f := Finding{ID: v.Name, Level: OK, Text: v.Name + " " + short(v.duration())}
	if scope := v.scope(s); scope != "" {
		f.Text += " (" + scope + ")"
	}
	if v.duration() >= minTimeout {
		return f
	}
	f.Level = Warning
	f.Text += ": ordinary work is ended"
	value := "0"
	if v.Name == "idle_in_transaction_session_timeout" {
		value = "'10min'"
	}
	return v.mend(f, s, value)
}

// cutQueries is the reply to queries.sql.
type cutQueries struct {
	Size int `json:"size"`
	Cut  int `json:"cut"`
}

// The sizes that track_activity_query_size is raised to: enough for most queries, and
// what every version allows.
const (
	goodQuerySize = 16384
	maxQuerySize  = 102400
)

// finding reports whether the server cuts queries now.
func (q cutQueries) finding() Finding {
	const name = "track_activity_query_size"
	f := Finding{ID: name, Level: OK, Text: fmt.Sprintf("%s %d", name, q.Size)}
	if q.Cut == 0 || q.Size >= maxQuerySize {
		return f
	}
	f.Level = Warning
	f.Text += fmt.Sprintf(" cuts the queries of %s now", plural(q.Cut, "session"))
	f.Advice = []string{fmt.Sprintf("ALTER SYSTEM SET %s = %d;", name, min(max(goodQuerySize, 4*q.Size), maxQuerySize))}
	f.Note = bySuperuser + needsRestart
	return f
}

// needsRestart ends the note for settings that are read when the server starts.
const needsRestart = "; then restart the server; in clouds, a parameter of the instance"

// short returns a duration without the units that are zero, such as 10m.
func short(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// plural returns a number with a regular noun.
func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return strconv.Itoa(n) + " " + noun + "s"
}
