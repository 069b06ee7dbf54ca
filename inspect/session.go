package inspect

import (
	"strings"
	"time"
	"unicode/utf8"
)

// A Session is a session of the server, or what stands in its place: a prepared
// transaction, which has no process, or a process of the server's own. It is a
// row of pg_stat_activity (PostgreSQL manual, 27.2.3 "pg_stat_activity").
//
// What a session does is shown to superusers, to its own role, and to members of
// pg_read_all_stats; to others it is Hidden. A session that ended while it was
// looked at has its PID and nothing else.
type Session struct {
	PID         int32  // its process, 0 for a prepared transaction
	LeaderPID   int32  // of a parallel worker: who it works for; else 0. From Postgres 13 on
	User        string // its role, "" for a process of the server's own
	Database    string // what it is connected to, "" for a process that is not
	Application string // its application_name
	Client      string // its address, "" for a unix socket and for the server's own
	BackendType string // such as "client backend" or "autovacuum worker", "" when hidden

	BackendStart time.Time // when it began, zero when hidden
	XactStart    time.Time // when its transaction began, zero when it has none
	QueryStart   time.Time // when its query began; when the last one did, if State is not active
	StateChange  time.Time // when it came into State

	// Duration is how long it has been at what it does: since QueryStart when it
	// is active, else since StateChange; 0 when that is hidden.
	Duration time.Duration

	State         string // such as "active" or "idle in transaction", "" when hidden
	WaitEventType string // such as "Lock", "" when it does not wait
	WaitEvent     string // such as "relation" or "transactionid"
	QueryID       int64  // 0 when it is not computed. From Postgres 14 on

	// Context is what the application wrote in the comments of its query; nil if
	// nothing.
	Context map[string]string

	// Query is what it runs, or ran last when State is not active, without the
	// comments that Context comes from. The server cuts it off at
	// track_activity_query_size bytes. A lock may come from an earlier query of
	// the same transaction.
	Query string

	Prepared *Prepared // nil but for a prepared transaction, which no process belongs to

	Hidden bool // what it does is not shown to the role that asked
}

// hiddenQuery is what pg_stat_activity shows for a query that is not to be seen.
const hiddenQuery = "<insufficient privilege>"

// The columns of a session, in snapshot.sql.
const (
	colSessionPID = iota
	colLeaderPID
	colUser
	colSessionDatabase
	colApplication
	colClient
	colBackendType
	colState
	colWaitEventType
	colWaitEvent
	colQueryID
	colBackendStart
	colXactStart
	colQueryStart
	colStateChange
	colQuery
	sessionFields
)

// parseSession makes a session of a row of pg_stat_activity.
func parseSession(row string) (Session, error) {
	var f [sessionFields]string
	if record(row, f[:]) != sessionFields {
		return Session{}, unreadable("session", row)
	}
	var n numbers
	// A database without an encoding gives whatever bytes it was given.
	text := func(column int) string { return validText(strings.Clone(f[column])) }
	s := Session{
		PID:           int32(n.int(f[colSessionPID])),
		LeaderPID:     int32(n.int(f[colLeaderPID])),
		User:          text(colUser),
		Database:      text(colSessionDatabase),
		Application:   text(colApplication),
		Client:        text(colClient),
		BackendType:   text(colBackendType),
		BackendStart:  n.microseconds(f[colBackendStart]),
		XactStart:     n.microseconds(f[colXactStart]),
		QueryStart:    n.microseconds(f[colQueryStart]),
		StateChange:   n.microseconds(f[colStateChange]),
		State:         text(colState),
		WaitEventType: text(colWaitEventType),
		WaitEvent:     text(colWaitEvent),
		QueryID:       n.int(f[colQueryID]),
		Query:         text(colQuery),
	}
	if n.err != nil {
		return Session{}, unreadable("session", row)
	}
	if s.Query == hiddenQuery {
		s.Query, s.Hidden = "", true
	}
	s.Context, s.Query = splitComments(s.Query)
	if s.LeaderPID == s.PID {
		s.LeaderPID = 0 // a leader is shown as its own
	}
	return s, nil
}

// validText is s with U+FFFD for each byte that is not UTF-8.
func validText(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	return string([]rune(s))
}

// age sets Duration, as the server's clock stands at now.
func (s *Session) age(now time.Time) {
	since := s.StateChange
	if s.State == stateActive {
		since = s.QueryStart
	}
	if !since.IsZero() {
		s.Duration = max(0, now.Sub(since))
	}
}

// stateActive is the State of a session that runs a query.
const stateActive = "active"
