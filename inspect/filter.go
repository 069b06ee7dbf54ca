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
	values    []value // one, or for in and not in one or more, or none for is null
	text      string  // as it was written

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

// The operators of filters that are words.
const (
	opIn        = "in"
	opNotIn     = "not in"
	opIsNull    = "is null"
	opIsNotNull = "is not null"
)

// Where returns a filter that compares a field with a value. The fields are the names
// of [Attributes]. For [Blocked] they are also those of the blocking session, with
// blocking_ before the name, and block, which is hard or soft.
//
// The operators are = != < <= > >= and, for text, ~ and !~, which match a regular
// expression as Postgres does (PostgreSQL manual, 9.7.3 "POSIX Regular Expressions").
// Text has only = != ~ and !~. <> is the same as !=. The operators "in" and "not in"
// take one value or more: the field is equal to one of them, or to none. "is null" and
// "is not null" take none: the field has no value, or has one. Missing text is "". Any
// other missing value is unequal to everything, so of the comparisons only != and
// not in match it.
//
// context.KEY is one key of the context, or with more dots what is in it: see
// [Context.Lookup]. It is text. The whole context is matched as JSON.
//
// A duration is a number of seconds, or has units, as in 1m30s or "5 minutes". A time
// is in RFC 3339 or as in "2026-01-31 12:00", in UTC if it has no zone, or how long
// ago it was, as in -5m. A mode may be written as in SQL, such as ACCESS EXCLUSIVE. A
// key is a number, two numbers as in (1, 2), or else a name as for [pglock.Name].
// Some fields (type, state, kind, wait_event_type and granted) have only a few
// values; for any other value the error lists them.
//
// Several filters on one field must all match, as others do. If no value can match all
// of them, as with state = active and state = idle, the functions that use them return
// an error, because in was probably meant.
//
// A value is taken literally, not as SQL, and without quotes. A quoted value is an
// error, since the quotes are probably a mistake; use ParseFilter for a value that
// really has quotes.
//
// Values are UTF-8. If a field, operator or value is wrong, Err and every function
// that uses the filter return an error that explains what to write.
func Where(field, operator string, values ...string) Filter {
	operator = normalOperator(operator)
	f := Filter{operator: operator, text: strings.TrimSpace(field + " " + operator + " " + strings.Join(values, ", "))}
	err := f.checkValues(field, values)
	for _, value := range values {
		if err == nil {
			err = checkUnquoted(field, operator, value)
		}
	}
	if err == nil {
		err = f.set(field, values)
	}
	if err != nil {
		f.err = fmt.Errorf("the filter %q: %w", termtext.Short(f.text), err)
		return f
	}
	switch operator {
	case opIn, opNotIn:
		f.text = field + " " + operator + " " + quoteList(values)
	case opIsNull, opIsNotNull:
	default:
		if read, err := readValue(field, operator, f.attribute, values[0]); err != nil || read != values[0] {
			f.text = field + " " + operator + " " + quote(values[0])
		}
	}
	return f
}

