package inspect

import (
	"encoding/json"
	"fmt"
	"time"
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

// activity is a row of pg_stat_activity as JSON.
type activity struct {
	PID           int32      `json:"pid"`
	LeaderPID     int32      `json:"leader_pid"`
	User          string     `json:"usename"`
	Database      string     `json:"datname"`
	Application   string     `json:"application_name"`
	Client        string     `json:"client_addr"`
	BackendType   string     `json:"backend_type"`
	BackendStart  *time.Time `json:"backend_start"`
	XactStart     *time.Time `json:"xact_start"`
	QueryStart    *time.Time `json:"query_start"`
	StateChange   *time.Time `json:"state_change"`
	State         string     `json:"state"`
	WaitEventType string     `json:"wait_event_type"`
	WaitEvent     string     `json:"wait_event"`
	QueryID       int64      `json:"query_id"`
	Query         string     `json:"query"`
}

// parseSession fills s from a row of pg_stat_activity as JSON.
func parseSession(text string) (Session, error) {
	var a activity
	if err := json.Unmarshal([]byte(text), &a); err != nil {
		return Session{}, fmt.Errorf("inspect: a row of pg_stat_activity: %w", err)
	}
	s := Session{
		PID:           a.PID,
		LeaderPID:     a.LeaderPID,
		User:          a.User,
		Database:      a.Database,
		Application:   a.Application,
		Client:        a.Client,
		BackendType:   a.BackendType,
		BackendStart:  timeOf(a.BackendStart),
		XactStart:     timeOf(a.XactStart),
		QueryStart:    timeOf(a.QueryStart),
		StateChange:   timeOf(a.StateChange),
		State:         a.State,
		WaitEventType: a.WaitEventType,
		WaitEvent:     a.WaitEvent,
		QueryID:       a.QueryID,
		Query:         a.Query,
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

func timeOf(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.UTC()
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
