package connect

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
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

// A SettingsError says what is wrong with the flags, the connection string or
// the environment. It never contains a password.
type SettingsError struct{ Text string }

func (e *SettingsError) Error() string { return e.Text }

func settingsErrorf(format string, args ...any) error {
	return &SettingsError{Text: fmt.Sprintf(format, args...)}
}

// Config is the configuration that the flags, the connection string, the
// service and the environment add up to. Where nothing else names the
// application, application does. getenv looks up variables that pgx does not
// read; those that pgx reads come from the process's own environment.
func (f Flags) Config(getenv func(string) string, application string) (*pgx.ConnConfig, error) {
	if err := f.validate(); err != nil {
		return nil, err
	}
	if err := refuseVariables(getenv); err != nil {
		return nil, err
	}
	dsn := f.connString()
	config, err := parse(dsn, getenv)
	if err != nil {
		return nil, err
	}
	if config.Database == "" && config.User != "" {
		// libpq's default is the user's name. .pgpass is searched by it, so it
		// must be known before.
		f.Database = withDefault(f.Database, "dbname", config.User)
		if config, err = parse(f.connString(), getenv); err != nil {
			return nil, err
		}
	}
	if config.Host == "" {
		return nil, settingsErrorf("no host to connect to")
	}
	if err := adapt(config); err != nil {
		return nil, err
	}
	if config.RuntimeParams["application_name"] == "" {
		config.RuntimeParams["application_name"] = application
	}
	return config, nil
}

func (f Flags) validate() error {
	for _, port := range strings.Split(f.Port, ",") {
		if port == "" {
			continue
		}
		if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
			return settingsErrorf("-p %q: a port is a number from 1 to 65535", f.Port)
		}
	}
	if f.Ask && f.NeverAsk {
		return settingsErrorf("-W and -w contradict each other")
	}
	return nil
}

// connString is all flags in one connection string. What the string in -d says
// itself overrides the other flags, as in psql.
func (f Flags) connString() string {
	s := f.Database
	switch {
	case isConnString(s):
	case s != "":
		s = "dbname=" + quote(s)
	}
	s = withDefault(s, "host", f.Host)
	s = withDefault(s, "port", f.Port)
	return withDefault(s, "user", f.User)
}

func isURI(s string) bool {
	return strings.HasPrefix(s, "postgres://") || strings.HasPrefix(s, "postgresql://")
}

// isConnString tells a connection string from the name of a database, as libpq
// does.
func isConnString(s string) bool { return isURI(s) || strings.Contains(s, "=") }

// withDefault adds a setting to a connection string, which wins if it has one.
func withDefault(s, key, value string) string {
	switch {
	case value == "":
		return s
	case !isURI(s):
		if s != "" && !isConnString(s) {
			s = "dbname=" + quote(s)
		}
		return key + "=" + quote(value) + " " + s // the last one counts
	case uriSays(s, key):
		return s
	case strings.Contains(s, "?"):
		return s + "&" + key + "=" + url.PathEscape(value)
	default:
		return s + "?" + key + "=" + url.PathEscape(value)
	}
}

// uriSays reports whether a URI has a setting, in whichever of its parts.
func uriSays(uri, key string) bool {
	_, rest, _ := strings.Cut(uri, "://")
	user := ""
	if i := strings.IndexAny(rest, "@/"); i >= 0 && rest[i] == '@' {
		user, _, _ = strings.Cut(rest[:i], ":")
		rest = rest[i+1:]
	}
	rest, query, _ := strings.Cut(rest, "?")
	hosts, database, _ := strings.Cut(rest, "/")
	for _, pair := range strings.Split(query, "&") {
		name, _, _ := strings.Cut(pair, "=")
		if name, err := url.PathUnescape(name); err == nil && (name == key || key == "dbname" && name == "database") {
			return true
		}
	}
	switch key {
	case "user":
		return user != ""
	case "dbname":
		return database != ""
	case "host":
		for _, host := range strings.Split(hosts, ",") {
			if host != "" && host[0] != ':' {
				return true
			}
		}
	case "port":
		for _, host := range strings.Split(hosts, ",") {
			if i := strings.LastIndexByte(host, ']'); strings.Contains(host[i+1:], ":") {
				return true
			}
		}
	}
	return false
}

// quote quotes a value of a key=value string.
func quote(value string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(value) + "'"
}

// parse lets pgx parse a connection string.
func parse(dsn string, getenv func(string) string) (*pgx.ConnConfig, error) {
	if file := systemServiceFile(getenv); file != "" {
		dsn = withDefault(dsn, "servicefile", file)
	}
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		return nil, &SettingsError{Text: "connection settings: " + explain(err)}
	}
	return config, nil
}

// explain is pgx' reason without the connection string that it repeats, which
// may have a password in it that pgx does not recognize as one.
func explain(err error) string {
	text := err.Error()
	var parse *pgconn.ParseConfigError
	if !errors.As(err, &parse) {
		return text
	}
	if i := strings.LastIndex(text, "`: "); i >= 0 {
		text = text[i+len("`: "):]
	}
	if strings.Contains(text, `missing "="`) || strings.Contains(text, "invalid keyword/value") {
		// pgx may quote a word of it, which may be the second one of a password.
		return "not a key=value string: a value with a space in it needs quotes"
	}
	return text
}

// systemServiceFile is the service file for all users, when there is none of the
// user's own: pgx looks for that one alone.
func systemServiceFile(getenv func(string) string) string {
	if getenv("PGSERVICEFILE") != "" {
		return ""
	}
	if home, err := os.UserHomeDir(); err == nil {
		if _, err := os.Stat(filepath.Join(home, ".pg_service.conf")); err == nil {
			return ""
		}
	}
	dir := getenv("PGSYSCONFDIR")
	if dir == "" {
		return ""
	}
	file := filepath.Join(dir, "pg_service.conf")
	if _, err := os.Stat(file); err != nil {
		return ""
	}
	return file
}
