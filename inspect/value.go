package inspect

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/internal/termtext"
)

// A value is what a filter compares with, as it is sent to Postgres: text, or a
// number, which is in microseconds for times and durations.
type value struct {
	text string
	ago  bool // a time before now
}

// parseValue parses a value of the attribute's type.
func parseValue(a Attribute, field, operator, text string) (value, error) {
	if err := checkText(text); err != nil {
		return value{}, err
	}
	switch {
	case is[int64](a):
		if _, err := strconv.ParseInt(text, 10, 64); err != nil {
			return value{}, fmt.Errorf("%q is not a whole number", termtext.Short(text))
		}
		return value{text: text}, nil
	case is[bool](a):
		b, err := parseBool(text)
		return value{text: strconv.FormatBool(b)}, err
	case is[time.Duration](a):
		d, err := parseDuration(text)
		return value{text: strconv.FormatInt(d.Microseconds(), 10)}, err
	case is[time.Time](a):
		if ago, ok := strings.CutPrefix(text, "-"); ok {
			d, err := parseDuration(ago)
			return value{text: strconv.FormatInt(d.Microseconds(), 10), ago: true}, err
		}
		t, err := parseTime(text)
		return value{text: strconv.FormatInt(t.UnixMicro(), 10)}, err
	}
	if operator == "=" || operator == "!=" {
		return parseWord(field, operator, text)
	}
	return value{text: text}, nil
}

// checkText returns an error for what Postgres does not accept as text. Postgres' own
// error would look like a failure of the connection.
func checkText(text string) error {
	switch {
	case strings.ContainsRune(text, 0):
		return errors.New("a value cannot contain a NUL character")
	case !utf8.ValidString(text):
		return errors.New("a value must be UTF-8")
	}
	return nil
}

// parseWord parses values that can be written in several ways, and checks values of
// fields that have only a few.
func parseWord(field, operator, text string) (value, error) {
	switch strings.TrimPrefix(field, blockingPrefix) {
	case "mode":
		if strings.EqualFold(text, siReadMode) {
			return value{text: siReadMode}, nil
		}
		mode, err := pglock.ParseMode(strings.ReplaceAll(text, "_", " "))
		if err != nil {
			var names []string
			for _, m := range pglock.Modes() {
				names = append(names, m.PgLocks())
			}
			return value{}, fmt.Errorf("%q is not a lock mode: there are %s, %s", termtext.Short(text), strings.Join(names, ", "), siReadMode)
		}
		return value{text: mode.PgLocks()}, nil
	case "kind":
		kind := strings.ToUpper(strings.ReplaceAll(text, " ", "_"))
		if !slices.Contains(kinds(), kind) {
			return value{}, fmt.Errorf("%q is not a kind of relation: there are %s", termtext.Short(text), strings.Join(kinds(), ", "))
		}
		return value{text: kind}, nil
	case "type":
		if text == "" || slices.Contains(lockTypes, text) {
			return value{text: strings.ReplaceAll(text, "speculative token", typeSpecToken)}, nil
		}
		return value{}, unknownValueError(field, operator, text, lockTypes)
	case "state":
		if text != "" && !slices.Contains(states, text) {
			return value{}, unknownValueError(field, operator, text, states)
		}
	case "wait_event_type":
		if text != "" && !slices.Contains(waitEventTypes, text) {
			return value{}, unknownValueError(field, operator, text, waitEventTypes)
		}
	case "backend_type":
		// Workers of extensions may have other names.
		if !slices.Contains(backendTypes, text) && slices.ContainsFunc(backendTypes, func(t string) bool { return normalize(t) == normalize(text) }) {
			return value{}, unknownValueError(field, operator, text, backendTypes)
		}
	case "key":
		return value{text: parseKey(text).String()}, nil
	case blockField:
		if text != hard && text != soft {
			return value{}, fmt.Errorf("%q is neither %s nor %s", termtext.Short(text), hard, soft)
		}
	}
	return value{text: text}, nil
}

// The values of fields that have only a few, in all versions of Postgres. Values that
// a later version adds can be matched with ~ until they are added here.
var (
	lockTypes = []string{
		typeRelation, "extend", "frozenid", typePage, typeTuple, typeTransactionID, typeVirtualXID,
		typeSpecToken, "speculative token", typeObject, "userlock", typeAdvisory, "applytransaction",
	}
	states = []string{
		stateActive, "idle", "idle in transaction", "idle in transaction (aborted)", "fastpath function call", "disabled", "starting",
	}
	waitEventTypes = []string{
		"Activity", "Buffer", "BufferPin", "Client", "Extension", "InjectionPoint", "IO", "IPC", "Lock", "LWLock", "Timeout",
	}
	backendTypes = []string{
		"client backend", "parallel worker", "autovacuum launcher", "autovacuum worker", "background worker", "background writer",
		"checkpointer", "startup", "walreceiver", "walsender", "walwriter", "walsummarizer", "archiver", "io worker", "slotsync worker",
		"logical replication launcher", "logical replication worker", "logical replication apply worker",
		"logical replication parallel worker", "logical replication tablesync worker", "standalone backend", "logger",
	}
)

