package inspect

import (
	"cmp"
	"context"
	_ "embed"
	"fmt"
	"slices"

	"github.com/pglock-go/pglock/driver"
)

//go:embed activity.sql
var activitySQL string

// sessionConditionsMarker is the place of the conditions in activity.sql.
const sessionConditionsMarker = "WHERE true -- conditions on the session a"

// Sessions returns the sessions of the server that match all filters, whether they
// hold a lock or not. The longest transaction comes first; sessions without one come
// last, the longest in their state first. Without a filter it returns all rows of
// pg_stat_activity, which include the server's own processes, but not the session that
// reads. Prepared transactions have no session: see [Locks].
//
// A filter is about a field of [SessionAttributes]. [On] selects the sessions that hold
// or await a lock on the tables. ctx covers the reading, as for [Locks].
//
// To end sessions, pass them to [VictimsOf]. To limit the sessions that a Locker
// opens, see Sessions in package pglock.
func Sessions(ctx context.Context, q driver.Querier, filters ...Filter) ([]Session, error) {
	ctx, cancel := withDeadline(ctx)
	defer cancel()
	sessions, err := readSessions(ctx, q, filters)
	if err != nil {
		return nil, fmt.Errorf("inspect: reading the sessions: %w", err)
	}
	return sessions, nil
}

func readSessions(ctx context.Context, q driver.Querier, filters []Filter) ([]Session, error) {
	err := checkFilters(filters, func(f Filter) string {
		switch {
		case f.ofSession():
			return ""
		case f.ofPair():
			return "pairs"
		}
		return "locks"
	})
	if err != nil {
		return nil, err
	}
	c := conditions{values: map[string]string{}}
	for _, f := range filters {
		if err := c.addSession(ctx, q, f); err != nil {
			return nil, err
		}
	}
	sql, err := c.sessionStatement(activitySQL)
	if err != nil {
		return nil, err
	}
	r, err := read(ctx, q, sql, c.values)
	if err != nil {
		return nil, markFilterError(err)
	}
	sessions := make([]Session, 0, len(r.sessions))
	for _, s := range r.sessions {
		sessions = append(sessions, *s)
	}
	slices.SortFunc(sessions, func(a, b Session) int {
		return cmp.Or(cmp.Compare(b.XactDuration, a.XactDuration), cmp.Compare(b.Duration, a.Duration), cmp.Compare(a.PID, b.PID))
	})
	return matchHere(ctx, q, sessions, filters, func(f Filter, s *Session) any { return f.attribute.get(&Lock{Session: s}) })
}

// ofSession reports whether the filter applies to sessions: it is about a table, PIDs,
// or a field of a session that is not the blocking session of a pair.
func (f Filter) ofSession() bool {
	return f.attribute.Name == "" || f.attribute.of == ofSession && !f.blocking
}

// addSession compiles a filter of sessions.
func (c *conditions) addSession(ctx context.Context, q driver.Querier, f Filter) error {
	switch {
	case len(f.tables) > 0:
		tables, err := tableOIDs(ctx, q, f.tables)
		if err != nil {
			return err
		}
		c.session = append(c.session, `a.process OPERATOR(pg_catalog.=) ANY (
            SELECT l.pid FROM pg_catalog.pg_locks AS l CROSS JOIN server AS here
            WHERE l.database OPERATOR(pg_catalog.=) here.database_oid AND `+c.anyOID("l.relation", tables)+")")
	case len(f.pids) > 0:
		c.session = append(c.session, c.anyPID("a.process", f.pids))
	case f.attribute.Name == "" || f.matchedHere():
	default:
		c.session = append(c.session, c.compare("a", f))
	}
	return nil
}

// sessionStatement returns template, which is activity.sql, with the conditions.
func (c *conditions) sessionStatement(template string) (string, error) {
	return fill(template,
		marker{begin: sessionColumnsMarker, text: columns(ofSession)},
		marker{begin: sessionConditionsMarker, text: "WHERE " + joinConditions(c.session)},
	)
}

// VictimsOf returns the sessions as victims, for [Cancel] and [Terminate]. If the
// start of a session is hidden from our role, nothing proves that it is still the same
// session, so it is not signaled; its locks may prove it: see [SessionsOf].
func VictimsOf(sessions []Session) []Victim {
	victims := make([]Victim, len(sessions))
	for i := range sessions {
		victims[i].Session = &sessions[i]
	}
	return victims
}
