package connect

import "strings"

// isConnString tells a connection string from the name of a database.
func isConnString(s string) bool { return isURI(s) || strings.Contains(s, "=") }

// parseConnString reads a URI or a key=value string.
func parseConnString(s string) (values, error) {
	if strings.ContainsRune(s, 0) {
		return nil, settingsErrorf("the connection string has a NUL byte in it")
	}
	if isURI(s) {
		return parseURI(s)
	}
	return parsePairs(s)
}

// parsePairs reads a key=value string (PostgreSQL manual, 34.1.1.1 "Keyword/Value
// Connection Strings"). Of a setting that is there twice the last one counts.
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
			// The word is not shown: it may be the second one of a password.
			return nil, settingsErrorf("not a key=value string: a value with a space in it needs quotes")
		}
		value, rest, ok := cutValue(strings.TrimLeft(rest, space))
		if !ok {
			return nil, settingsErrorf("not a key=value string: there is no end to the quotes")
		}
		if err := v.set(name, value); err != nil {
			return nil, err
		}
		s = rest
	}
}

// cutValue cuts a value off, which may be quoted. It is not ok without the second
// quote.
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
