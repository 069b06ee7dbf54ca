package prioritize

import (
	"context"
	"errors"
	"fmt"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/internal/handshake"
	"github.com/pglock-go/pglock/internal/query"
)

// withConn acquires a connection, calls f, and releases the connection. The connection is
// reused only if f returned and left the connection as it was: with its lock_timeout, and
// without a transaction. Otherwise it is closed.
func withConn[C any](ctx context.Context, op string, db driver.Database[C], f func(driver.Acquired[C]) error) error {
	if db == nil {
		return errors.New("pglock: " + op + ": nil Database")
	}
	a, err := db.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("pglock: %s: acquiring a connection: %w: %w", op, pglock.ErrUnavailable, err)
	}
	reuse := false
	defer func() { a.Release(reuse) }()
	timeout, err := query.Text(ctx, a.Conn, showLockTimeout)
	if err != nil {
		return fmt.Errorf("pglock: %s: acquiring a connection: %w: %w", op, pglock.ErrUnavailable, err)
	}
	err = f(a)
	reuse = isAsBefore(ctx, a.Conn, timeout)
	return err
}

const showLockTimeout = `SHOW lock_timeout`

// isAsBefore reports whether no transaction is open on conn and its lock_timeout is
// timeout.
func isAsBefore(ctx context.Context, conn driver.Conn, timeout string) bool {
	clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanTimeout)
	defer cancel()
	if open, err := handshake.InTransaction(clean, conn); err != nil || open {
		return false
	}
	now, err := query.Text(clean, conn, showLockTimeout)
	return err == nil && now == timeout
}
