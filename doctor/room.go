package doctor

import (
	"context"
	_ "embed"
	"fmt"

	"github.com/pglock-go/pglock/internal/sqltext"
)

var (
	//go:embed locks.sql
	locksSQL string

	//go:embed connections.sql
	connectionsSQL string
)

func checkRoom(ctx context.Context, e *examination) ([]Finding, error) {
	locks, err := ask[lockTable](ctx, e, locksSQL)
	if err != nil {
		return nil, err
	}
	findings := []Finding{locks.finding(&e.server)}
	connections, err := ask[connections](ctx, e, connectionsSQL)
	if err != nil {
		return findings, err
	}
	return append(findings, connections.findings(&e.server)...), nil
}

// A lockTable is the reply to locks.sql.
type lockTable struct {
	Used           int64 `json:"used"`
	PerTransaction int64 `json:"per_transaction"`
	Connections    int64 `json:"connections"`
	Prepared       int64 `json:"prepared"`
}

// room returns for how many locked objects there is room at least, or 0 if that is not
// known: from Postgres 19 on the table is allocated in another way (its release notes,
// "Migration to Version 19"). Before, it is the formula of the manual (20.12 "Lock
// Management").
func (l lockTable) room(s *server) int64 {
	if s.major() >= 19 {
		return 0
	}
	return l.PerTransaction * (l.Connections + l.Prepared)
}

// almostFull reports whether three quarters are in use.
func almostFull(used, room int64) bool { return 4*used >= 3*room }

func (l lockTable) finding(s *server) Finding {
	f := Finding{ID: "lock_table", Level: OK}
	room := l.room(s)
	if room == 0 {
		f.Text = fmt.Sprintf("%d locks in a table for max_locks_per_transaction %d", l.Used, l.PerTransaction)
		return f
	}
	f.Text = fmt.Sprintf("locks %d of about %d", l.Used, room)
	if !almostFull(l.Used, room) {
		return f
	}
	f.Level = Warning
	f.Text += ": when the lock table is full, statements fail with \"out of shared memory\""
	f.Advice = []string{fmt.Sprintf("ALTER SYSTEM SET max_locks_per_transaction = %d;", 2*l.PerTransaction)}
	f.Note = bySuperuser + needsRestart
	return f
}

// connections is the reply to connections.sql.
type connections struct {
	Limit         int64 `json:"limit"`
	Reserved      int64 `json:"reserved"`
	Used          int64 `json:"used"`
	RoleLimit     int64 `json:"role_limit"`
	RoleUsed      int64 `json:"role_used"`
	DatabaseLimit int64 `json:"database_limit"`
	DatabaseUsed  int64 `json:"database_used"`
}

// nearLimit reports whether so few connections are left that a Locker or a migration may
// get none: less than a tenth, or less than three.
func nearLimit(used, limit int64) bool { return limit-used < max(3, limit/10) }

// findings reports the limits of the server and, unless the role is not subject to
// them, of the role and the database.
func (c connections) findings(s *server) []Finding {
	const id = "connections"
	limit := c.Limit - c.Reserved
	findings := []Finding{{ID: id, Level: OK, Text: fmt.Sprintf("connections %d of %d", c.Used, limit)}}
	if nearLimit(c.Used, limit) {
		findings[0].Level = Warning
		findings[0].Text += ": almost none is left"
		findings[0].Advice = []string{fmt.Sprintf("ALTER SYSTEM SET max_connections = %d;", 2*c.Limit)}
		findings[0].Note = bySuperuser + needsRestart
	}
	if s.Superuser {
		return findings
	}
	if c.RoleLimit >= 0 && nearLimit(c.RoleUsed, c.RoleLimit) {
		findings = append(findings, Finding{
			ID: id, Level: Warning, Text: fmt.Sprintf("connections of this role %d of %d: almost none is left", c.RoleUsed, c.RoleLimit),
			Advice: []string{fmt.Sprintf("ALTER ROLE %s CONNECTION LIMIT %d;", sqltext.Identifier(s.Login), max(10, 2*c.RoleLimit))},
			Note:   s.inCatalog(),
		})
	}
	if c.DatabaseLimit >= 0 && nearLimit(c.DatabaseUsed, c.DatabaseLimit) {
		findings = append(findings, Finding{
			ID: id, Level: Warning, Text: fmt.Sprintf("connections to this database %d of %d: almost none is left", c.DatabaseUsed, c.DatabaseLimit),
			Advice: []string{fmt.Sprintf("ALTER DATABASE %s CONNECTION LIMIT %d;", sqltext.Identifier(s.Database), max(10, 2*c.DatabaseLimit))},
			Note:   s.inCatalog() + ", or the owner of the database",
		})
	}
	return findings
}
