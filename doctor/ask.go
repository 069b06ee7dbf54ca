package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/pglock-go/pglock/internal/handshake"
	"github.com/pglock-go/pglock/internal/sqltext"
)

// asking are the settings of each statement. They end with it.
var asking = handshake.Settings{StatementTimeout: limit, LockTimeout: 2 * time.Second}

// ask runs a statement whose result is a single value, JSON as text, as [handshake.Read]
// does, or without settings if the driver cannot send such a message.
func ask[T any](ctx context.Context, e *examination, sql string) (T, error) {
	var value T
	reply, err := handshake.Read(ctx, e.session, asking, sql)
	if errors.Is(err, errors.ErrUnsupported) {
		err = handshake.Persist(ctx, func() (err error) {
			reply, err = e.session.QueryText(ctx, strings.TrimSuffix(sqltext.WithoutComment(sql), ";"))
			return err
		})
	}
	if err != nil {
		return value, err
	}
	if err := json.Unmarshal([]byte(reply), &value); err != nil {
		return value, fmt.Errorf("reading the server's answer: %w", err)
	}
	return value, nil
}

// ageVariable is psql's variable for an age in seconds.
const ageVariable = ":'age'"

// withAge sets the variable in a statement, which must have it exactly once.
func withAge(file string, age time.Duration) (string, error) {
	sql := sqltext.WithoutComment(file)
	if n := strings.Count(sql, ageVariable); n != 1 {
		return "", fmt.Errorf("the statement has the variable %s %d times, want once: not run", ageVariable, n)
	}
	seconds := strconv.FormatFloat(age.Seconds(), 'f', -1, 64)
	return strings.Replace(sql, ageVariable, sqltext.ASCIILiteral(seconds), 1), nil
}

// seconds returns a number of seconds of the server as a duration.
func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
