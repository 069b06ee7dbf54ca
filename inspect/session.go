package inspect

import (
	"strings"
	"time"
	"unicode/utf8"
)

// A Session is a session of the server, a prepared transaction, which has no process,
// or another process of the server. It is a row of pg_stat_activity (PostgreSQL
// manual, 27.2.3 "pg_stat_activity").
//
// The activity of a session is shown to superusers, to its own role, and to members
// of pg_read_all_stats; for others it is Hidden. A session that ended during the read
// has its PID and nothing else.
type Session struct {
	PID         int32  // of its process, 0 for a prepared transaction
	LeaderPID   int32  // the leader of a parallel worker, from Postgres 13 on; otherwise 0
	User        string // its role, "" for a process without one
	Database    string // its database, "" for a process without one
	Application string // its application_name
	Client      string // its address, "" for a Unix socket or without a client

	// ClientHostname is the host name of the client, if log_hostname is on; "" for a
	// Unix socket. ClientPort is the client's TCP port, 0 for a Unix socket.
	ClientHostname string
	ClientPort     int32

	BackendType string // such as "client backend" or "autovacuum worker", "" if hidden

	BackendStart time.Time // when it began, zero if hidden
	XactStart    time.Time // when its transaction began, zero if it has none
	QueryStart   time.Time // when its query began, or the last one if State is not active
	StateChange  time.Time // when State last changed

	// Duration is the time since QueryStart if it is active, or else since
	// StateChange; 0 if that is hidden. XactDuration is the time since XactStart.
	Duration     time.Duration
	XactDuration time.Duration

	// BackendXID is the ID of its transaction, 0 until it writes. BackendXmin is the
	// oldest transaction ID that its snapshot may need, 0 without a snapshot. XminAge
	// is how many transaction IDs were assigned since the older of the two: the
	// session with the largest XminAge holds VACUUM back the most (PostgreSQL manual,
	// 24.1.2 "Recovering Disk Space"). Every role sees them.
	BackendXID  uint32
	BackendXmin uint32
	XminAge     int64

	State         string // such as "active" or "idle in transaction", "" if hidden
	WaitEventType string // such as "Lock", "" if it does not wait
	WaitEvent     string // such as "relation" or "transactionid"
	QueryID       int64  // from Postgres 14 on; 0 if it is not computed

	// Context has the annotations in the comments of its query; "" without any.
	Context Context

	// Query is the current query, or the last one if State is not active, without the
	// comments that Context comes from. The server truncates it to
	// track_activity_query_size bytes. A lock may come from an earlier query of the
	// same transaction.
	Query string

	Prepared *Prepared // set only for a prepared transaction, which has no process

	Hidden bool // its activity is not shown to our role
}

// hiddenQuery is the query that pg_stat_activity shows if the role may not see it.
const hiddenQuery = "<insufficient privilege>"

// The columns of a session, in snapshot.sql, matching.sql, sessions.sql and activity.sql.
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
	colClientHostname
	colClientPort
	colXID
	colXmin
	colXIDAge
	colXminAge
	colQuery
	sessionFields
)

// parseSession parses a row of pg_stat_activity.
func parseSession(row string) (Session, error) {
	var f [sessionFields]string
	if parseRecord(row, f[:]) != sessionFields {
		return Session{}, unreadableError("session", row)
	}
	var n numberParser
	// With SQL_ASCII, text may be any bytes.
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

		ClientHostname: text(colClientHostname),
		ClientPort:     max(0, int32(n.int(f[colClientPort]))), // -1 is a Unix socket
		BackendXID:     n.oid(f[colXID]),
		BackendXmin:    n.oid(f[colXmin]),
		XminAge:        max(n.int(f[colXIDAge]), n.int(f[colXminAge])),
	}
	if n.err != nil {
		return Session{}, unreadableError("session", row)
	}
	if s.Query == hiddenQuery {
		s.Query, s.Hidden = "", true
	}
	s.Context, s.Query = splitComments(s.Query)
	if s.LeaderPID == s.PID {
		s.LeaderPID = 0 // a leader is its own leader
	}
	return s, nil
}

// validText returns s with each byte that is not UTF-8 replaced by U+FFFD.
func validText(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	return string([]rune(s))
}

// age sets the durations; now is the server's time.
func (s *Session) age(now time.Time) {
	since := s.StateChange
	if s.State == stateActive {
		since = s.QueryStart
	}
	if !since.IsZero() {
		s.Duration = max(0, now.Sub(since))
	}
	if !s.XactStart.IsZero() {
		s.XactDuration = max(0, now.Sub(s.XactStart))
	}
}

// stateActive is the State of a session that runs a query.
const stateActive = "active"
