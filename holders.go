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

	"github.com/pglock-go/pglock/driver"
)

//go:embed sql/holders.sql
var holdersSQL string

// holdersArgs returns the parameters of holdersSQL: which sessions conflict with a
// request for keys, shared or not.
func holdersArgs(keys []Key, shared bool) []string {
	ids := make([][3]int64, len(keys))
	for i, key := range keys {
		classid, objid, objsubid := key.PgLocks()
		ids[i] = [3]int64{int64(classid), int64(objid), int64(objsubid)}
	}
	// Numbers always have a JSON form.
	text, _ := json.Marshal(ids)
	return []string{string(text), strconv.FormatBool(shared)}
}

// readHolders decodes the result of holdersSQL or tableHoldersSQL. It drops the waiting
// sessions if any session holds the lock. If none does, the waiting ones are those ahead
// of us in the queue.
func readHolders(reply string) ([]Holder, error) {
	var rows []struct {
		PID         int32      `json:"pid"`
		User        string     `json:"user"`
		Application string     `json:"application"`
		Client      string     `json:"client"`
		State       string     `json:"state"`
		Since       *time.Time `json:"since"`
		Mode        string     `json:"mode"`
		Granted     bool       `json:"granted"`
	}
	if err := json.Unmarshal([]byte(reply), &rows); err != nil {
		return nil, fmt.Errorf("read the holders of the lock: %w", err)
	}
	var holders []Holder
	for _, r := range rows {
		h := Holder{
			PID: r.PID, User: r.User, Application: r.Application, Client: r.Client,
			State: r.State, Mode: r.Mode, Granted: r.Granted,
		}
		if r.Since != nil {
			h.Since = *r.Since
			h.Own = engine.OfThisProcess(h.PID, h.Since)
		}
		holders = append(holders, h)
	}
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
