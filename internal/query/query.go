// Package query runs statements whose result is a single value.
package query

import (
	"context"

	"github.com/pglock-go/pglock/driver"
)

// Text runs a statement and returns its result, which is one text value, or "" if there is
// no row.
func Text(ctx context.Context, q driver.Querier, sql string, args ...any) (string, error) {
	rows, err := q.Query(ctx, sql, args...)
	if err != nil {
		return "", err
	}
	defer rows.Close()
	var text string
	if rows.Next() {
		if err := rows.Scan(&text); err != nil {
			return "", err
		}
	}
	if err := rows.Err(); err != nil {
		return "", err
	}
	return text, rows.Close()
}
