package cli

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/pgxlock"
)

// session is the one connection of a verb that sees and ends locks.
type session struct {
	*inspect.Guarded
	conn   *pgx.Conn
	config *pgx.ConnConfig
}

// open opens a session for a verb.
func (a *app) open(ctx context.Context, verb string) (*session, error) {
	config, err := a.connection.Config(a.getenv, applicationName(verb, ""))
	if err != nil {
		return nil, err
	}
	var s *session
	err = a.connection.WithPassword(ctx, config, func(config *pgx.ConnConfig) error {
		conn, err := pgx.ConnectConfig(ctx, config)
		if err != nil {
			return err
		}
		guarded, err := inspect.Guard(ctx, pgxlock.Conn(conn))
		s = &session{guarded, conn, config}
		if err != nil {
			s.close()
		}
		return err
	})
	return s, err
}

func (s *session) close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = s.conn.Close(ctx)
}
