package inspect

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/internal/sqltext"
	"github.com/pglock-go/pglock/internal/termtext"
)

var (
	//go:embed matching.sql
	matchingSQL string

	//go:embed tables.sql
	tablesSQL string

	//go:embed match.sql
	matchSQL string
)

// The markers of matching.sql.
const (
	sessionColumnsMarker     = "-- and the attributes of sessions"
	lockColumnsMarker        = "-- and the attributes of locks"
	lockConditionsMarker     = "AND true -- conditions on the lock d and its session a"
	blockingConditionsMarker = "WHERE true -- conditions on the blocking session b, or false without any"

	beginLocksMarker, endLocksMarker       = "-- for conditions on locks", "-- end of conditions on locks"
	beginBlockersMarker, endBlockersMarker = "-- for conditions on blockers", "-- end of conditions on blockers"
)

// conditions holds filters compiled to SQL.
type conditions struct {
	lock, blocking, session []string
	values                  map[string]string
}

// readMatching runs matching.sql with all filters except those that only Go can
// evaluate: see matchedHere.
func readMatching(ctx context.Context, q driver.Querier, pairs bool, filters []Filter) (*reading, error) {
	c := conditions{values: map[string]string{"pairs": strconv.FormatBool(pairs)}}
	err := checkFilters(filters, func(f Filter) string {
		if f.ofPair() && !pairs {
			return "pairs"
		}
		return ""
	})
	if err != nil {
		return nil, err
	}
	for _, f := range filters {
		if err := c.add(ctx, q, f); err != nil {
			return nil, err
		}
	}
	sql, err := c.statement(matchingSQL)
	if err != nil {
		return nil, err
	}
	var r *reading
	if pairs {
		r, err = readEdges(ctx, q, sql, c.values, crowd)
	} else {
		c.values["crowd"] = strconv.Itoa(noCrowd)
		r, err = read(ctx, q, sql, c.values)
	}
	if err != nil {
		return nil, markFilterError(err)
	}
	if len(c.blocking) == 0 {
		r.blocking = nil
	}
	if !pairs {
		r.locks, err = matchHere(ctx, q, r.locks, filters, func(f Filter, l *Lock) any { return f.attribute.get(l) })
	}
	return r, err
}

// checkFilters returns an error for a filter that is wrong, for one about a field that the
// rows do not have, and for filters that exclude each other. owner returns which rows have
// the field of a filter, or "" if these do.
func checkFilters(filters []Filter, owner func(Filter) string) error {
	for _, f := range filters {
		if f.err != nil {
			return filterError{f.err}
		}
		if rows := owner(f); rows != "" {
			return filterError{fmt.Errorf("the filter %q: only %s have the field %s", termtext.Short(f.text), rows, f.field())}
		}
	}
	if err := checkTogether(filters); err != nil {
		return filterError{err}
	}
	return nil
}

// ofPair reports whether only pairs have the filter's field.
func (f Filter) ofPair() bool { return f.blocking || f.attribute.of == ofPair }

// field returns the name of the filter's field.
func (f Filter) field() string {
	field, _, _ := strings.Cut(f.text, " ")
	return field
}

// statement returns template, which is matching.sql, with the conditions and without
// the parts that only other conditions need.
func (c *conditions) statement(template string) (string, error) {
	blocking := "false" // all blockers match, so none is listed
	if len(c.blocking) > 0 {
		blocking = joinConditions(c.blocking)
	}
	return fill(template,
		marker{begin: sessionColumnsMarker, text: columns(ofSession)},
		marker{begin: lockColumnsMarker, text: columns(ofLock), keep: len(c.lock) == 0},
		marker{begin: lockConditionsMarker, text: "AND " + joinConditions(c.lock)},
		marker{begin: blockingConditionsMarker, text: "WHERE " + blocking},
		marker{begin: beginLocksMarker, end: endLocksMarker, keep: len(c.lock) > 0},
		marker{begin: beginBlockersMarker, end: endBlockersMarker, keep: len(c.blocking) > 0},
	)
}

