package trace

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/internal/handshake"
)

//go:embed sizes.sql
var sizesSQL string

// Traffic is what [Compare] read of the database that a migration is for.
type Traffic struct {
	Server   inspect.Server
	Interval time.Duration // between the two readings of the counters

	// Tables has the tables by schema and name, such as "public.orders". One that does not
	// exist there is missing.
	Tables map[string]TableTraffic

	// Blockers has, by the number of a statement, the sessions that would keep it waiting
	// now.
	Blockers map[int][]Blocker
}

// A TableTraffic is the size of a table and how busy it is.
type TableTraffic struct {
	Rows       int64 // as estimated by VACUUM or ANALYZE; -1 if it is unknown
	Bytes      int64 // without its indexes
	IndexBytes int64
	Reads      float64 // scans of the table or its indexes a second
	Writes     float64 // rows a second that were inserted, updated or deleted
}

// A Blocker is a session that would keep a statement waiting.
type Blocker struct {
	Session *inspect.Session

	// Relation and Mode are the lock that it holds. They are zero if the statement waits
	// for its transaction, whatever that locked.
	Relation Relation
	Mode     pglock.Mode
}

// Key returns the key of a relation in Tables.
func (r Relation) Key() string { return r.Schema + "." + r.Name }

type sizes struct {
	Now    float64 `json:"now"`
	Block  int64   `json:"block"`
	Tables []struct {
		Schema string  `json:"schema"`
		Name   string  `json:"name"`
		Kind   string  `json:"kind"`
		Table  *string `json:"table"`
		Rows   float64 `json:"rows"`
		Pages  int64   `json:"pages"`
		Reads  int64   `json:"reads"`
		Writes int64   `json:"writes"`
	} `json:"tables"`
}

// comparing are the settings of the statements that read the database.
var comparing = handshake.Settings{StatementTimeout: 30 * time.Second, LockTimeout: 2 * time.Second}

// Compare adds to a report what the database that the migration is for says: how large
// the tables are and how busy, and who would keep the statements waiting now. It only
// reads there, in one session that source opens, and takes no lock on a table. interval
// is the time between the two readings of the counters; the server updates them about
// once a second. ctx covers all of it.
func Compare(ctx context.Context, source driver.Source, report *Report, interval time.Duration) error {
	session, err := source.Open(ctx)
	if err != nil {
		return err
	}
	defer session.Close()
	first, err := readSizes(ctx, session)
	if err != nil {
		return err
	}
	timer := time.NewTimer(interval)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	second, err := readSizes(ctx, session)
	if err != nil {
		return err
	}
	guarded, _, err := inspect.Guard(ctx, session)
	if err != nil {
		return err
	}
	snapshot, err := inspect.ReadSnapshot(ctx, guarded)
	if err != nil {
		return err
	}
	report.Traffic = &Traffic{
		Server: snapshot.Server, Interval: interval,
		Tables: trafficOf(first, second), Blockers: map[int][]Blocker{},
	}
	for _, s := range report.Statements {
		if blockers := s.blockers(snapshot); len(blockers) > 0 {
			report.Traffic.Blockers[s.Number] = blockers
		}
	}
	return nil
}

func readSizes(ctx context.Context, session driver.Session) (s sizes, err error) {
	text, err := handshake.Read(ctx, session, comparing, sizesSQL)
	if errors.Is(err, errors.ErrUnsupported) {
		text, err = session.QueryTextSimple(ctx, sizesSQL)
	}
	if err == nil {
		err = json.Unmarshal([]byte(text), &s)
	}
	if err != nil {
		return s, fmt.Errorf("trace: reading the sizes of tables: %w", err)
	}
	return s, nil
}

// trafficOf returns the traffic between two readings.
func trafficOf(first, second sizes) map[string]TableTraffic {
	type counters struct{ reads, writes int64 }
	before := map[string]counters{}
	for _, t := range first.Tables {
		before[t.Schema+"."+t.Name] = counters{t.Reads, t.Writes}
	}
	tables := map[string]TableTraffic{}
	seconds := second.Now - first.Now
	for _, t := range second.Tables {
		if t.Table != nil {
			continue
		}
		key := t.Schema + "." + t.Name
		traffic := TableTraffic{Rows: int64(t.Rows), Bytes: t.Pages * second.Block}
		if was, ok := before[key]; ok && seconds > 0 {
			traffic.Reads = float64(max(0, t.Reads-was.reads)) / seconds
			traffic.Writes = float64(max(0, t.Writes-was.writes)) / seconds
		}
		tables[key] = traffic
	}
	for _, t := range second.Tables {
		if t.Table == nil {
			continue
		}
		key := t.Schema + "." + *t.Table
		traffic := tables[key]
		traffic.IndexBytes += t.Pages * second.Block
		tables[key] = traffic
	}
	return tables
}

// blockers returns the sessions that would keep the statement waiting.
func (s Statement) blockers(snapshot *inspect.Snapshot) []Blocker {
	var blockers []Blocker
	add := func(b Blocker) {
		same := func(o Blocker) bool {
			return o.Session == b.Session && (b.Mode == 0 || o.Relation == b.Relation && o.Mode == b.Mode)
		}
		if !slices.ContainsFunc(blockers, same) {
			blockers = append(blockers, b)
		}
	}
	for _, wanted := range s.Strongest() {
		for _, l := range snapshot.Locks {
			if mode, err := pglock.ParseMode(l.Mode); err == nil && l.Type == "relation" && l.Granted && l.Schema == wanted.Relation.Schema &&
				l.Relation == wanted.Relation.Name && mode.Conflicts(wanted.Mode) {
				add(Blocker{l.Session, wanted.Relation, mode})
			}
		}
	}
	if s.WaitsForTransactions {
		for _, l := range snapshot.Locks {
			if l.Database == snapshot.Server.Database && l.BackendXmin != 0 && l.PID != snapshot.Server.PID {
				add(Blocker{Session: l.Session})
			}
		}
	}
	return blockers
}
