package pgserver

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pglock-go/pglock/internal/sqltext"
)

// maintenance returns the database from which others are created and dropped.
func (s *Server) maintenance() string {
	if s.existingDB != "" {
		return s.existingDB
	}
	return "postgres"
}

// CreateDatabase creates an empty database and returns its name.
func (s *Server) CreateDatabase(ctx context.Context) (string, error) {
	name, err := randomName("pglock_test_")
	if err != nil {
		return "", err
	}
	err = s.maintainKept(ctx, func(conn *pgconn.PgConn) error {
		sql := "CREATE DATABASE " + name
		if canChooseStrategy(conn.ParameterStatus("server_version")) {
			// Copying the files costs a third of writing each page to the log, which is
			// the default, and the files that speed up a first connection come along.
			sql += " STRATEGY file_copy"
		}
		return conn.Exec(ctx, sql).Close()
	})
	if err != nil {
		return "", fmt.Errorf("pgserver: creating a database: %w", err)
	}
	return name, nil
}

// canChooseStrategy reports whether CREATE DATABASE of a server of this version has the
// option STRATEGY: since Postgres 15. It reports false if the version cannot be read.
func canChooseStrategy(version string) bool {
	digits, _, _ := strings.Cut(version, ".")
	major, err := strconv.Atoi(digits)
	return err == nil && major >= 15
}

// A LeftoverError reports a database that sessions were still connected to when it was
// dropped.
type LeftoverError struct {
	Database string
	Sessions []string // one line each
}

func (e *LeftoverError) Error() string {
	return fmt.Sprintf("sessions were left connected to %s; close them:\n  %s", e.Database, strings.Join(e.Sessions, "\n  "))
}

// DropDatabase drops a database that CreateDatabase created. Sessions get a few seconds
// to disconnect. Those that do not are terminated and reported in a *LeftoverError, but
// the database is dropped anyway.
func (s *Server) DropDatabase(ctx context.Context, name string) error {
	var leftover *LeftoverError
	err := s.maintainKept(ctx, func(conn *pgconn.PgConn) error {
		sessions, err := s.awaitEmpty(ctx, conn, name, 3*time.Second)
		if err != nil {
			return err
		}
		if len(sessions) > 0 {
			leftover = &LeftoverError{name, sessions}
			if _, err := queryColumn(ctx, conn, "SELECT pg_terminate_backend(pid)::text FROM pg_stat_activity WHERE datname = $1 AND pid <> pg_backend_pid()", name); err != nil {
				return err
			}
			if _, err := s.awaitEmpty(ctx, conn, name, 10*time.Second); err != nil {
				return err
			}
		}
		return conn.Exec(ctx, "DROP DATABASE "+sqltext.Identifier(name)).Close()
	})
	if err != nil {
		err = fmt.Errorf("pgserver: dropping %s: %w", name, err)
	}
	if leftover != nil {
		return errors.Join(leftover, err)
	}
	return err
}

// awaitEmpty waits until no session is connected to the database. On timeout it returns
// the remaining sessions.
func (s *Server) awaitEmpty(ctx context.Context, conn *pgconn.PgConn, name string, patience time.Duration) ([]string, error) {
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for {
		sessions, err := queryColumn(ctx, conn, `
			SELECT format('pid %s, %s, application_name %L, %s, query: %s',
				pid, backend_type, application_name, coalesce(state, 'no state'), query)
			FROM pg_stat_activity
			WHERE datname = $1 AND pid <> pg_backend_pid() AND backend_type NOT LIKE 'autovacuum%'
			ORDER BY pid`, name)
		if err != nil || len(sessions) == 0 {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-timeout.C:
			return sessions, nil
		case <-ticker.C:
		}
	}
}

// maintain runs fn on a new connection.
func (s *Server) maintain(ctx context.Context, fn func(*pgconn.PgConn) error) error {
	conn, err := s.connect(ctx, s.maintenance())
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	return fn(conn)
}

// maintainKept runs fn like maintain, on an idle session if one was kept, and keeps the
// session if the options ask for it.
func (s *Server) maintainKept(ctx context.Context, fn func(*pgconn.PgConn) error) error {
	if !s.options.KeepSessions {
		return s.maintain(ctx, fn)
	}
	conn := s.takeKept()
	if conn == nil {
		var err error
		if conn, err = s.connect(ctx, s.maintenance()); err != nil {
			return err
		}
	}
	err := fn(conn)
	if conn.IsClosed() {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kept = append(s.kept, conn)
	return err
}

// takeKept returns an idle session, or nil if there is none.
func (s *Server) takeKept() *pgconn.PgConn {
	s.mu.Lock()
	defer s.mu.Unlock()
	last := len(s.kept) - 1
	if last < 0 {
		return nil
	}
	conn := s.kept[last]
	s.kept = s.kept[:last]
	return conn
}

// endKept ends the idle sessions.
func (s *Server) endKept() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	for conn := s.takeKept(); conn != nil; conn = s.takeKept() {
		_ = conn.Close(ctx) // Stop ends what is left
	}
}

// queryColumn returns the first column of a query's rows.
func queryColumn(ctx context.Context, conn *pgconn.PgConn, sql, arg string) ([]string, error) {
	result := conn.ExecParams(ctx, sql, [][]byte{[]byte(arg)}, nil, nil, nil).Read()
	if result.Err != nil {
		return nil, result.Err
	}
	var values []string
	for _, row := range result.Rows {
		values = append(values, string(row[0]))
	}
	return values, nil
}
