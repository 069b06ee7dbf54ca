package inspect

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// The .sql files name their parameters as psql's variables, such as :'pid', so
// that they run in psql; from Go they are passed by number, always as text.
var psqlVariable = regexp.MustCompile(`:'[a-z_0-9]+'`)

// bind turns psql's variables into Postgres' parameters, and finds their values.
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