// unknownValueError returns an error for a value that a field cannot have, with the one that was
// probably meant.
func unknownValueError(field, operator, text string, values []string) error {
	hint := ""
	for _, v := range values {
		if normalize(v) == normalize(text) {
			hint = fmt.Sprintf("write %s %s %s; ", field, operator, v)
		}
	}
	if parts := strings.Split(text, ","); len(parts) > 1 && !slices.ContainsFunc(parts, func(part string) bool { return !slices.Contains(values, strings.TrimSpace(part)) }) {
		hint = fmt.Sprintf("write %s in (%s); ", field, text)
	}
	return fmt.Errorf("%q is not a %s: %sthere are %s", termtext.Short(text), field, hint, strings.Join(values, ", "))
}

// normalize normalizes case and removes separators.
func normalize(text string) string {
	return strings.NewReplacer(" ", "", "_", "", "-", "").Replace(strings.ToLower(text))
}

// siReadMode is the only mode in pg_locks that is not a table lock mode: it marks what a
// serializable transaction has read, and conflicts with nothing.
const siReadMode = "SIReadLock"

// kinds returns the kinds of relations.
func kinds() []string {
	var names []string
	for _, letter := range relationKinds {
		names = append(names, relationKind(string(letter)))
	}
	return names
}

// parseKey parses a key as it is shown, or takes it as a name. The key has no name,
// like those from pg_locks.
func parseKey(text string) pglock.Key {
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return pglock.Int(n)
	}
	inner := strings.TrimSuffix(strings.TrimPrefix(text, "("), ")")
	if class, object, ok := strings.Cut(inner, ","); ok {
		c, err1 := strconv.ParseInt(strings.TrimSpace(class), 10, 32)
		o, err2 := strconv.ParseInt(strings.TrimSpace(object), 10, 32)
		if err1 == nil && err2 == nil {
			return pglock.Pair(int32(c), int32(o))
		}
	}
	return pglock.Int(pglock.Name(text).ID())
}

func parseBool(text string) (bool, error) {
	switch strings.ToLower(text) {
	case "true", "t", "yes", "y", "on", "1":
		return true, nil
	case "false", "f", "no", "n", "off", "0":
		return false, nil
	}
	return false, fmt.Errorf("%q is neither true nor false: write true or false", termtext.Short(text))
}

// parseTime parses a time. Without a zone it is in UTC.
func parseTime(text string) (time.Time, error) {
	for _, layout := range []string{
		time.RFC3339Nano, "2006-01-02 15:04:05Z07:00", "2006-01-02 15:04:05Z07",
		"2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02 15:04", "2006-01-02",
	} {
		if t, err := time.Parse(layout, text); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is not a time: write it as 2026-01-31T12:00:00Z, or as -5m for five minutes ago", termtext.Short(text))
}

// units are the names of units of time in Go and Postgres.
var units = []struct {
	words []string
	size  time.Duration
}{
	{[]string{"us", "µs", "microsecond", "microseconds"}, time.Microsecond},
	{[]string{"ms", "millisecond", "milliseconds"}, time.Millisecond},
	{[]string{"s", "sec", "secs", "second", "seconds"}, time.Second},
	{[]string{"m", "min", "mins", "minute", "minutes"}, time.Minute},
	{[]string{"h", "hr", "hrs", "hour", "hours"}, time.Hour},
	{[]string{"d", "day", "days"}, 24 * time.Hour},
	{[]string{"w", "week", "weeks"}, 7 * 24 * time.Hour},
}

// maxDuration keeps sums of durations within the range of time.Duration and Postgres.
const maxDuration = 100 * 365 * 24 * time.Hour

// parseDuration parses numbers with units, such as 1m30s or "2 hours 5 minutes", or a
// number of seconds.
func parseDuration(text string) (time.Duration, error) {
	failed := fmt.Errorf("%q is not a duration: write it as 5s, 1m30s, 2h, \"3 days\", or a number of seconds", termtext.Short(text))
	rest := strings.TrimSpace(text)
	if rest == "" {
		return 0, failed
	}
	var total time.Duration
	for rest != "" {
		end := strings.IndexFunc(rest, func(c rune) bool { return (c < '0' || c > '9') && c != '.' })
		if end < 0 {
			end = len(rest)
		}
		number, err := strconv.ParseFloat(rest[:end], 64)
		if err != nil {
			return 0, failed
		}
		rest = strings.TrimLeft(rest[end:], " ")
		end = strings.IndexFunc(rest, func(c rune) bool { return c == ' ' || c == '.' || c >= '0' && c <= '9' })
		if end < 0 {
			end = len(rest)
		}
		word := strings.ToLower(rest[:end])
		rest = strings.TrimLeft(rest[end:], " ")
		size := time.Second
		if word != "" {
			i := slices.IndexFunc(units, func(u struct {
				words []string
				size  time.Duration
			},
			) bool {
				return slices.Contains(u.words, word)
			})
			if i < 0 {
				return 0, failed
			}
			size = units[i].size
		} else if rest != "" || total != 0 {
			return 0, failed // a number without a unit must be alone
		}
		if number > float64(maxDuration)/float64(size) {
			return 0, failed
		}
		if total += time.Duration(number * float64(size)); total > maxDuration {
			return 0, failed
		}
	}
	return total, nil
}
