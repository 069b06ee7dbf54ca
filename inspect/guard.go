package inspect

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/internal/handshake"
)

// A Guarded is a connection for inspecting locks. It does not get stuck itself and,
// behind a connection pooler, leaves nothing behind on the shared session. Pass it to
// [Locks], [Blocked], [Take], [Cancel] and [Terminate]. Make one with [Guard].
type Guarded struct {
	conn   driver.Conn
	shared bool
}

// guardSettings are the settings of an inspecting session. The table names in filters
// are the user's, so search_path stays as it is.
var guardSettings = handshake.Settings{
	StatementTimeout: readTimeout,
	LockTimeout:      2 * time.Second,
	KeepSearchPath:   true,
}

// Guard prepares a connection for inspecting locks, whatever the settings of its
// server, database or role. A statement may take 30 seconds and wait 2 seconds for a
// lock (statement_timeout and lock_timeout; PostgreSQL manual, 20.11.1 "Statement
// Behavior"). It never waits for other transactions, as it would under
// default_transaction_deferrable. Text comes in UTF-8, except from a database with
// encoding SQL_ASCII, from which it comes unchanged.
//
// conn is the caller's own connection, outside of a transaction. Guard first checks
// which session it is, which changes nothing. A session that is not shared gets these
// settings and keeps them. A session that a connection pooler shares with other
// clients, or may share, is left unchanged; each statement of this package then runs
// in its own transaction with these settings, in any pooling mode. See [driver.Conn]
// for how a pooler is detected. A conn without the methods for it is used unchanged.
//
// ctx covers the check and the settings.
func Guard(ctx context.Context, conn driver.Conn) (*Guarded, error) {
	c, ok := conn.(handshake.Conn)
	if !ok {
		return &Guarded{conn: conn}, nil
	}
	if open, err := handshake.InTransaction(ctx, conn); err != nil {
		return nil, fmt.Errorf("inspect: guard: %w", err)
	} else if open {
		return nil, errors.New("inspect: guard: a transaction is open on the connection: use a connection without one")
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

// Shared reports whether a connection pooler shares the session with other clients,
// or may share it. Guard has changed nothing on such a session.
func (g *Guarded) Shared() bool { return g.shared }

// Query runs a statement on the connection without the settings.
func (g *Guarded) Query(ctx context.Context, sql string, args ...any) (driver.Rows, error) {
	return g.conn.Query(ctx, sql, args...)
}

// An pairQuerier may run a statement of this package in its own way; it reports whether it
// did.
type pairQuerier interface {
	queryPairs(ctx context.Context, sql string, args []any) (pairs [][2]string, asked bool, err error)
}

var _ pairQuerier = (*Guarded)(nil)

// queryPairs runs a statement whose rows are two texts. On a shared session it sends
// one message, which is a transaction and has its own settings.
func (g *Guarded) queryPairs(ctx context.Context, sql string, args []any) (pairs [][2]string, asked bool, err error) {
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
	reply, err := g.conn.(handshake.Conn).QueryTextSimple(ctx, message)
	if err != nil {
		return nil, true, err
	}
	if err := json.Unmarshal([]byte(reply), &pairs); err != nil {
		return nil, true, fmt.Errorf("reading the server's answer: %w", err)
	}
	return pairs, true, nil
}
