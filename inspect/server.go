package inspect

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/pglock-go/pglock/internal/sqltext"
)

// A Server describes the server that was read, when, and by which role.
type Server struct {
	Version    int       // its server_version_num, such as 150018
	InRecovery bool      // it is a standby, or still starting
	Time       time.Time // by the server's clock

	Database string // the connected database, in which names are known
	User     string // the role that read
	PID      int32  // the backend that answered

	SeesAll    bool // the role sees the activity of all sessions
	SignalsAll bool // the role may end other roles' sessions, except superusers'

	databaseOID uint32
}

// Grants returns the statements that would let the role see what is hidden from it
// and end what it may not; none if it needs none. A superuser must run them
// (PostgreSQL manual, 21.5 "Predefined Roles").
func (s Server) Grants() []string {
	var grants []string
	if !s.SeesAll {
		grants = append(grants, "GRANT pg_read_all_stats TO "+sqltext.Identifier(s.User))
	}
	if !s.SignalsAll {
		grants = append(grants, "GRANT pg_signal_backend TO "+sqltext.Identifier(s.User))
	}
	return grants
}

func parseServer(text string) (Server, error) {
	var row struct {
		Version     string    `json:"version"`
		InRecovery  bool      `json:"in_recovery"`
		Time        time.Time `json:"time"`
		DatabaseOID string    `json:"database_oid"`
		Database    string    `json:"database"`
		User        string    `json:"user"`
		PID         int32     `json:"pid"`
		SeesAll     bool      `json:"sees_all"`
		SignalsAll  bool      `json:"signals_all"`
	}
	if err := json.Unmarshal([]byte(text), &row); err != nil {
		return Server{}, fmt.Errorf("inspect: reading the server's description: %w", err)
	}
	version, err := strconv.Atoi(row.Version)
	if err != nil {
		return Server{}, fmt.Errorf("inspect: the server's version: %w", err)
	}
	oid, err := strconv.ParseUint(row.DatabaseOID, 10, 32)
	if err != nil {
		return Server{}, fmt.Errorf("inspect: the OID of the database: %w", err)
	}
	return Server{
		Version:     version,
		InRecovery:  row.InRecovery,
		Time:        row.Time.UTC(),
		Database:    row.Database,
		User:        row.User,
		PID:         row.PID,
		SeesAll:     row.SeesAll,
		SignalsAll:  row.SignalsAll,
		databaseOID: uint32(oid),
	}, nil
}
