package doctor

import (
	"context"
	"time"

	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/internal/handshake"
)

// A poolerMode is how long a client keeps a session of the server.
type poolerMode string

const (
	unknownMode     poolerMode = ""
	sessionMode     poolerMode = "session"
	transactionMode poolerMode = "transaction"
	statementMode   poolerMode = "statement"
)

// poolerTimeout limits how long the mode is examined. A pooler without a free session
// lets clients wait.
const poolerTimeout = 5 * time.Second

// poolerMode finds out the mode of a pooler, by its behavior: a client that keeps its
// session always has the same backend, and shares it with no other client. Nothing is
// set anywhere. The last step begins a transaction, and rolls it back. A pooler in
// statement mode refuses that by closing the connection, and the session behind it,
// which it replaces when it needs one.
func (e *examination) poolerMode(ctx context.Context) poolerMode {
	ctx, cancel := context.WithTimeout(ctx, poolerTimeout)
	defer cancel()
	other, err := e.source.Open(ctx)
	if err != nil {
		return unknownMode
	}
	defer other.Close()
	var clients [14]driver.Session
	for i := range clients {
		// Not in turn: a pooler that lends two sessions in turn would look like one that
		// lends none.
		if clients[i] = e.session; i%4 == 1 || i%4 == 2 {
			clients[i] = other
		}
	}
	shared, err := sharesBackends(ctx, clients[:])
	switch {
	case err != nil:
		return unknownMode
	case !shared:
		return sessionMode
	case other.Exec(ctx, "BEGIN") != nil:
		return statementMode
	}
	_ = other.Exec(ctx, "ROLLBACK")
	return transactionMode
}

// sharesBackends asks clients for their backends, one after the other, and reports whether
// a client had several backends or two clients had the same one.
func sharesBackends(ctx context.Context, clients []driver.Session) (bool, error) {
	type backend struct {
		pid   int32
		start string
	}
	backends := map[driver.Session]backend{}
	owners := map[backend]driver.Session{}
	for _, client := range clients {
		hello, err := handshake.Greet(ctx, client)
		if err != nil {
			return false, err
		}
		now := backend{hello.PID, hello.Start}
		before, asked := backends[client]
		owner, owned := owners[now]
		if asked && before != now || owned && owner != client {
			return true, nil
		}
		backends[client], owners[now] = now, client
	}
	return false, nil
}

// poolerFinding reports a pooler, and what works through it. direct are connection
// settings that lead to the server.
func poolerFinding(path handshake.Path, mode poolerMode, direct string) Finding {
	f := Finding{ID: "pooler", Level: OK}
	switch path {
	case handshake.Direct:
		f.Text = "direct: no pooler"
		return f
	case handshake.Unknown:
		f.Text = "the driver does not report the PID of the backend, so a pooler cannot be detected"
		return f
	}
	f.Level = Warning
	const always = "reading locks and ending sessions works"
	switch mode {
	case sessionMode:
		f.Text = "a pooler in session mode: " + always + ", and a Locker with AllowPooler; pglock run and prioritize are refused"
	case transactionMode:
		f.Text = "a pooler in transaction mode: " + always + ", and locks in a transaction; a Locker, pglock run and prioritize are refused"
	case statementMode:
		f.Text = "a pooler in statement mode: " + always + "; all locks are refused"
	default:
		f.Text = "a pooler, whose mode could not be determined: " + always + "; a Locker, pglock run and prioritize are refused"
	}
	f.Note = "connect to the server itself"
	if direct != "" {
		f.Advice = []string{direct}
		f.Note = inConnectionString + ": the server itself, at the address that the pooler uses"
	}
	return f
}
