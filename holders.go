package pglock

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/pglock-go/pglock/internal/engine"
	"github.com/pglock-go/pglock/internal/query"
	"github.com/pglock-go/pglock/internal/sqltext"

	"github.com/pglock-go/pglock/driver"
)

var (
	//go:embed sql/holders.sql
	holdersSQL string

	//go:embed sql/held.sql
	heldSQL string

	//go:embed sql/leaseholders.sql
	leaseHoldersSQL string
)

// Holders returns the sessions that hold the locks of keys, in any mode. A key that no
// session holds is not in the map, so a single statement finds the work that is in
// progress:
//
//	held, err := locker.Holders(ctx, keys...)
//	...
//	if len(held[key]) == 0 {
//		enqueue(key)
//	}
//
// Another session may acquire or release a lock at any time, so use a lock to exclude
// others, and Holders to report or to save work. Holders reads pg_locks once, which costs
// the server more than taking a lock does, and more the more locks there are. Without
// keys it reads nothing. ctx bounds the query, and so does a limit of two seconds.
func (l *Locker) Holders(ctx context.Context, keys ...Key) (map[Key][]Holder, error) {
	seen := map[Key]bool{}
	keys = slices.DeleteFunc(slices.Clone(keys), func(key Key) bool {
		again := seen[key]
		seen[key] = true
		return again
	})
	held := map[Key][]Holder{}
	if len(keys) == 0 {
		return held, nil
	}
	ctx, cancel := context.WithTimeout(ctx, holdersTimeout)
	defer cancel()
	var rows []holderRow
	var err error
	if l.schema != "" {
		rows, err = l.leaseHolders(ctx, keys)
	} else {
		rows, err = l.advisoryHolders(ctx, keys)
	}
	if err != nil {
		return nil, newError("holders of", keys, err)
	}
	for _, row := range rows {
		if row.Key < 0 || row.Key >= len(keys) {
			return nil, newError("holders of", keys, fmt.Errorf("unexpected answer: there is no key %d", row.Key))
		}
		held[keys[row.Key]] = append(held[keys[row.Key]], row.holder())
	}
	return held, nil
}

// advisoryHolders queries the holders of advisory locks.
func (l *Locker) advisoryHolders(ctx context.Context, keys []Key) ([]holderRow, error) {
	reply, err := l.engine.Query(ctx, heldSQL, keysArg(keys))
	if err != nil {
		return nil, err
	}
	return readRows(reply)
}

// leaseHolders queries the holders of leases, and of their slots.
func (l *Locker) leaseHolders(ctx context.Context, keys []Key) ([]holderRow, error) {
	rows, err := l.leaseRows(ctx, keys)
	return slices.DeleteFunc(rows, func(row holderRow) bool { return row.Slot == gateSlot }), err
}

// leaseRows queries the rows of leases that are held, with those of the gates of slots.
func (l *Locker) leaseRows(ctx context.Context, keys []Key) ([]holderRow, error) {
	names := make([]string, len(keys))
	for i, key := range keys {
		names[i] = key.LeaseName()
	}
	// A slice of strings always has a JSON form.
	text, _ := json.Marshal(names)
	reply, err := l.engine.Query(ctx, sqltext.InSchema(sqltext.WithoutComment(leaseHoldersSQL), l.schema), string(text))
	if err != nil {
		return nil, err
	}
	return readRows(reply)
}

// keysArg returns keys as the parameter of heldSQL and holdersSQL.
func keysArg(keys []Key) string {
	ids := make([][3]int64, len(keys))
	for i, key := range keys {
		classid, objid, objsubid := key.PgLocks()
		ids[i] = [3]int64{int64(classid), int64(objid), int64(objsubid)}
	}
	// Numbers always have a JSON form.
	text, _ := json.Marshal(ids)
	return string(text)
}

// holdersArgs returns the parameters of holdersSQL: which sessions conflict with a
// request for keys, shared or not.
func holdersArgs(keys []Key, shared bool) []string {
	return []string{keysArg(keys), strconv.FormatBool(shared)}
}

// A holderRow is a holder as the statements return it.
type holderRow struct {
	Key         int        `json:"key"` // the index of the key, in the result of heldSQL
	PID         int32      `json:"pid"`
	User        string     `json:"user"`
	Application string     `json:"application"`
	Client      string     `json:"client"`
	State       string     `json:"state"`
	Since       *time.Time `json:"since"`
	Mode        string     `json:"mode"`
	Granted     bool       `json:"granted"`

	// Of a lease.
	Slot  int        `json:"slot"`
	Token int64      `json:"token"`
	Note  string     `json:"note"`
	Taken *time.Time `json:"taken"`
	Left  float64    `json:"left"` // seconds
}

func (r holderRow) holder() Holder {
	h := Holder{
		PID: r.PID, User: r.User, Application: r.Application, Client: r.Client,
		State: r.State, Mode: r.Mode, Granted: r.Granted,
	}
	if r.Token != 0 {
		h.Token, h.Note = r.Token, r.Note
		h.Left = time.Duration(r.Left * float64(time.Second))
		if r.Taken != nil {
			h.Since = *r.Taken
		}
	}
	if r.Since != nil {
		h.Since = *r.Since
		h.Own = engine.OfThisProcess(h.PID, h.Since)
	}
	return h
}

// readRows decodes the result of a statement that returns holders.
func readRows(reply string) ([]holderRow, error) {
	var rows []holderRow
	if err := json.Unmarshal([]byte(reply), &rows); err != nil {
		return nil, fmt.Errorf("read the holders of the lock: %w", err)
	}
	return rows, nil
}

func holdersOf(rows []holderRow) []Holder {
	var holders []Holder
	for _, row := range rows {
		holders = append(holders, row.holder())
	}
	return holders
}

// readHolders decodes the result of holdersSQL or tableHoldersSQL. It drops the waiting
// sessions if any session holds the lock. If none does, the waiting ones are those ahead
// of us in the queue.
func readHolders(reply string) ([]Holder, error) {
	rows, err := readRows(reply)
	if err != nil {
		return nil, err
	}
	holders := holdersOf(rows)
	if granted := slices.IndexFunc(holders, func(h Holder) bool { return !h.Granted }); granted > 0 {
		holders = holders[:granted]
	}
	return holders, nil
}

// queryHolders queries the holders in the caller's transaction. An error aborts the
// transaction up to the savepoint.
func queryHolders(ctx context.Context, conn driver.Conn, sql string, args []string) ([]Holder, error) {
	if err := conn.Exec(ctx, clearSnapshot); err != nil {
		return nil, err
	}
	params := make([]any, len(args))
	for i, arg := range args {
		params[i] = arg
	}
	reply, err := query.Text(ctx, conn, sql, params...)
	if err != nil {
		return nil, err
	}
	return readHolders(reply)
}
