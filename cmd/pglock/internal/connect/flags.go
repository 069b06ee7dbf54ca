package connect

import (
	"fmt"
	"strings"
)

// Flags holds the connection flags, which are psql's.
type Flags struct {
	Host     string // -h: a host, the directory of a Unix socket, or several with commas
	Port     string // -p
	User     string // -U
	Database string // -d: a name, a URI or a key=value string
	Ask      bool   // -W: prompt for a password before connecting
	NeverAsk bool   // -w: never prompt for one
}

// Target returns the target that results from the flags, the service, the variables that
// getenv looks up, and the user's files. application is the application_name if none of
// these has one.
func (f Flags) Target(getenv Lookup, application string) (*Target, error) {
	if f.Ask && f.NeverAsk {
		return nil, &SettingsError{"-W and -w cannot be combined"}
	}
	v := values{}
	for name, value := range map[string]string{"host": f.Host, "port": f.Port, "user": f.User} {
		if value != "" {
			v[name] = value
		}
	}
	switch {
	case IsConnString(f.Database):
		parsed, err := parseConnString(f.Database)
		if err != nil {
			return nil, err
		}
		for name, value := range parsed { // overrides the flags, as in psql
			v[name] = value
		}
	case f.Database != "":
		v["dbname"] = f.Database
	}
	if _, err := portNumber(f.Port); err != nil && v["port"] == f.Port && f.Port != "" && !strings.Contains(f.Port, ",") {
		return nil, &SettingsError{fmt.Sprintf("-p %q: a port must be a number from 1 to 65535", f.Port)}
	}
	t, err := newTarget(v, getenv, application)
	if err != nil {
		return nil, err
	}
	t.fromURI = isURI(f.Database)
	return t, nil
}
