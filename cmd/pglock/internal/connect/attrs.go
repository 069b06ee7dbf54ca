package connect

import (
	"context"

	"github.com/jackc/pgx/v5/pgconn"
)

// A targetError reports that a session does not match target_session_attrs.
type targetError struct{ text string }

func (e *targetError) Error() string { return e.text }

// checkTarget checks that a session matches target_session_attrs. Since Postgres 14,
// servers report their state at the start; older ones are queried.
func checkTarget(ctx context.Context, conn *pgconn.PgConn, attr string) error {
	standby, ok := conn.ParameterStatus("in_hot_standby"), true
	readOnly := conn.ParameterStatus("default_transaction_read_only")
	var err error
	switch attr {
	case "read-write", "read-only":
		ok = standby == "on" || readOnly == "on"
		if standby == "" || readOnly == "" {
			ok, err = queryReturns(ctx, conn, "SHOW transaction_read_only", "on")
		}
		if err != nil {
			return err
		}
		if ok && attr == "read-write" {
			return &targetError{"the session is read-only (target_session_attrs)"}
		}
		if !ok && attr == "read-only" {
			return &targetError{"the session is not read-only (target_session_attrs)"}
		}
	case "primary", "standby":
		ok = standby == "on"
		if standby == "" {
			ok, err = queryReturns(ctx, conn, "SELECT pg_catalog.pg_is_in_recovery()", "t")
		}
		if err != nil {
			return err
		}
		if ok && attr == "primary" {
			return &targetError{"the server is a standby (target_session_attrs)"}
		}
		if !ok && attr == "standby" {
			return &targetError{"the server is not a standby (target_session_attrs)"}
		}
	}
	return nil
}

// queryReturns reports whether a query returns value.
func queryReturns(ctx context.Context, conn *pgconn.PgConn, sql, value string) (bool, error) {
	results, err := conn.Exec(ctx, sql).ReadAll()
	if err != nil {
		return false, err
	}
	return string(results[0].Rows[0][0]) == value, nil
}
