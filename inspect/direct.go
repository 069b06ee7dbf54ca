package inspect

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"

	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/internal/sqlstate"
)

// maxPrepared is how many statements a directConn remembers. A command that refreshes
// has at most three, but a program may vary its filters.
const maxPrepared = 16

// A directConn is a connection whose session no pooler shares. A statement that reads for
// the second time is prepared there.
type directConn struct {
	driver.Querier
	id uint64 // in the names, since the session may have another directConn

	mu    sync.Mutex        // guards the rest
	names map[string]string // of prepared statements by their text; "" if it ran only once
	count int               // of names
}

func newDirectConn(conn driver.Querier) *directConn {
	return &directConn{Querier: conn, id: rand.Uint64(), names: map[string]string{}}
}

// read is like query.
func (d *directConn) read(ctx context.Context, sql string, values map[string]string, f func(kind, payload string) error) error {
	bound, args, err := bind(sql, values)
	if err != nil {
		return err
	}
	// With its values as constants, Postgres plans it once; with parameters, it may plan
	// each run.
	text := inline(bound, args)
	name, err := d.prepare(ctx, text)
	if err != nil {
		return err
	}
	if name == "" {
		return queryBound(ctx, d.Querier, bound, args, f)
	}
	err = queryBound(ctx, d.Querier, "EXECUTE "+name, nil, f)
	if sqlstate.Of(err) == sqlstate.InvalidStatementName { // the caller ran DEALLOCATE or DISCARD
		d.forget(text)
		return queryBound(ctx, d.Querier, bound, args, f)
	}
	return err
}

// prepare returns the name of the prepared statement, or "" if text runs for the first time
// or there are enough.
func (d *directConn) prepare(ctx context.Context, text string) (string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	name, ran := d.names[text]
	switch {
	case name != "":
		return name, nil
	case !ran:
		if len(d.names) < maxPrepared {
			d.names[text] = ""
		}
		return "", nil
	}
	d.count++
	name = fmt.Sprintf("pglock_%016x_%d", d.id, d.count)
	rows, err := d.Query(ctx, "PREPARE "+name+" AS "+text)
	if err != nil {
		return "", err
	}
	rows.Next() // there is none
	if err := rows.Close(); err != nil {
		return "", err
	}
	if err := rows.Err(); err != nil {
		return "", err
	}
	d.names[text] = name
	return name, nil
}

// forget forgets a prepared statement.
func (d *directConn) forget(text string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.names, text)
}
