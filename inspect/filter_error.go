package inspect

import (
	"errors"

	"github.com/pglock-go/pglock/internal/sqlstate"
)

// ErrFilter is found by errors.Is in the errors of all functions that take filters if
// a filter is invalid. That includes a table that does not exist and a regular
// expression that Postgres rejects.
var ErrFilter = errors.New("invalid filter")

// A filterError is an error that is an ErrFilter.
type filterError struct{ error }

func (e filterError) Unwrap() error        { return e.error }
func (e filterError) Is(target error) bool { return target == ErrFilter }

// markFilterError marks an error of Postgres that a filter has caused.
func markFilterError(err error) error {
	switch sqlstate.Of(err) {
	case sqlstate.InvalidRegularExpression, sqlstate.FeatureNotSupported, sqlstate.InvalidName, sqlstate.SyntaxError:
		return filterError{err} // the last three are those of to_regclass
	}
	return err
}
