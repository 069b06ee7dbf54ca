package inspect

import (
	"context"
	_ "embed"
	"fmt"

	"github.com/pglock-go/pglock"
)

//go:embed guard.sql
var guardSQL string

// Guard sees to it that a connection which is there to look at locks never gets
// stuck itself: from now on a statement of its may take 30 seconds, and wait for a
// lock for 2 (statement_timeout and lock_timeout; PostgreSQL manual, 20.11.1
// "Statement Behavior"). Text comes in UTF-8, except from a database of encoding
// SQL_ASCII, from which it comes as it is (client_encoding). It is for a connection of one's own, which keeps these
// settings; a pool would pass them on, so it is not taken. ctx covers the setting.
func Guard(ctx context.Context, conn pglock.Conn) error {
	if err := conn.Exec(ctx, guardSQL); err != nil {
		return fmt.Errorf("inspect: setting timeouts: %w", err)
	}
	return nil
}
