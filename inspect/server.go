package inspect

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// A Server says which server was asked, when, and as whom.
type Server struct {
	Version    int       // its server_version_num, such as 150018
	InRecovery bool      // a standby, or one that is still starting
	Time       time.Time // what its clock showed

	Database string // the one that was asked, where names are known
	User     string // the role that asked
	PID      int32  // the process that answered

	SeesAll    bool // the role sees what all sessions do
	SignalsAll bool // the role may end the sessions of others, but those of superusers

	databaseOID uint32
}

// Grants are the statements that would let the role that asked see what is hidden
// from it and end what it may not; none when nothing is. They are for a superuser
// to run (PostgreSQL manual, 21.5 "Predefined Roles").
func (s Server) Grants() []string {
	var grants []string
	if !s.SeesAll {
		grants = append(grants, "GRANT pg_read_all_stats TO "+identifier(s.User))
	}
	if !s.SignalsAll {
		grants = append(grants, "GRANT pg_signal_backend TO "+identifier(s.User))
	}
	return grants
}

// identifier is a name as SQL writes it.
func identifier(name string) string {
	return `"` + strings.ReplaceAll(name, `"`, `""`) + `"`
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
		return Server{}, fmt.Errorf("inspect: the server's answer about itself: %w", err)
	}
	version, err := strconv.Atoi(row.Version)
	if err != nil {
		return Server{}, fmt.Errorf("inspect: the server's version: %w", err)
	}
	oid, err := strconv.ParseUint(row.DatabaseOID, 10, 32)
	if err != nil {
		return Server{}, fmt.Errorf("inspect: the number of the database: %w", err)
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
