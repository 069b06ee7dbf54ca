package render

import (
	"fmt"
	"strconv"
	"time"

	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/internal/termtext"
)

// machine formats a value for scripts: seconds, RFC 3339, no line breaks.
func machine(value any) string {
	switch v := value.(type) {
	case nil:
		return ""
	case string:
		return termtext.Line(v)
	case time.Duration:
		return strconv.FormatFloat(v.Seconds(), 'f', -1, 64)
	case time.Time:
		return v.Format(time.RFC3339Nano)
	case inspect.Context:
		return termtext.Line(string(v))
	}
	return fmt.Sprint(value)
}

// human formats a value for people.
func human(value any) string {
	switch v := value.(type) {
	case time.Duration:
		return Duration(v)
	case time.Time:
		return Time(v)
	case bool:
		if v {
			return "yes"
		}
		return "no"
	}
	return machine(value)
}
