package pgserver

import (
	"context"
	"fmt"
	"net/url"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// connectTo returns an existing server.
func connectTo(ctx context.Context, o Options) (*Server, error) {
	config, err := pgconn.ParseConfig(o.Database)
	if err != nil {
		return nil, fmt.Errorf("pgserver: the connection string of the existing server: %w", err)
	}
	s := &Server{
		options:    o,
		address:    address{host: config.Host, port: int(config.Port), user: config.User, password: config.Password},
		existingDB: config.Database,
	}
	conn, err := s.connect(ctx, s.maintenance())
	if err != nil {
		return nil, fmt.Errorf("pgserver: the existing server does not accept connections: %w", err)
	}
	return s, conn.Close(ctx)
}

// withDatabase returns the connection string with another database.
func withDatabase(connString, database string) string {
	if u, err := url.Parse(connString); err == nil && (u.Scheme == "postgres" || u.Scheme == "postgresql") {
		u.Path = "/" + database
		query := u.Query()
		query.Del("dbname")
		query.Del("database")
		u.RawQuery = query.Encode()
		return u.String()
	}
	// If a key occurs twice, the last one counts.
	return connString + " dbname='" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(database) + "'"
}
