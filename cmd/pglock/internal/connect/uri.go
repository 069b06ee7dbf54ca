package connect

import (
	"encoding/hex"
	"strings"
)

func isURI(s string) bool {
	return strings.HasPrefix(s, "postgres://") || strings.HasPrefix(s, "postgresql://")
}

// parseURI reads a URI (PostgreSQL manual, 34.1.1.2 "Connection URIs"). Package net/url
// cannot parse it: there may be several hosts, and the user ends at the first @ or /.
func parseURI(uri string) (values, error) {
	v := values{}
	// put skips empty parts, so that the environment variable applies.
	put := func(name, text string) error {
		if text == "" {
			return nil
		}
		value, err := unescape(text)
		if err != nil {
			return err
		}
		return v.set(name, value)
	}
	_, rest, _ := strings.Cut(uri, "://")
	if i := strings.IndexAny(rest, "@/"); i >= 0 && rest[i] == '@' {
		user, password, _ := strings.Cut(rest[:i], ":")
		rest = rest[i+1:]
		if err := put("user", user); err != nil {
			return nil, err
		}
		if err := put("password", password); err != nil {
			return nil, err
		}
	}
	hosts, ports, rest, err := cutHosts(rest)
	if err != nil {
		return nil, err
	}
	path, query, _ := strings.Cut(rest, "?")
	if err := put("host", hosts); err != nil {
		return nil, err
	}
	if err := put("port", ports); err != nil {
		return nil, err
	}
	if err := put("dbname", strings.TrimPrefix(path, "/")); err != nil {
		return nil, err
	}
	return v, v.addQuery(query)
}

// cutHosts splits s into hosts and ports, each a list with commas, and the rest, which
// is empty or begins with / or ?.
func cutHosts(s string) (hosts, ports, rest string, err error) {
	for {
		end := strings.IndexAny(s, ":/?,")
		if strings.HasPrefix(s, "[") {
			i := strings.IndexByte(s, ']')
			switch {
			case i < 0:
				return "", "", "", settingsErrorf("the URI has a [ without a ]")
			case i == 1:
				return "", "", "", settingsErrorf("the URI has an empty IPv6 address, []")
			case i+1 < len(s) && !strings.ContainsRune(":/?,", rune(s[i+1])):
				return "", "", "", settingsErrorf("the URI needs : or / after the ] of an IPv6 address")
			}
			hosts += s[1:i]
			s = s[i+1:]
		} else {
			if end < 0 {
				end = len(s)
			}
			hosts += s[:end]
			s = s[end:]
		}
		if strings.HasPrefix(s, ":") {
			end := strings.IndexAny(s, "/?,")
			if end < 0 {
				end = len(s)
			}
			ports += s[1:end]
			s = s[end:]
		}
		if !strings.HasPrefix(s, ",") {
			return hosts, ports, s, nil
		}
		hosts, ports, s = hosts+",", ports+",", s[1:]
	}
}

// addQuery adds the settings of a URI's query. Its errors, like all others here, do not
// show text that may be a password.
func (v values) addQuery(query string) error {
	for query != "" {
		var pair string
		pair, query, _ = strings.Cut(query, "&")
		name, value, ok := strings.Cut(pair, "=")
		if !ok || strings.Contains(value, "=") {
			return settingsErrorf("after the ? of a URI, settings are written name=value and separated by &")
		}
		name, err := unescape(name)
		if err != nil {
			return err
		}
		if value, err = unescape(value); err != nil {
			return err
		}
		if name == "ssl" && value == "true" { // as JDBC spells it
			name, value = "sslmode", "require"
		}
		if err := v.set(name, value); err != nil {
			return err
		}
	}
	return nil
}

// unescape decodes what is percent-encoded. A plus stands for itself.
func unescape(s string) (string, error) {
	var b strings.Builder
	for {
		before, after, ok := strings.Cut(s, "%")
		b.WriteString(before)
		if !ok {
			return b.String(), nil
		}
		if len(after) < 2 {
			return "", errPercent
		}
		c, err := hex.DecodeString(after[:2])
		if err != nil {
			return "", errPercent
		}
		if c[0] == 0 {
			return "", settingsErrorf("the URI contains %%00, which is not allowed in a setting")
		}
		b.Write(c)
		s = after[2:]
	}
}

var errPercent = settingsErrorf("the URI has invalid percent-encoding: %% must be followed by two hexadecimal digits; write %% itself as %%25")
