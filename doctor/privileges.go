package doctor

import (
	"context"
	_ "embed"
	"fmt"

	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/internal/sqltext"
)

//go:embed sessions.sql
var sessionsSQL string

// A census is the reply to sessions.sql.
type census struct {
	Sessions     int `json:"sessions"`
	Hidden       int `json:"hidden"`
	OfSuperusers int `json:"of_superusers"`
}

// bySuperuser is the note for statements that a superuser must run.
const bySuperuser = "as a superuser"

// inCatalog returns the note for statements that a superuser must run and that change the
// catalog, which a standby cannot.
func (s *server) inCatalog() string {
	if s.InRecovery {
		return bySuperuser + ", on the primary"
	}
	return bySuperuser
}

// grant returns the statements that let the role use a predefined role, of which
// package inspect knows the grant. A plain grant has no effect if the role does not
// inherit (PostgreSQL manual, GRANT, "INHERIT").
func (s *server) grant(missing inspect.Server, member bool) []string {
	var advice []string
	for _, grant := range missing.Grants() {
		switch {
		case s.Inherits && !member:
			advice = append(advice, grant+";")
		case s.major() >= 16:
			advice = append(advice, grant+" WITH INHERIT TRUE;")
		default:
			advice = append(advice, grant+";", "ALTER ROLE "+sqltext.Identifier(s.User)+" INHERIT;")
		}
	}
	return advice
}

// notInherited explains why the role of a finding does not have a privilege.
func notInherited(member bool, role string) string {
	if !member {
		return ""
	}
	return ": it is a member of " + role + ", but does not inherit its privileges"
}

// census counts the sessions, once, so that all checks have the same numbers.
func (e *examination) census(ctx context.Context) (census, error) {
	if e.counted == nil {
		c, err := ask[census](ctx, e, sessionsSQL)
		if err != nil {
			return c, err
		}
		e.counted = &c
	}
	return *e.counted, nil
}

func checkSees(ctx context.Context, e *examination) ([]Finding, error) {
	if e.server.SeesAll {
		return []Finding{{ID: "sees", Level: OK, Text: "the activity of all sessions"}}, nil
	}
	c, err := e.census(ctx)
	text := "the activity of other roles is hidden"
	if c.Hidden > 0 {
		text = fmt.Sprintf("the activity of %d of %d other sessions is hidden", c.Hidden, c.Sessions)
	}
	return []Finding{{
		ID: "sees", Level: Warning,
		Text:   text + notInherited(e.server.SeesMember, "pg_read_all_stats"),
		Advice: e.server.grant(inspect.Server{User: e.server.User, SignalsAll: true}, e.server.SeesMember),
		Note:   e.server.inCatalog(),
	}}, err
}

func checkEnds(ctx context.Context, e *examination) ([]Finding, error) {
	s := &e.server
	if s.Superuser {
		return []Finding{{ID: "ends", Level: OK, Text: "the sessions of all roles"}}, nil
	}
	findings := []Finding{{ID: "ends", Level: OK, Text: "the sessions of all roles except superusers"}}
	if !s.SignalsAll {
		findings[0] = Finding{
			ID: "ends", Level: Problem,
			Text:   "may not end the sessions of other roles" + notInherited(s.SignalsMember, "pg_signal_backend"),
			Advice: s.grant(inspect.Server{User: s.User, SeesAll: true}, s.SignalsMember),
			Note:   s.inCatalog(),
		}
	}
	switch role := "pg_signal_autovacuum_worker"; {
	case s.SignalsAutovacuum == nil:
		findings = append(findings, Finding{ID: "autovacuum", Level: OK, Text: "not autovacuum workers (only a superuser may)"})
	case *s.SignalsAutovacuum:
		findings = append(findings, Finding{ID: "autovacuum", Level: OK, Text: "autovacuum workers"})
	default:
		findings = append(findings, Finding{
			ID: "autovacuum", Level: OK, Text: "not autovacuum workers (a member of " + role + " may)",
		})
	}
	c, err := e.census(ctx)
	if c.OfSuperusers > 0 {
		subject := "1 session belongs to a superuser"
		if c.OfSuperusers > 1 {
			subject = fmt.Sprintf("%d sessions belong to superusers", c.OfSuperusers)
		}
		findings = append(findings, Finding{ID: "superusers", Level: OK, Text: subject + ": only a superuser may end " + pronoun(c.OfSuperusers)})
	}
	return findings, err
}

func pronoun(n int) string {
	if n == 1 {
		return "it"
	}
	return "them"
}
