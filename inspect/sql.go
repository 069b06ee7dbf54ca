package inspect

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// The .sql files name their parameters as psql's variables, such as :'pid', so
// that they run in psql; from Go they are passed by number, always as text.
var psqlVariable = regexp.MustCompile(`:'[a-z_0-9]+'`)

// A marker is a place in a template of SQL: its own text, which text takes the place of,
// or, with end, all from there to the text of end, which is cut out unless keep is set.
type marker struct {
	begin, end string
	text       string
	keep       bool
}

// fill returns a template with what its markers say. Each marker must be in it exactly
// once, whether anything is changed there or not: conditions that got lost would choose
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
				return "", fmt.Errorf("inspect: the template of this statement has the marker %q %d times, and not once: it is not run", text, n)
			}
		}
		s := span{from: strings.Index(template, m.begin), text: m.text}
		s.to = s.from + len(m.begin)
		if m.end != "" {
			if s.to = strings.Index(template, m.end) + len(m.end); s.to < s.from {
				return "", fmt.Errorf("inspect: the template of this statement has %q before %q: it is not run", m.end, m.begin)
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
			return "", errors.New("inspect: the markers in the template of this statement overlap: it is not run")
		}
		b.WriteString(template[end:s.from])
		b.WriteString(s.text)
		end = s.to
	}
	b.WriteString(template[end:])
	return b.String(), nil
}

// bind turns psql's variables into Postgres' parameters, and finds their values. A
// value that the statement does not have is an error as well: it would be a condition
// that is lost.
func bind(sql string, values map[string]string) (string, []any, error) {
	var names []string
	var args []any
	var err error
	bound := psqlVariable.ReplaceAllStringFunc(sql, func(variable string) string {
		name := variable[2 : len(variable)-1]
		i := slices.Index(names, name)
		if i < 0 {
			value, ok := values[name]
			if !ok && err == nil {
				err = fmt.Errorf("inspect: there is no value for %s", variable)
			}
			i = len(names)
			names, args = append(names, name), append(args, value)
		}
		return "$" + strconv.Itoa(i+1)
	})
	if err == nil && len(names) < len(values) {
		for name := range values {
			if !slices.Contains(names, name) {
				err = fmt.Errorf("inspect: the statement has no place for the value of :'%s'", name)
			}
		}
	}
	return bound, args, err
}

// oids is an array of numbers as Postgres reads it, such as {1,2}.
func oids(set map[uint32]struct{}) string {
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
