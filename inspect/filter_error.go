package inspect

import (
	"errors"

	"github.com/pglock-go/pglock/internal/sqlstate"
)

// ErrFilter says that a filter makes no sense: it is what errors.Is finds in the
// errors of all that takes filters when the fault is the filter's. Among them are a
// table that there is not, and a regular expression that Postgres does not take.
var ErrFilter = errors.New("a filter makes no sense")

// filterError is an error that is an ErrFilter.
type filterError struct{ error }

func (e filterError) Unwrap() error        { return e.error }
func (e filterError) Is(target error) bool { return target == ErrFilter }

// judged marks an error of Postgres' that is a filter's fault.
func judged(err error) error {
	switch sqlstate.Of(err) {
	case sqlstate.InvalidRegularExpression, sqlstate.FeatureNotSupported, sqlstate.InvalidName, sqlstate.SyntaxError:
		return filterError{err} // the last three are those of to_regclass
	}
	return err
}
