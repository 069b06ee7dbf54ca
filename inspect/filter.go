package inspect

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pglock-go/pglock/internal/termtext"
)

// A Filter selects locks. Several filters together select the locks that match all of
// them. Make one with [Where], [ParseFilter], [On] or [PIDs]; the zero Filter matches
// every lock.
//
// A filter is a value: it can be stored, reused, and used by several goroutines.
type Filter struct {
	attribute Attribute
	blocking  bool // it is about the blocking session
	operator  string
	value     value
	text      string // as it was written

	tables []string
	pids   []int32
	err    error
}

// blockingPrefix begins the fields of the blocking session.
const blockingPrefix = "blocking_"

// contextPrefix begins the fields for single keys of the context.
const contextPrefix = "context."

// blockField is the field of a pair for how it is blocked.
const blockField = "block"

// The values of blockField.
const (
	hard = "hard"
	soft = "soft"
)

// Where returns a filter that compares a field with a value. The fields are the names
// of [Attributes]. For [Blocked] they are also those of the blocking session, with
// blocking_ before the name, and block, which is hard or soft.
//
// The operators are = != < <= > >= and, for text, ~ and !~, which match a regular
// expression as Postgres does (PostgreSQL manual, 9.7.3 "POSIX Regular Expressions").
// Text has only = != ~ and !~. <> is the same as !=. Missing text is "". Any other
// missing value is unequal to everything, so only != matches it. context.KEY is one
// key of the context; the whole context is matched as JSON.
//
// A duration is a number of seconds, or has units, as in 1m30s or "5 minutes". A time
// is in RFC 3339 or as in "2026-01-31 12:00", in UTC if it has no zone, or how long
// ago it was, as in -5m. A mode may be written as in SQL, such as ACCESS EXCLUSIVE. A
// key is a number, two numbers as in (1, 2), or else a name as for [pglock.Name].
// Some fields (type, state, kind, wait_event_type and granted) have only a few
// values; for any other value the error lists them.
//
// The value is taken literally, not as SQL, and without quotes. A quoted value is an
// error, since the quotes are probably a mistake; use ParseFilter for a value that
// really has quotes.
//
// Values are UTF-8. If a field, operator or value is wrong, Err and every function
// that uses the filter return an error that explains what to write.
func Where(field, operator, value string) Filter {
	f := Filter{operator: operator, text: field + " " + operator + " " + value}
	err := checkUnquoted(field, operator, value)
	if err == nil {
		err = f.set(field, value)
	}
	if err != nil {
		f.err = fmt.Errorf("the filter %q: %w", termtext.Short(f.text), err)
	} else if read, err := readValue(field, operator, f.attribute, value); err != nil || read != value {
		f.text = field + " " + operator + " " + quote(value)
	}
	return f
}

// ParseFilter parses a filter as people write it: FIELD OP VALUE, with or without
// spaces around the operator, such as "wait_duration > 5s" or "relation~^app_".
//
// The value may be in single quotes, as a string in SQL; it then means exactly the
// text in the quotes, with two quotes for each quote in it. Without quotes it is
// taken literally. Syntax that would have another meaning in SQL is an error that
// explains what to write: double quotes, ==, LIKE, IN, BETWEEN, IS NULL, NOT, AND and
// OR, a semicolon at the end, casts, functions, an empty value.
func ParseFilter(text string) (Filter, error) {
	f := Filter{text: strings.TrimSpace(text)}
	field, operator, written, err := splitFilter(text)
	if err == nil {
		f.operator, f.text = operator, strings.TrimSpace(field+" "+operator+" "+written)
		err = f.resolve(field, written)
	}
	var value string
	if err == nil {
		value, err = readValue(field, operator, f.attribute, written)
	}
	if err == nil {
		err = f.set(field, value)
	}
	if err != nil {
		f.err = fmt.Errorf("the filter %q: %w", termtext.Short(f.text), err)
	}
	return f, f.Err()
}

// On returns a filter for locks on any of the tables, including locks on parts of
// them such as pages and rows, and on their partitions and inheritance children. A
// table is written as in SQL, with its schema or as search_path finds it, and may
// also be an index, a view or a sequence. A table that does not exist is an error,
// and so is a name longer than 63 bytes, which Postgres would truncate to another
// name.
func On(tables ...string) Filter {
	f := Filter{tables: slices.Clone(tables), text: "on " + strings.Join(tables, ", ")}
	if len(tables) == 0 {
		f.err = errors.New("On without a table")
	}
	for _, table := range tables {
		if err := checkTable(table); err != nil && f.err == nil {
			f.err = fmt.Errorf("the table %q: %w", termtext.Short(table), err)
		}
	}
	return f
}

