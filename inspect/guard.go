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

// guardSettings are the settings of an inspecting session. The table names in filters
// are the user's, so search_path stays as it is.
var guardSettings = handshake.Settings{
	StatementTimeout: readTimeout,
	LockTimeout:      2 * time.Second,
	KeepSearchPath:   true,
}

// Guard prepares a connection for inspecting locks, whatever the settings of its
// server, database or role, and returns what to pass to [Locks], [Blocked],
// [ReadSnapshot], [Cancel] and [Terminate]. A statement may take 30 seconds and wait 2
// seconds for a lock (statement_timeout and lock_timeout; PostgreSQL manual, 20.11.1
// "Statement Behavior"). It never waits for other transactions, as it would under
// default_transaction_deferrable. Text comes in UTF-8, except from a database with
// encoding SQL_ASCII, from which it comes unchanged.
//
// conn is the caller's own connection, outside of a transaction. Guard first checks
// which session it is, which changes nothing. A session that is not shared gets these
// settings and keeps them. A statement that reads for the second time there is prepared,
// since planning takes longer than running it, and stays so. A session that a connection
// pooler shares with other clients, or may share, is left unchanged, and shared is true;
// each statement of this package then runs in its own transaction with these settings, in
// any pooling mode. Other statements on guarded run as on conn. See [driver.Conn] for how
// a pooler is detected. A conn without the methods for it is used unchanged.
//
// ctx covers the check and the settings.
func Guard(ctx context.Context, conn driver.Conn) (guarded driver.Querier, shared bool, err error) {
	c, ok := conn.(handshake.Conn)
	if !ok {
		return conn, false, nil
	}
	if open, err := handshake.InTransaction(ctx, conn); err != nil {
		return nil, false, fmt.Errorf("inspect: guard: %w", err)
	} else if open {
		return nil, false, errors.New("inspect: guard: a transaction is open on the connection: use a connection without one")
	}
	hello, err := handshake.Meet(ctx, c, guardSettings)
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		return conn, false, nil
	case err != nil:
		return nil, false, fmt.Errorf("inspect: guard: %w", err)
	case hello.Path == handshake.Direct:
		return newDirectConn(conn), false, nil
	}
	return lentConn{conn, c}, true, nil
}

// A lentConn is a connection whose session a pooler lends to others.
type lentConn struct {
	driver.Querier
	conn handshake.Conn
}

// queryPairs runs a statement of this package, whose rows are two texts. It sends one
// message, which is a transaction and has its own settings.
func (l lentConn) queryPairs(ctx context.Context, sql string, args []any) (pairs [][2]string, err error) {
	message := handshake.Local(guardSettings) +
		"SELECT CAST(COALESCE(pg_catalog.json_agg(pg_catalog.json_build_array(q.a, q.b)), '[]') AS pg_catalog.text) FROM (\n" +
		strings.TrimSuffix(inline(sql, args), ";") + "\n) AS q (a, b)"
	reply, err := l.conn.QueryTextSimple(ctx, message)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal([]byte(reply), &pairs); err != nil {
		return nil, fmt.Errorf("reading the server's answer: %w", err)
	}
	return pairs, nil
}
