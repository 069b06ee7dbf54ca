package inspect

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/internal/handshake"
)

// Guarded is a connection that looks at locks and neither gets stuck itself nor, behind a
// connection pooler, leaves a trace for whoever gets its session next. It is what [Locks],
// [Blocked], [Take], [Cancel] and [Terminate] are given. Make one with [Guard].
type Guarded struct {
	conn   pglock.Conn
	shared bool
}

// guardSettings are those of a session that looks. The names of tables in filters are the
// user's, so they mean what the user's search_path says.
var guardSettings = handshake.Settings{
	StatementTimeout: readTimeout,
	LockTimeout:      2 * time.Second,
	KeepSearchPath:   true,
}

// Guard makes a connection fit for looking at locks, whatever settings its server, database
// or role have: a statement may take 30 seconds and wait for a lock for 2 (statement_timeout
// and lock_timeout; PostgreSQL manual, 20.11.1 "Statement Behavior"); it never waits for
// other people's transactions, as under default_transaction_deferrable; and text comes in
// UTF-8, except from a database of encoding SQL_ASCII, from which it comes as it is.
//
// conn is a connection of one's own, outside of a transaction. Guard first asks it who it
// is, which changes nothing. A session that nobody else gets is given these settings, and
// keeps them. One that a connection pooler lends to others, or of which that is not known,
// is left as it is, and each statement of this package then has the settings to itself, in
// a transaction of its own, through whatever mode the pooler has. See [pglock.Conn] for how
// a pooler is found out; a conn that lacks the methods for it is used as it is.
//
// ctx covers the asking and setting.
func Guard(ctx context.Context, conn pglock.Conn) (*Guarded, error) {
	c, ok := conn.(handshake.Conn)
	if !ok {
		return &Guarded{conn: conn}, nil
	}
	if open, err := handshake.InTransaction(ctx, conn); err != nil {
		return nil, fmt.Errorf("inspect: guard: %w", err)
	} else if open {
		return nil, errors.New("inspect: guard: a transaction is open on the connection: its settings are not to be changed")
	}
	hello, err := handshake.Meet(ctx, c, guardSettings)
	if errors.Is(err, errors.ErrUnsupported) {
		return &Guarded{conn: conn}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("inspect: guard: %w", err)
	}
	return &Guarded{conn: conn, shared: hello.Path != handshake.Direct}, nil
}

// Shared reports whether the session is one that a connection pooler lends to others, or
// may be: nothing has been set on it.
func (g *Guarded) Shared() bool { return g.shared }

// Query runs a statement on the connection as it is.
func (g *Guarded) Query(ctx context.Context, sql string, args ...any) (pglock.Rows, error) {
	return g.conn.Query(ctx, sql, args...)
}

// An asker runs one of this package's statements in a way of its own, if it reports so.
type asker interface {
	askPairs(ctx context.Context, sql string, args []any) (pairs [][2]string, asked bool, err error)
}

var _ asker = (*Guarded)(nil)

// askPairs runs a statement whose rows are two texts on a session that is shared: in one
// message, which is a transaction and has its own settings.
func (g *Guarded) askPairs(ctx context.Context, sql string, args []any) (pairs [][2]string, asked bool, err error) {
	if !g.shared {
		return nil, false, nil
	}
	texts := make([]string, len(args))
	for i, arg := range args {
		texts[i], _ = arg.(string) // as bind makes them
	}
	message := handshake.Local(guardSettings) +
		"SELECT CAST(COALESCE(pg_catalog.json_agg(pg_catalog.json_build_array(q.a, q.b)), '[]') AS pg_catalog.text) FROM (\n" +
		handshake.Inline(strings.TrimSuffix(strings.TrimSpace(sql), ";"), texts...) + "\n) AS q (a, b)"
	answer, err := g.conn.(handshake.Conn).AskSimple(ctx, message)
	if err != nil {
		return nil, true, err
	}
	if err := json.Unmarshal([]byte(answer), &pairs); err != nil {
		return nil, true, fmt.Errorf("the server's answer cannot be read: %w", err)
	}
	return pairs, true, nil
}
