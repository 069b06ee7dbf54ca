package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/internal/handshake"
	"github.com/pglock-go/pglock/internal/sqlstate"
)

// A Level is how much a finding matters.
type Level string

const (
	OK      Level = "ok"      // nothing to do
	Warning Level = "warning" // something works, but not well, or not for all
	Problem Level = "problem" // something does not work
)

// rank orders levels.
func (l Level) rank() int { return slices.Index([]Level{OK, Warning, Problem}, l) }

// A Finding is the result of one check.
type Finding struct {
	Check string // the check, such as "settings"
	ID    string // the finding in it, such as "log_lock_waits"; it never changes
	Level Level
	Text  string // a phrase for people, on one line

	// Advice has what mends it, to be run as it is: SQL statements that end in a
	// semicolon, or else what Note describes, such as a part of a connection string. It
	// is nil if there is nothing to run.
	Advice []string

	// Note describes who can run the Advice, where, and what it needs, such as a restart
	// of the server. It may be "".
	Note string
}

// A Report is the result of all checks, in the order of the package comment. Each check
// that ran has at least one finding, which is OK if there is nothing to do.
type Report struct {
	Server   inspect.Server // the server, the database and the role
	Findings []Finding
}

// Level returns the worst level of the findings. It returns OK if there are none.
func (r Report) Level() Level {
	worst := OK
	for _, f := range r.Findings {
		if f.Level.rank() > worst.rank() {
			worst = f.Level
		}
	}
	return worst
}

// An Option changes what [Run] does.
type Option func(*options)

type options struct {
	only []string
	age  time.Duration
	now  func() time.Time
}

// Only limits the checks to those with these names, of checks such as "settings", or of
// findings, such as "log_lock_waits". See [Names].
func Only(names ...string) Option {
	return func(o *options) { o.only = append(o.only, names...) }
}

// OlderThan sets how long a transaction must have been idle, or prepared, to be
// reported. The default is a minute.
func OlderThan(age time.Duration) Option {
	return func(o *options) { o.age = age }
}

// A check asks the server and returns its findings.
type check struct {
	name     string
	findings []string // their IDs
	run      func(context.Context, *examination) ([]Finding, error)
}

// checks returns all checks, in the order of the report.
func checks() []check {
	return []check{
		{"connection", []string{"version", "pooler", "tls", "clock", "standby"}, checkConnection},
		{"sees", []string{"sees"}, checkSees},
		{"ends", []string{"ends", "superusers", "autovacuum"}, checkEnds},
		{"settings", []string{
			"log_lock_waits", "deadlock_timeout", "track_activities", "track_activity_query_size",
			"idle_in_transaction_session_timeout", "statement_timeout", "lock_timeout", "idle_session_timeout",
			"transaction_timeout",
		}, checkSettings},
		{"room", []string{"lock_table", "connections"}, checkRoom},
		{"now", []string{"prepared", "idle"}, checkNow},
	}
}

// Names returns the names for [Only]: of each check, followed by those of its findings.
func Names() []string {
	var names []string
	for _, c := range checks() {
		names = append(names, c.name)
		for _, id := range c.findings {
			if id != c.name {
				names = append(names, id)
			}
		}
	}
	return names
}

// limit is how long the checks may take together if ctx has no deadline.
const limit = 30 * time.Second

// An examination has what the checks share.
type examination struct {
	options
	source  driver.Source
	session driver.Session
	hello   handshake.Hello
	server  server
	counted *census // the sessions, once they were counted
}

// Run checks a database. source opens the sessions for that: it is the same value that a
// pglock.Locker gets, such as pgxlock.Pool(pool). They are not the pool's own
// connections. There are one or, to find out how a pooler works, two of them; both are
// closed when Run returns.
//
// A question that the server refuses is a finding of its check. The error is that of
// opening a session, or of a connection that broke, or an unknown name in [Only]. ctx
// covers all of it; if it has no deadline, the limit is 30 seconds.
func Run(ctx context.Context, source driver.Source, opts ...Option) (Report, error) {
	e := &examination{options: options{age: time.Minute, now: time.Now}, source: source}
	for _, o := range opts {
		o(&e.options)
	}
	for _, name := range e.only {
		if !slices.Contains(Names(), name) {
			return Report{}, fmt.Errorf("doctor: there is no check %q: the checks are %s", name, strings.Join(Names(), ", "))
		}
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	report, err := e.run(ctx)
	if err != nil {
		return Report{}, fmt.Errorf("doctor: %w", err)
	}
	return report, nil
}

func (e *examination) run(ctx context.Context) (report Report, err error) {
	if e.session, err = e.source.Open(ctx); err != nil {
		return Report{}, err
	}
	defer e.session.Close()
	if err := e.greet(ctx); err != nil {
		return Report{}, err
	}
	report.Server = e.server.describe()
	if f := e.server.versionFinding(); f.Level == Problem {
		report.Findings = []Finding{f}
		return report, nil
	}
	for _, c := range checks() {
		if !e.wants(c.name) && !slices.ContainsFunc(c.findings, e.wants) {
			continue
		}
		findings, err := c.run(ctx, e)
		if err != nil {
			if sqlstate.Of(err) == "" {
				return Report{}, err
			}
			findings = append(findings, Finding{ID: c.findings[0], Level: Warning, Text: "could not be checked: " + err.Error()})
		}
		for _, f := range findings {
			f.Check = c.name
			if e.wants(c.name) || e.wants(f.ID) {
				report.Findings = append(report.Findings, f)
			}
		}
	}
	return report, nil
}

// wants reports whether the check or finding with that name was asked for.
func (e *examination) wants(name string) bool {
	return len(e.only) == 0 || slices.Contains(e.only, name)
}
