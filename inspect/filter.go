package inspect

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// A Filter chooses locks. Several together choose those that all of them match.
// Make one with [Where], [ParseFilter], [On] or [PIDs]; the zero Filter matches
// every lock.
//
// A filter is a value: it can be kept, used again, and used by several
// goroutines.
type Filter struct {
	attribute Attribute
	blocking  bool // it is about the session that blocks
	operator  string
	value     value
	text      string // as it was written

	tables []string
	pids   []int32
	err    error
}

// blockingPrefix is what begins the fields of the session that blocks.
const blockingPrefix = "blocking_"

// contextPrefix is what begins the fields for the parts of the context.
const contextPrefix = "context."

// blockField is the field of a pair that tells how it is blocked.
const blockField = "block"

// Where returns the filter that compares a field with a value. The fields are the
// names of [Attributes]; for [Blocked] also those of the session that blocks,
// with blocking_ before the name, and block, which is hard or soft.
//
// The operators are = != < <= > >= and, for text, ~ and !~, which match a regular
// expression as Postgres understands it (PostgreSQL manual, 9.7.3 "POSIX Regular
// Expressions"). Text has no other. <> is !=. Text that is absent is "", and whatever
// else is absent is unequal to everything, so != finds it and the others do not.
// context.KEY is one part of the context; the whole is matched as JSON.
//
// A duration is a number of seconds, or as in 1m30s or "5 minutes". A time is as
// in RFC 3339 or "2026-01-31 12:00", in UTC if it does not say, or how long ago it
// was, as in -5m. A mode may be written as SQL has it, such as ACCESS EXCLUSIVE.
// A key is a number, two numbers as in (1, 2), or else a name as for
// [pglock.Name]. A type, a state, a kind, a wait_event_type, and whether a lock is
// granted, has one of a few values; another is an error that lists them.
//
// The value is taken as it is, and not as SQL: it has no quotes. One that is in quotes
// is an error, since it is meant without them; ParseFilter can write one that has them.
//
// Values are UTF-8. A wrong field, operator or value is an error of whatever the
// filter is used for, and of Err before that; it says what to write.
func Where(field, operator, value string) Filter {
	f := Filter{operator: operator, text: field + " " + operator + " " + value}
	err := checkData(field, operator, value)
	if err == nil {
		err = f.set(field, value)
	}
	if err != nil {
		f.err = fmt.Errorf("the filter %q: %w", short(f.text), err)
	} else if read, err := readValue(field, operator, f.attribute, value); err != nil || read != value {
		f.text = field + " " + operator + " " + quote(value)
	}
	return f
}

// ParseFilter reads a filter as people write it: FIELD OP VALUE, with or without
// space around the operator, such as "wait_duration > 5s" or "relation~^app_".
//
// The value may be in single quotes, as a string of SQL: then it means what is in them,
// whatever that is, with two quotes for each that is in it. Without quotes it is taken
// as it is. What would mean something else in SQL is an error that says what to write:
// double quotes, ==, LIKE, IN, BETWEEN, IS NULL, NOT, AND and OR, a semicolon at the
// end, casts, functions, an empty value.
func ParseFilter(text string) (Filter, error) {
	f := Filter{text: strings.TrimSpace(text)}
	field, operator, written, err := splitFilter(text)
	if err == nil {
		f.operator, f.text = operator, strings.TrimSpace(field+" "+operator+" "+written)
		err = f.look(field, written)
	}
	var value string
	if err == nil {
		value, err = readValue(field, operator, f.attribute, written)
	}
	if err == nil {
		err = f.set(field, value)
	}
	if err != nil {
		f.err = fmt.Errorf("the filter %q: %w", short(f.text), err)
	}
	return f, f.Err()
}

// On is the filter for locks on any of the tables, with what of them can be
// locked by itself, such as pages and rows, and on their partitions and children.
// A table is written as in SQL, with its schema or as search_path finds it, and
// may be an index, a view or a sequence too. One that does not exist is an error,
// and so is a name that is longer than the 63 bytes that Postgres keeps of one: it
// would look for another.
func On(tables ...string) Filter {
	f := Filter{tables: slices.Clone(tables), text: "on " + strings.Join(tables, ", ")}
	if len(tables) == 0 {
		f.err = errors.New("On without a table")
	}
	for _, table := range tables {
		if err := checkTable(table); err != nil && f.err == nil {
			f.err = fmt.Errorf("the table %q: %w", short(table), err)
		}
	}
	return f
}

