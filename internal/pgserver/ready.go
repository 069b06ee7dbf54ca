package pgserver

import (
	"context"
	"fmt"
	"net/url"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// connectTo returns the server that was already there.
func connectTo(ctx context.Context, o Options) (*Server, error) {
	config, err := pgconn.ParseConfig(o.Database)
	if err != nil {
		return nil, fmt.Errorf("pgserver: the connection string of the given server: %w", err)
	}
	s := &Server{
		options: o,
		address: address{host: config.Host, port: int(config.Port), user: config.User, password: config.Password},
		ready:   config.Database,
	}
	conn, err := s.connect(ctx, s.maintenance())
	if err != nil {
		return nil, fmt.Errorf("pgserver: the given server does not answer: %w", err)
	}
	return s, conn.Close(ctx)
}

// withDatabase names another database in a connection string.
func withDatabase(connString, database string) string {
	if u, err := url.Parse(connString); err == nil && (u.Scheme == "postgres" || u.Scheme == "postgresql") {
		u.Path = "/" + database
		query := u.Query()
		query.Del("dbname")
		query.Del("database")
		u.RawQuery = query.Encode()
		return u.String()
	}
	// The last of two keys counts.
	return connString + " dbname='" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(database) + "'"
}
