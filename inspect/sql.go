package inspect

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// The .sql files name their parameters as psql's variables, such as :'pid', so
// that they run in psql; in the code they are passed by their number, in the
// order in which they first appear.
var psqlVariable = regexp.MustCompile(`:'[a-z_]+'`)

// parameters turns psql's variables into Postgres' parameters.
func parameters(sql string) string {
	var names []string
	return psqlVariable.ReplaceAllStringFunc(sql, func(name string) string {
		i := slices.Index(names, name)
		if i < 0 {
			i = len(names)
			names = append(names, name)
		}
		return "$" + strconv.Itoa(i+1)
	})
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
