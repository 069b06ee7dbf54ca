package connect

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// A passwordFile is a libpq password file (PostgreSQL manual, 34.16 "The
// Password File").
type passwordFile struct {
	path  string
	lines []string
}

// readPasswordFile reads the password file that the settings name, or else the user's.
// A file that cannot be read counts as missing. warning reports a file that is ignored
// although it exists.
func readPasswordFile(v values, home string) (f passwordFile, warning string) {
	f.path = v["passfile"]
	if f.path == "" && home != "" {
		f.path = filepath.Join(home, passwordFileName)
	}
	info, err := os.Stat(f.path)
	if err != nil {
		return f, ""
	}
	switch {
	case !info.Mode().IsRegular():
		return f, fmt.Sprintf("the password file %s is ignored: it is not a regular file", f.path)
	case openToOthers(info):
		return f, fmt.Sprintf("the password file %s is ignored: others can read or write it; chmod 600 %[1]s", f.path)
	}
	text, err := os.ReadFile(f.path)
	if err != nil {
		return f, ""
	}
	f.lines = strings.Split(string(text), "\n")
	return f, ""
}

// find returns the password of the first line that matches.
func (f passwordFile) find(host, port, database, user string) (password string, ok bool) {
lines:
	for _, line := range f.lines {
		line = strings.TrimRight(line, "\r")
		if strings.HasPrefix(line, "#") {
			continue
		}
		for _, value := range []string{host, port, database, user} {
			if line, ok = cutField(line, value); !ok {
				continue lines
			}
		}
		return unescapePassword(line), true
	}
	return "", false
}

// cutField removes the first field from line, if it is value or a star. A backslash
// makes a colon or a backslash part of a field.
func cutField(line, value string) (rest string, ok bool) {
	if rest, ok := strings.CutPrefix(line, "*:"); ok {
		return rest, true
	}
	for i := 0; i < len(line); i++ {
		escaped := line[i] == '\\' && i+1 < len(line)
		if escaped {
			i++
		}
		if line[i] == ':' && !escaped {
			return line[i+1:], value == ""
		}
		if value == "" || value[0] != line[i] {
			return "", false
		}
		value = value[1:]
	}
	return "", false
}

// unescapePassword decodes the last field, which ends at a colon or the end of the line.
func unescapePassword(field string) string {
	var b strings.Builder
	for i := 0; i < len(field) && field[i] != ':'; i++ {
		if field[i] == '\\' && i+1 < len(field) {
			i++
		}
		b.WriteByte(field[i])
	}
	return b.String()
}
