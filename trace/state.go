package trace

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/internal/sqltext"
)

//go:embed state.sql
var stateSQL string

//go:embed locks.sql
var locksSQL string

// A state is what the traced session sees of the database.
type state struct {
	LockTimeout      string       `json:"lock_timeout"`
	StatementTimeout string       `json:"statement_timeout"`
	List             []*relation  `json:"relations"`
	Keys             []constraint `json:"constraints"`

	relations   map[int64]*relation
	constraints map[int64]constraint
	owners      map[int64]int64 // of toast tables and indexes: their table
}

// A relation is a row of pg_class.
type relation struct {
	OID       int64    `json:"oid"`
	Schema    string   `json:"schema"`
	Name      string   `json:"name"`
	SQL       string   `json:"sql"` // the name as SQL needs it
	Kind      string   `json:"kind"`
	Node      int64    `json:"node"`  // the file node, 0 for none
	Space     int64    `json:"space"` // the tablespace
	Temporary bool     `json:"temporary"`
	Partition bool     `json:"partition"`
	Table     int64    `json:"table"` // of an index
	Toast     int64    `json:"toast"`
	Parent    int64    `json:"parent"`
	Scans     int64    `json:"scans"` // sequential scans in this transaction
	Columns   []column `json:"columns"`
}

// column returns the column with a number, or nil, also if there is no relation.
func (r *relation) column(number int) *column {
	if r == nil {
		return nil
	}
	if i := slices.IndexFunc(r.Columns, func(c column) bool { return c.Number == number }); i >= 0 {
		return &r.Columns[i]
	}
	return nil
}

type column struct {
	Number  int    `json:"number"`
	Name    string `json:"name"`
	SQL     string `json:"sql"`
	NotNull bool   `json:"not_null"`
	Type    string `json:"type"`
	Default bool   `json:"default"`

	Generated bool `json:"generated"` // or an identity
}

type constraint struct {
	OID        int64  `json:"oid"`
	Name       string `json:"name"`
	SQL        string `json:"sql"`
	Type       string `json:"type"` // as pg_constraint.contype
	Valid      bool   `json:"valid"`
	Table      int64  `json:"table"`
	References int64  `json:"references"`
	Parent     int64  `json:"parent"`
	Index      int64  `json:"index"`
	Columns    []int  `json:"columns"`    // numbers
	Referenced []int  `json:"referenced"` // numbers of columns of References
}

// readState reads the state in the traced session, which may be in a transaction whose
// changes nobody else sees.
func readState(ctx context.Context, s driver.Session) (*state, error) {
	st := &state{relations: map[int64]*relation{}, constraints: map[int64]constraint{}, owners: map[int64]int64{}}
	text, err := s.QueryTextSimple(ctx, sqltext.WithoutComment(stateSQL))
	if err == nil {
		err = json.Unmarshal([]byte(text), st)
	}
	if err != nil {
		return nil, fmt.Errorf("trace: reading the catalogs: %w", err)
	}
	toast := map[int64]int64{}
	for _, r := range st.List {
		st.relations[r.OID] = r
		if r.Toast != 0 {
			toast[r.Toast] = r.OID
		}
	}
	for _, r := range st.List {
		switch owner := toast[r.Table]; {
		case toast[r.OID] != 0:
			st.owners[r.OID] = toast[r.OID]
		case owner != 0: // the index of a toast table
			st.owners[r.OID] = owner
		case r.Table != 0:
			st.owners[r.OID] = r.Table
		}
	}
	for _, c := range st.Keys {
		st.constraints[c.OID] = c
	}
	return st, nil
}

// isToast reports whether a relation is a toast table, or the index of one. Reports leave
// them out: they go with their table.
func (s *state) isToast(r *relation) bool {
	if owner := s.owners[r.OID]; owner != 0 {
		return r.Kind == "t" || r.Kind == "i" && r.Table != owner
	}
	return false
}

// kinds are the words for pg_class.relkind.
func kindOf(relkind string) string {
	switch relkind {
	case "r":
		return "table"
	case "p":
		return "partitioned table"
	case "i":
		return "index"
	case "I":
		return "partitioned index"
	case "m":
		return "materialized view"
	case "v":
		return "view"
	case "f":
		return "foreign table"
	case "S":
		return "sequence"
	}
	return "relation"
}

// export returns the relation for a report.
func (s *state) export(r *relation) Relation {
	e := Relation{OID: r.OID, Schema: r.Schema, Name: r.Name, SQL: r.SQL, Kind: kindOf(r.Kind)}
	if t := s.relations[s.owners[r.OID]]; t != nil {
		e.Table = t.SQL
	}
	return e
}

// A heldLock is a row of pg_locks.
type heldLock struct {
	Type     string `json:"type"`
	Mode     string `json:"mode"`
	Granted  bool   `json:"granted"`
	Relation int64  `json:"relation"`
}

// A lockKey is a lock of the traced session.
type lockKey struct {
	relation int64
	mode     pglock.Mode
}

// readLocks reads the locks of the session with a PID from another session, so that its
// own reading is not in them.
func readLocks(ctx context.Context, observer driver.Session, pid uint32) ([]heldLock, error) {
	var reply struct{ Locks []heldLock }
	text, err := observer.QueryText(ctx, strings.TrimSuffix(strings.TrimSpace(sqltext.WithoutComment(locksSQL)), ";"), strconv.FormatUint(uint64(pid), 10))
	if err == nil {
		err = json.Unmarshal([]byte(text), &reply)
	}
	if err != nil {
		return nil, fmt.Errorf("trace: reading the locks: %w", err)
	}
	return reply.Locks, nil
}

// granted returns the locks that are held.
func granted(locks []heldLock) map[lockKey]bool {
	held := map[lockKey]bool{}
	for _, l := range locks {
		if mode, err := pglock.ParseMode(l.Mode); err == nil && l.Granted && l.Type == "relation" {
			held[lockKey{l.Relation, mode}] = true
		}
	}
	return held
}

// constraintAt returns the constraint of a table with a name and a type, or nil.
func (s *state) constraintAt(table int64, name, kind string) *constraint {
	if i := slices.IndexFunc(s.Keys, func(c constraint) bool { return c.Table == table && c.Name == name && c.Type == kind }); i >= 0 {
		return &s.Keys[i]
	}
	return nil
}