// maxName is how much of a name Postgres keeps (NAMEDATALEN).
const maxName = 63

// checkTable refuses a name that cannot be one, or that Postgres would take for
// another since it cuts off what is too long. All else is Postgres' to judge.
func checkTable(name string) error {
	if err := checkText(name); err != nil {
		return err
	}
	quoted, size, long := false, 0, false
	for i := 0; i < len(name); i++ {
		switch c := name[i]; {
		case c == '"' && quoted && i+1 < len(name) && name[i+1] == '"':
			i++ // a quote in a name stands twice
			size++
		case c == '"':
			quoted = !quoted
		case c == '.' && !quoted:
			size = 0
		case quoted || c > ' ': // and not space around a name
			size++
		}
		long = long || size > maxName
	}
	if long {
		return fmt.Errorf("a name in it is longer than the %d bytes that Postgres keeps of one", maxName)
	}
	return nil
}

// PIDs is the filter for the locks of any of the sessions with these numbers.
func PIDs(pids ...int32) Filter {
	f := Filter{pids: slices.Clone(pids), text: "pids " + strings.Trim(fmt.Sprint(pids), "[]")}
	if len(pids) == 0 {
		f.err = errors.New("PIDs without a pid")
	}
	return f
}

// String is the filter as it was written.
func (f Filter) String() string { return f.text }

// Err is what is wrong with the filter, or nil.
func (f Filter) Err() error {
	if f.err == nil {
		return nil
	}
	return filterError{fmt.Errorf("inspect: %w", f.err)}
}

// look looks the field up, and checks that the operator means something for it.
func (f *Filter) look(field, value string) error {
	if !slices.Contains(operators, f.operator) {
		return operatorError(field, f.operator, value)
	}
	attribute, blocking, ok := lookUp(field)
	if !ok {
		hint := ""
		if other := fieldHint(field); other != "" {
			hint = fmt.Sprintf("write %s %s %s; ", other, f.operator, short(value))
		}
		return fmt.Errorf("there is no field %q: %sthere are %s", short(field), hint, strings.Join(fieldNames(), ", "))
	}
	f.attribute, f.blocking = attribute, blocking
	if f.operator == "<>" {
		f.operator = "!="
	}
	if allowed := operatorsOf(attribute.Type); !slices.Contains(allowed, f.operator) {
		return fmt.Errorf("%s is %s, which is compared with %s", field, article(attribute.Type), strings.Join(allowed, " "))
	}
	return nil
}

// set looks the field up and reads the value.
func (f *Filter) set(field, text string) error {
	if err := f.look(field, text); err != nil {
		return err
	}
	v, err := parseValue(f.attribute, field, f.operator, text)
	if err != nil {
		return fmt.Errorf("%s: %w", field, err)
	}
	f.value = v
	return nil
}

// lookUp finds the attribute that a field names.
func lookUp(field string) (a Attribute, blocking, ok bool) {
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
			get := func(l *Lock) any { return text(l.Context[key]) }
			return Attribute{Name: contextPrefix + key, Type: Text, of: ofSession, get: get}, prefix != "", true
		}
	}
	if field == blockField {
		return Attribute{Name: blockField, Type: Text, of: ofPair}, false, true
	}
	return Attribute{}, false, false
}

// fieldNames are all fields of a filter.
func fieldNames() []string {
	var names []string
	for _, a := range PairAttributes() {
		names = append(names, a.Name)
	}
	return names
}

// operatorsOf are the operators that mean something for a type.
func operatorsOf(t Type) []string {
	switch t {
	case Text:
		return []string{"=", "!=", "~", "!~"}
	case Map:
		return []string{"~", "!~"}
	case Bool:
		return []string{"=", "!="}
	}
	return []string{"=", "!=", "<", "<=", ">", ">="}
}

func article(t Type) string {
	if t == Text {
		return "text"
	}
	return "a " + string(t)
}
