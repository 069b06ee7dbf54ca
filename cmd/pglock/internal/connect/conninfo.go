package connect

import "strings"

// IsConnString reports whether s is a connection string rather than a database name.
func IsConnString(s string) bool { return isURI(s) || strings.Contains(s, "=") }

// parseConnString reads a URI or a key=value string.
func parseConnString(s string) (values, error) {
	if strings.ContainsRune(s, 0) {
		return nil, settingsErrorf("the connection string contains a NUL byte")
	}
	if isURI(s) {
		return parseURI(s)
	}
	return parsePairs(s)
}

// parsePairs reads a key=value string (PostgreSQL manual, 34.1.1.1 "Keyword/Value
// Connection Strings"). If a setting is repeated, the last one counts.
func parsePairs(s string) (values, error) {
	v := values{}
	for {
		s = strings.TrimLeft(s, space)
		if s == "" {
			return v, nil
		}
		end := strings.IndexAny(s, "="+space)
		if end < 0 {
			end = len(s)
		}
		name := s[:end]
		rest, ok := strings.CutPrefix(strings.TrimLeft(s[end:], space), "=")
		if !ok {
			// The word is not shown: it may be part of a password.
			return nil, settingsErrorf("not a key=value string: a value with spaces needs quotes")
		}
		value, rest, ok := cutValue(strings.TrimLeft(rest, space))
		if !ok {
			return nil, settingsErrorf("not a key=value string: a closing quote is missing")
		}
		if err := v.set(name, value); err != nil {
			return nil, err
		}
		s = rest
	}
}

// cutValue splits s after its first value, which may be quoted. ok is false if the
// closing quote is missing.
func cutValue(s string) (value, rest string, ok bool) {
	quoted := strings.HasPrefix(s, "'")
	if quoted {
		s = s[1:]
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\':
			if i++; i < len(s) {
				b.WriteByte(s[i])
			}
		case quoted && c == '\'', !quoted && strings.IndexByte(space, c) >= 0:
			return b.String(), s[i+1:], true
		default:
			b.WriteByte(c)
		}
	}
	return b.String(), "", !quoted
}
