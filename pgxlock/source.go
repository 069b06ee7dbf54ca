package pgxlock

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/internal/redact"
)

// A Source opens the sessions of a [pglock.Locker], outside any pool.
type Source struct {
	config func(context.Context) (*pgx.ConnConfig, error)
}

var _ driver.Source = (*Source)(nil)

// A PoolSource is a [Source] that also runs queries in the pool.
type PoolSource struct {
	Source
	queries queries
}

// Query runs a statement in the pool.
func (s *PoolSource) Query(ctx context.Context, sql string, args ...any) (driver.Rows, error) {
	return s.queries.Query(ctx, sql, args...)
}

var (
	_ driver.Source  = (*PoolSource)(nil)
	_ driver.Querier = (*PoolSource)(nil)
)

// Pool returns a PoolSource that opens sessions with the pool's configuration but outside
// the pool. They do not count against its size, and its limits on connection lifetime do
// not apply to them. The pool's BeforeConnect is called for each of them. AfterConnect is
// not, since it prepares connections for the application's statements. Queries, for
// package inspect, run in the pool.
func Pool(pool *pgxpool.Pool) *PoolSource {
	config := pool.Config()
	return &PoolSource{
		Source: Source{func(ctx context.Context) (*pgx.ConnConfig, error) {
			c := config.ConnConfig.Copy()
			if config.BeforeConnect != nil {
				if err := config.BeforeConnect(ctx, c); err != nil {
					return nil, fmt.Errorf("the pool's BeforeConnect: %w", err)
				}
			}
			return c, nil
		}},
		queries: queries{pool, modeIn(config.ConnConfig)},
	}
}

// Config returns a Source that opens sessions with a copy of config, which must come from
// pgx.ParseConfig.
func Config(config *pgx.ConnConfig) *Source {
	config = config.Copy()
	return &Source{func(context.Context) (*pgx.ConnConfig, error) { return config.Copy(), nil }}
}

// ConnString returns a Source that opens sessions with a connection string: a URI, or
// libpq's key=value form. Missing settings come from the PG* environment variables, as in
// pgx.ParseConfig. If dsn is invalid, the first Open returns an error, which does not
// reveal the password.
func ConnString(dsn string) *Source {
	return &Source{func(context.Context) (*pgx.ConnConfig, error) {
		config, err := pgx.ParseConfig(dsn)
		return config, redact.Hide(err, dsn)
	}}
}

// Open opens a session. ctx covers only the opening.
func (s *Source) Open(ctx context.Context) (driver.Session, error) {
	config, err := s.config(ctx)
	if err != nil {
		return nil, err
	}
	// The application's hooks are for its own statements, not for ours.
	config.Tracer = nil
	config.OnNotice = nil
	config.OnNotification = nil
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	return newSession(conn), nil
}
