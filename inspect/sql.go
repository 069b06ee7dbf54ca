package inspect

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/pglock-go/pglock/internal/sqltext"
)

// A marker is a place in a template of SQL. Its text replaces begin, or, if end is
// set, everything from begin to end is removed unless keep is set.
type marker struct {
	begin, end string
	text       string
	keep       bool
}

// fill applies markers to a template. Each marker must occur exactly once, even if it
// changes nothing there: if conditions got lost, the statement would select
// everything.
func fill(template string, markers ...marker) (string, error) {
	type span struct {
		from, to int
		text     string
	}
	var spans []span
	for _, m := range markers {
		for _, text := range []string{m.begin, m.end} {
			if n := strings.Count(template, text); text != "" && n != 1 {
				return "", fmt.Errorf("inspect: the SQL template has the marker %q %d times, want once: not run", text, n)
			}
		}
		s := span{from: strings.Index(template, m.begin), text: m.text}
		s.to = s.from + len(m.begin)
		if m.end != "" {
			if s.to = strings.Index(template, m.end) + len(m.end); s.to < s.from {
				return "", fmt.Errorf("inspect: the SQL template has %q before %q: not run", m.end, m.begin)
			}
		}
		if !m.keep {
			spans = append(spans, s)
		}
	}
	slices.SortFunc(spans, func(a, b span) int { return a.from - b.from })
	var b strings.Builder
	end := 0
	for _, s := range spans {
		if s.from < end {
			return "", errors.New("inspect: the markers in the SQL template overlap: not run")
		}
		b.WriteString(template[end:s.from])
		b.WriteString(s.text)
		end = s.to
	}
	b.WriteString(template[end:])
	return b.String(), nil
}

// variableRunes are the characters of the names of parameters.
const variableRunes = "abcdefghijklmnopqrstuvwxyz0123456789_"

// bind replaces psql's variables, such as :'pid', with numbered parameters, and returns
// their values, always as text. The .sql files have variables so that they run in psql.
// A value that the statement does not use is an error too: a condition would be lost.
func bind(sql string, values map[string]string) (string, []any, error) {
	var b strings.Builder
	var names []string
	var args []any
	var err error
	for {
		before, rest, found := strings.Cut(sql, ":'")
		b.WriteString(before)
		if !found {
			break
		}
		name, after, closed := strings.Cut(rest, "'")
		if !closed || name == "" || strings.Trim(name, variableRunes) != "" {
			b.WriteString(":'")
			sql = rest
			continue
		}
		i := slices.Index(names, name)
		if i < 0 {
			value, ok := values[name]
			if !ok && err == nil {
				err = fmt.Errorf("inspect: there is no value for :'%s'", name)
			}
			i = len(names)
			names, args = append(names, name), append(args, value)
		}
		b.WriteString("$" + strconv.Itoa(i+1))
		sql = after
	}
	if err == nil && len(names) < len(values) {
		for name := range values {
			if !slices.Contains(names, name) {
				err = fmt.Errorf("inspect: the statement does not use the value of :'%s'", name)
			}
		}
	}
	return b.String(), args, err
}

// inline returns a statement with its arguments, which bind made, as constants.
func inline(bound string, args []any) string {
	texts := make([]string, len(args))
	for i, arg := range args {
		texts[i], _ = arg.(string)
	}
	return sqltext.Inline(strings.TrimSpace(bound), texts...)
}

// pidArray returns an array of PIDs as Postgres reads it, such as {1,2}.
func pidArray(pids []int32) string {
	list := make([]string, len(pids))
	for i, pid := range pids {
		list[i] = strconv.FormatInt(int64(pid), 10)
	}
	return "{" + strings.Join(list, ",") + "}"
}

// oidArray returns an array of numbers as Postgres reads it, such as {1,2}.
func oidArray(set map[uint32]struct{}) string {
	var b strings.Builder
	b.WriteByte('{')
	for oid := range set {
		if b.Len() > 1 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.FormatUint(uint64(oid), 10))
	}
	b.WriteByte('}')
	return b.String()
}