// ParseFilter parses a filter as people write it: FIELD OP VALUE, with or without
// spaces around the operator, such as "wait_duration > 5s" or "relation~^app_"; FIELD
// in (VALUE, ...) or FIELD not in (VALUE, ...); FIELD is null or FIELD is not null.
//
// A value may be in single quotes, as a string in SQL; it then means exactly the
// text in the quotes, with two quotes for each quote in it. Without quotes it is
// taken literally. Syntax that would have another meaning in SQL is an error that
// explains what to write: double quotes, ==, LIKE, BETWEEN, NOT, AND and OR, NULL in a
// list, a semicolon at the end, casts, functions, an empty value.
func ParseFilter(text string) (Filter, error) {
	f := Filter{text: strings.TrimSpace(text)}
	field, operator, written, err := splitFilter(text)
	if err == nil {
		f.operator, f.text = operator, strings.TrimSpace(field+" "+operator+" "+written)
		err = f.resolve(field, written)
	}
	var values []string
	if err == nil {
		values, err = readValues(field, operator, f.attribute, written)
	}
	if err == nil {
		err = f.set(field, values)
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
	if !slices.Contains(operators, f.operator) && !slices.Contains(wordOperators, f.operator) {
		return operatorError(field, f.operator, value)
	}
	attribute, blocking, ok := findAttribute(field)
	if !ok {
		hint := ""
		if other := fieldHint(field); other != "" {
			hint = fmt.Sprintf("write %s; ", strings.TrimSpace(other+" "+f.operator+" "+termtext.Short(value)))
		} else if django := djangoHint(field, value); django != "" {
			hint = fmt.Sprintf("write %s; ", django)
		}
		return fmt.Errorf("there is no field %q: %sthere are %s", termtext.Short(field), hint, strings.Join(fieldNames(), ", "))
	}
	f.attribute, f.blocking = attribute, blocking
	if f.operator == "<>" {
		f.operator = "!="
	}
	if allowed := operatorsOf(attribute); !slices.Contains(allowed, f.operator) {
		return fmt.Errorf("%s is %s, for which there are %s", field, article(attribute), operatorText(allowed))
	}
	return nil
}

// maxValues limits the values of a filter, each of which is a parameter.
const maxValues = 1000

// checkValues checks how many values the operator has.
func (f *Filter) checkValues(field string, values []string) error {
	switch n := len(values); f.operator {
	case opIsNull, opIsNotNull:
		if n > 0 {
			return fmt.Errorf("%s takes no value: write Where(%q, %q)", f.operator, field, f.operator)
		}
	case opIn, opNotIn:
		if n == 0 {
			return fmt.Errorf("%s has no values: write Where(%q, %q, ...) with one value or more", f.operator, field, f.operator)
		}
		if n > maxValues {
			return fmt.Errorf("%s has %d values: there may be %d", f.operator, n, maxValues)
		}
	default:
		if n != 1 {
			return fmt.Errorf("%s takes one value, and has %d: write Where(%q, %q, ...) for several", f.operator, n, field, opIn)
		}
	}
	return nil
}

// set finds the attribute of the field and parses the values.
func (f *Filter) set(field string, texts []string) error {
	if err := f.resolve(field, strings.Join(texts, ", ")); err != nil {
		return err
	}
	operator := f.operator
	if operator == opIn || operator == opNotIn {
		operator = "="
	}
	for _, text := range texts {
		v, err := parseValue(f.attribute, field, operator, text)
		if err != nil {
			return fmt.Errorf("%s: %w", field, err)
		}
		if !slices.Contains(f.values, v) {
			f.values = append(f.values, v)
		}
	}
	return nil
}

// has reports whether the filter has the value text.
func (f Filter) has(text string) bool {
	return slices.ContainsFunc(f.values, func(v value) bool { return v.text == text })
}

// checkTogether returns an error for filters of which no value can match all. Each is
// right alone, but their writer probably expected alternatives.
func checkTogether(filters []Filter) error {
	for i, f := range filters {
		if f.operator != "=" && f.operator != opIn {
			continue
		}
		for _, g := range filters[:i] {
			if g.operator != "=" && g.operator != opIn || g.attribute.Name != f.attribute.Name || g.blocking != f.blocking ||
				slices.ContainsFunc(g.values, func(v value) bool { return slices.Contains(f.values, v) }) {
				continue
			}
			list := "(..., ...)"
			if is[string](f.attribute) {
				var texts []string
				for _, v := range slices.Concat(g.values, f.values) {
					texts = append(texts, v.text)
				}
				list = quoteList(texts)
			}
			return fmt.Errorf("the filters %q and %q exclude each other, because all filters must match: write %s in %s for alternatives",
				termtext.Short(g.text), termtext.Short(f.text), f.field(), termtext.Short(list))
		}
	}
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
	var own []string
	switch {
	case is[string](a):
		own = []string{"=", "!=", "~", "!~", opIn, opNotIn}
	case is[Context](a):
		own = []string{"~", "!~"}
	case is[bool](a):
		own = []string{"=", "!=", opIn, opNotIn}
	default:
		own = []string{"=", "!=", "<", "<=", ">", ">=", opIn, opNotIn}
	}
	return append(own, opIsNull, opIsNotNull)
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
