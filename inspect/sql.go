package inspect

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/pglock-go/pglock/internal/lazyregexp"
)

// The .sql files name their parameters as psql's variables, such as :'pid', so that
// they run in psql. Go passes them by number, always as text.
var psqlVariable = lazyregexp.New(`:'[a-z_0-9]+'`)

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

// bind replaces psql's variables with parameters and returns their values. A value
// that the statement does not use is an error too: a condition would be lost.
func bind(sql string, values map[string]string) (string, []any, error) {
	var names []string
	var args []any
	var err error
	bound := psqlVariable().ReplaceAllStringFunc(sql, func(variable string) string {
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
				err = fmt.Errorf("inspect: the statement does not use the value of :'%s'", name)
			}
		}
	}
	return bound, args, err
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
