package inspect

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/internal/sqlstate"
	"github.com/pglock-go/pglock/internal/sqltext"
)

var (
	//go:embed leasetables.sql
	leaseTablesSQL string

	//go:embed leases.sql
	leasesSQL string
)

// A Lease is a lease of pglock.Leases that has an owner, or that may not be taken yet. It is
// a row of a table of the database, and no lock of Postgres: [Locks] does not return it.
type Lease struct {
	Name string // as in the table; see [pglock.Key.LeaseName]
	Slot int32  // of several holders; 0 otherwise

	// Key is the key with this name. HasKey is false if the name cannot be converted back.
	Key    pglock.Key
	HasKey bool

	// Owner is the ID of the session, in the table of sessions, that took the lease last and
	// has not released it. It is "" if the lease is free.
	Owner string

	// Left is how long the owner's session lasts if it is not renewed. It is 0 if the session
	// has expired, so that others may take the lease.
	Left time.Duration

	// Due is how long nobody may take the lease, even if it is free. [math.MaxInt64] stands
	// for without end.
	Due time.Duration

	Token    int64         // grows with each owner
	Since    time.Time     // when it was taken last
	Duration time.Duration // how long ago that was
	Program  string        // the owner's program
	Host     string        // its machine
	Process  int32         // its process ID there
	Note     string        // what it says about itself

	// Wanted reports whether others wait for the lease: a process listens for its release, or
	// has in the last ten seconds, or one waits for any of the slots. Behind a connection pooler
	// waiting processes do not listen, so only those that wait for slots are seen.
	Wanted bool
}

// Held reports whether the lease has an owner whose session has not expired.
func (l *Lease) Held() bool { return l.Owner != "" && l.Left > 0 }

// Leases returns the leases in the tables of a schema that have an owner or may not be taken
// yet, sorted by name and slot: those of keys, or all without keys. It reads the tables of
// the connected database, and needs SELECT on them. If they do not exist, the error matches
// [pglock.ErrNotInstalled]. ctx covers the reading, as for [Locks].
func Leases(ctx context.Context, q driver.Querier, schema string, keys ...pglock.Key) ([]Lease, error) {
	ctx, cancel := withDeadline(ctx)
	defer cancel()
	leases, err := readLeases(ctx, q, schema, keys)
	if err != nil {
		return nil, fmt.Errorf("inspect: reading the leases: %w", err)
	}
	return leases, nil
}

func readLeases(ctx context.Context, q driver.Querier, schema string, keys []pglock.Key) ([]Lease, error) {
	tables := ""
	err := query(ctx, q, leaseTablesSQL, map[string]string{"schema": schema}, func(_, payload string) error {
		tables = payload
		return nil
	})
	switch {
	case err != nil:
		return nil, err
	case tables != "2":
		return nil, fmt.Errorf("%w: there are none in schema %q", pglock.ErrNotInstalled, schema)
	}
	names := make([]string, len(keys))
	for i, key := range keys {
		names[i] = key.LeaseName()
	}
	// A slice of strings always has a JSON form.
	text, _ := json.Marshal(names)
	var leases []Lease
	err = query(ctx, q, sqltext.InSchema(leasesSQL, schema), map[string]string{"names": string(text)}, func(kind, payload string) error {
		l, err := parseLease(payload)
		leases = append(leases, l)
		return err
	})
	switch sqlstate.Of(err) {
	case sqlstate.UndefinedTable, sqlstate.UndefinedColumn: // others, or dropped meanwhile
		return nil, fmt.Errorf("%w: %w", pglock.ErrNotInstalled, err)
	}
	return leases, err
}

// parseLease parses a row of leases.sql.
func parseLease(payload string) (Lease, error) {
	var row struct {
		Name     string `json:"name"`
		Slot     int32  `json:"slot"`
		Token    int64  `json:"token"`
		Note     string `json:"note"`
		Owner    string `json:"owner"`
		Program  string `json:"program"`
		Host     string `json:"host"`
		Process  int32  `json:"process"`
		Since    *int64 `json:"since"`
		Duration int64  `json:"duration"`
		Left     int64  `json:"left"`
		Due      int64  `json:"due"`
		Wanted   bool   `json:"wanted"`
	}
	if err := json.Unmarshal([]byte(payload), &row); err != nil {
		return Lease{}, errors.Join(unreadableError("lease", payload), err)
	}
	l := Lease{
		Name: row.Name, Slot: row.Slot, Token: row.Token, Note: row.Note, Owner: row.Owner,
		Program: row.Program, Host: row.Host, Process: row.Process, Wanted: row.Wanted,
		Duration: max(0, time.Duration(row.Duration)*time.Microsecond),
		Left:     time.Duration(row.Left) * time.Microsecond,
		Due:      time.Duration(min(row.Due, math.MaxInt64/1000)) * time.Microsecond,
	}
	if row.Due < 0 {
		l.Due = math.MaxInt64
	}
	if row.Since != nil {
		l.Since = time.UnixMicro(*row.Since).UTC()
	}
	l.Key, l.HasKey = leaseKey(row.Name)
	return l, nil
}

// leaseKey returns the key that is stored under a name: the inverse of
// [pglock.Key.LeaseName].
func leaseKey(name string) (pglock.Key, bool) {
	rest, special := strings.CutPrefix(name, "#")
	if !special {
		return pglock.Name(name), true
	}
	var key pglock.Key
	first, second, isPair := strings.Cut(rest, ",")
	switch {
	case strings.HasPrefix(rest, "#"):
		key = pglock.Name(rest)
	case isPair:
		class, err1 := strconv.ParseInt(first, 10, 32)
		object, err2 := strconv.ParseInt(second, 10, 32)
		if err := errors.Join(err1, err2); err != nil {
			return pglock.Key{}, false
		}
		key = pglock.Pair(int32(class), int32(object))
	default:
		n, err := strconv.ParseInt(rest, 10, 64)
		if err != nil {
			return pglock.Key{}, false // a hash
		}
		key = pglock.Int(n)
	}
	return key, key.LeaseName() == name
}
