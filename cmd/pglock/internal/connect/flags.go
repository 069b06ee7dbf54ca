package connect

import (
	"fmt"
	"strings"
)

// Flags are the connection flags, as psql has them.
type Flags struct {
	Host     string // -h: a host, a folder of a Unix socket, or several with commas
	Port     string // -p
	User     string // -U
	Database string // -d: a name, a URI or a key=value string
	Ask      bool   // -W: ask for a password before connecting
	NeverAsk bool   // -w: never ask for one
}

// Target returns what the flags, the service, the variables that getenv looks up, and
// the user's files add up to. If nothing else names the application, application does.
func (f Flags) Target(getenv Lookup, application string) (*Target, error) {
	if f.Ask && f.NeverAsk {
		return nil, &SettingsError{"-W and -w contradict each other"}
	}
	v := values{}
	for name, value := range map[string]string{"host": f.Host, "port": f.Port, "user": f.User} {
		if value != "" {
			v[name] = value
		}
	}
	switch {
	case isConnString(f.Database):
		said, err := parseConnString(f.Database)
		if err != nil {
			return nil, err
		}
		for name, value := range said { // which overrides the flags, as in psql
			v[name] = value
		}
	case f.Database != "":
		v["dbname"] = f.Database
	}
	if _, err := portNumber(f.Port); err != nil && v["port"] == f.Port && f.Port != "" && !strings.Contains(f.Port, ",") {
		return nil, &SettingsError{fmt.Sprintf("-p %q: a port is a number from 1 to 65535", f.Port)}
	}
	t, err := newTarget(v, getenv, application)
	if err != nil {
		return nil, err
	}
	t.fromURI = isURI(f.Database)
	return t, nil
}