// columns returns the attributes of an owner as columns for matching.sql.
func columns(of owner) string {
	var b strings.Builder
	for _, a := range attributes {
		if a.of == of && a.sql != "" {
			fmt.Fprintf(&b, ", %s AS %s\n                ", a.sql, sqltext.Identifier(a.Name))
		}
	}
	return strings.TrimSpace(b.String())
}

func joinConditions(conditions []string) string {
	if len(conditions) == 0 {
		return "true"
	}
	return strings.Join(conditions, "\n        AND ")
}

// add compiles a filter.
func (c *conditions) add(ctx context.Context, q driver.Querier, f Filter) error {
	switch {
	case len(f.tables) > 0:
		set, err := tableOIDs(ctx, q, f.tables)
		if err != nil {
			return err
		}
		c.lock = append(c.lock, c.anyOID("d.relation_oid", set))
	case len(f.pids) > 0:
		c.lock = append(c.lock, c.anyPID("l.pid", f.pids))
	case f.attribute.Name == "" || f.matchedHere():
	case f.blocking:
		c.blocking = append(c.blocking, c.compare("b", f))
	case f.attribute.Name == "pid":
		c.lock = append(c.lock, c.compare("l", f))
	case f.attribute.of == ofSession:
		c.lock = append(c.lock, c.compare("a", f))
	default:
		c.lock = append(c.lock, c.compare("d", f))
	}
	return nil
}

// anyOID returns the condition that column is one of a set of OIDs.
func (c *conditions) anyOID(column string, set map[uint32]struct{}) string {
	return column + " OPERATOR(pg_catalog.=) ANY (CAST(" + c.value(oidArray(set)) + " AS pg_catalog.oid[]))"
}

// anyPID returns the condition that column is one of the PIDs.
func (c *conditions) anyPID(column string, pids []int32) string {
	return column + " OPERATOR(pg_catalog.=) ANY (CAST(" + c.value(pidArray(pids)) + " AS pg_catalog.int4[]))"
}

// value adds v as a parameter and returns a reference to it.
func (c *conditions) value(v string) string {
	name := "value" + strconv.Itoa(len(c.values))
	c.values[name] = v
	return "CAST(:'" + name + "' AS pg_catalog.text)"
}

// compare returns the condition of a filter on a column of matching.sql. Only the
// values come from the caller, and they are parameters.
func (c *conditions) compare(table string, f Filter) string {
	column := table + `."` + f.attribute.Name + `"`
	operator, join := f.operator, ""
	switch f.operator {
	case opIsNull, opIsNotNull:
		if !is[string](f.attribute) {
			return column + " " + strings.ToUpper(f.operator)
		}
		operator := "="
		if f.operator == opIsNotNull {
			operator = "<>"
		}
		return "COALESCE(" + column + ", '') OPERATOR(pg_catalog." + operator + ") ''"
	case opIn:
		operator, join = "=", " OR "
	case opNotIn:
		operator, join = "!=", " AND "
	}
	var parts []string
	for _, v := range f.values {
		parts = append(parts, c.compareValue(column, operator, f.attribute, v))
	}
	return "(" + strings.Join(parts, join) + ")"
}

// compareValue returns a comparison of a column with one value.
func (c *conditions) compareValue(column, operator string, a Attribute, v value) string {
	unequal := operator == "!="
	if unequal {
		operator = "<>"
	}
	operator = " OPERATOR(pg_catalog." + operator + ") "
	parameter := c.value(v.text)
	switch {
	case is[string](a):
		return "COALESCE(" + column + ", '')" + operator + parameter
	case is[bool](a):
		return column + operator + "CAST(" + parameter + " AS pg_catalog.bool)"
	}
	parameter = "CAST(" + parameter + " AS pg_catalog.int8)"
	if v.ago {
		parameter = "(v.now OPERATOR(pg_catalog.-) " + parameter + ")"
	}
	condition := "CAST(" + column + " AS pg_catalog.int8)" + operator + parameter
	if unequal {
		condition = "(" + column + " IS NULL OR " + condition + ")"
	}
	return condition
}