// maxName is the maximum length of a name in Postgres (NAMEDATALEN - 1).
const maxName = 63

// checkTable returns an error for a name that cannot be one, or that Postgres would
// truncate to another. Postgres checks the rest.
func checkTable(name string) error {
	if err := checkText(name); err != nil {
		return err
	}
	quoted, size, long := false, 0, false
	for i := 0; i < len(name); i++ {
		switch c := name[i]; {
		case c == '"' && quoted && i+1 < len(name) && name[i+1] == '"':
			i++ // a quote in a name is doubled
			size++
		case c == '"':
			quoted = !quoted
		case c == '.' && !quoted:
			size = 0
		case quoted || c > ' ': // not space around a name
			size++
		}
		long = long || size > maxName
	}
	if long {
		return fmt.Errorf("a name in it is longer than %d bytes, which is the maximum in Postgres", maxName)
	}
	return nil
}

// PIDs returns a filter for the locks of the sessions with these PIDs.
func PIDs(pids ...int32) Filter {
	f := Filter{pids: slices.Clone(pids), text: "pids " + strings.Trim(fmt.Sprint(pids), "[]")}
	if len(pids) == 0 {
		f.err = errors.New("PIDs without a pid")
	}
	return f
}

// String returns the filter as it was written.
func (f Filter) String() string { return f.text }

// Err returns what is wrong with the filter, or nil.
func (f Filter) Err() error {
	if f.err == nil {
		return nil
	}
	return filterError{fmt.Errorf("inspect: %w", f.err)}
}

// resolve finds the attribute of the field and checks that the operator applies to it.
func (f *Filter) resolve(field, value string) error {
	if !slices.Contains(operators, f.operator) {
		return operatorError(field, f.operator, value)
	}
	attribute, blocking, ok := findAttribute(field)
	if !ok {
		hint := ""
		if other := fieldHint(field); other != "" {
			hint = fmt.Sprintf("write %s %s %s; ", other, f.operator, termtext.Short(value))
		}
		return fmt.Errorf("there is no field %q: %sthere are %s", termtext.Short(field), hint, strings.Join(fieldNames(), ", "))
	}
	f.attribute, f.blocking = attribute, blocking
	if f.operator == "<>" {
		f.operator = "!="
	}
	if allowed := operatorsOf(attribute); !slices.Contains(allowed, f.operator) {
		return fmt.Errorf("%s is %s, which is compared with %s", field, article(attribute), strings.Join(allowed, " "))
	}
	return nil
}

// set finds the attribute of the field and parses the value.
func (f *Filter) set(field, text string) error {
	if err := f.resolve(field, text); err != nil {
		return err
	}
	v, err := parseValue(f.attribute, field, f.operator, text)
	if err != nil {
		return fmt.Errorf("%s: %w", field, err)
	}
	f.value = v
	return nil
}

// findAttribute returns the attribute that a field names.
func findAttribute(field string) (a Attribute, blocking, ok bool) {
	for _, a := range attributes {
		if a.Name == field {
			return a, false, true
		}
		if a.of == ofSession && blockingPrefix+a.Name == field {
			return a, true, true
		}
	}
	for _, prefix := range []string{"", blockingPrefix} {
		if key, ok := strings.CutPrefix(field, prefix+contextPrefix); ok && key != "" {
			a := attribute(ofSession, contextPrefix+key, "", "", func(l *Lock) string {
				text, _ := l.Context.Lookup(key)
				return text
			})
			return a, prefix != "", true
		}
	}
	if field == blockField {
		return blockAttribute(), false, true
	}
	return Attribute{}, false, false
}

// fieldNames returns all fields of filters.
func fieldNames() []string {
	var names []string
	for _, a := range PairAttributes() {
		names = append(names, a.Name)
	}
	return names
}

// operatorsOf returns the operators for the attribute's type.
func operatorsOf(a Attribute) []string {
	switch {
	case is[string](a):
		return []string{"=", "!=", "~", "!~"}
	case is[Context](a):
		return []string{"~", "!~"}
	case is[bool](a):
		return []string{"=", "!="}
	}
	return []string{"=", "!=", "<", "<=", ">", ">="}
}

// article returns the attribute's type with its article, for errors.
func article(a Attribute) string {
	switch {
	case is[string](a):
		return "text"
	case is[int64](a):
		return "a number"
	case is[bool](a):
		return "a bool"
	case is[time.Time](a):
		return "a time"
	case is[time.Duration](a):
		return "a duration"
	}
	return "JSON"
}