// tableOIDs returns the OIDs of tables, their partitions and their inheritance children.
func tableOIDs(ctx context.Context, q driver.Querier, names []string) (map[uint32]struct{}, error) {
	set := map[uint32]struct{}{}
	for _, name := range names {
		found := false
		err := query(ctx, q, tablesSQL, map[string]string{"table": name}, func(kind, payload string) error {
			var n numberParser
			set[n.oid(payload)] = struct{}{}
			found = true
			return n.err
		})
		if err != nil {
			return nil, markFilterError(fmt.Errorf("the table %q: %w", name, err))
		}
		if !found {
			return nil, filterError{fmt.Errorf("there is no table %q in this database; write it as in SQL, with its schema if search_path does not find it", name)}
		}
	}
	return set, nil
}

// matchedHere reports whether the filter is about a value that only Go knows, because
// it is derived from Postgres' data. Postgres still evaluates its regular
// expressions.
func (f Filter) matchedHere() bool {
	return f.attribute.Name != "" && f.attribute.sql == ""
}

// matchHere returns the rows that match the filters that are evaluated here.
func matchHere[T any](ctx context.Context, q driver.Querier, rows []T, filters []Filter, get func(Filter, *T) any) ([]T, error) {
	for _, f := range filters {
		if !f.matchedHere() || len(rows) == 0 {
			continue
		}
		matches, err := f.matcher(ctx, q, func(yield func(any)) {
			for i := range rows {
				yield(get(f, &rows[i]))
			}
		})
		if err != nil {
			return nil, err
		}
		kept := rows[:0]
		for i := range rows {
			if matches[textOf(get(f, &rows[i]))] {
				kept = append(kept, rows[i])
			}
		}
		rows = kept
	}
	return rows, nil
}

// matcher evaluates the filter once for each distinct value that each yields.
func (f Filter) matcher(ctx context.Context, q driver.Querier, each func(yield func(any))) (map[string]bool, error) {
	matches := map[string]bool{}
	var texts []string
	each(func(v any) {
		text := textOf(v)
		if _, seen := matches[text]; !seen {
			matches[text] = f.operator == "!~" // until it matches
			texts = append(texts, text)
		}
	})
	if f.operator != "~" && f.operator != "!~" {
		for _, text := range texts {
			switch f.operator {
			case "=", opIn:
				matches[text] = f.has(text)
			case "!=", opNotIn:
				matches[text] = !f.has(text)
			case opIsNull, opIsNotNull: // missing text is ""
				matches[text] = (text == "") == (f.operator == opIsNull)
			}
		}
		return matches, nil
	}
	list, err := json.Marshal(texts)
	if err != nil {
		return nil, err
	}
	values := map[string]string{"texts": string(list), "pattern": f.values[0].text}
	err = query(ctx, q, matchSQL, values, func(kind, payload string) error {
		i, err := strconv.Atoi(payload)
		if err != nil || i < 0 || i >= len(texts) {
			return unreadableError(kind, payload)
		}
		matches[texts[i]] = f.operator == "~"
		return nil
	})
	if err != nil {
		return nil, markFilterError(fmt.Errorf("the filter %q: %w", termtext.Short(f.text), err))
	}
	return matches, nil
}

// textOf returns a value as text for comparisons: a context as JSON, nil as "".
func textOf(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case Context:
		return string(v)
	}
	return ""
}

// matchedPairs returns the pairs of matching.sql that match the filters.
func (r *reading) matchedPairs(ctx context.Context, q driver.Querier, filters []Filter) ([]Pair, error) {
	return matchHere(ctx, q, r.pairs(), filters, func(f Filter, p *Pair) any {
		a := f.attribute
		a.blocking = f.blocking
		return a.PairValue(p)
	})
}
