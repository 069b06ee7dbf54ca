package connect

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/pglock-go/pglock/internal/lazyregexp"
)

// values are settings by keyword. An empty setting differs from a missing one: it hides
// the variable and the default.
type values map[string]string

// A Lookup looks up an environment variable, as os.LookupEnv does.
type Lookup func(name string) (value string, ok bool)

// A keyword is a setting of libpq, with its environment variable and its default.
type keyword struct{ name, variable, fallback string }

// keywords lists the settings of all versions of libpq (PostgreSQL manual, 34.1.2
// "Parameter Key Words" and 34.15 "Environment Variables").
var keywords = []keyword{
	{"service", "PGSERVICE", ""},
	{"servicefile", "PGSERVICEFILE", ""},
	{"user", "PGUSER", ""},
	{"password", "PGPASSWORD", ""},
	{"passfile", "PGPASSFILE", ""},
	{"channel_binding", "PGCHANNELBINDING", "prefer"},
	{"connect_timeout", "PGCONNECT_TIMEOUT", ""},
	{"dbname", "PGDATABASE", ""},
	{"host", "PGHOST", ""},
	{"hostaddr", "PGHOSTADDR", ""},
	{"port", "PGPORT", ""},
	{"client_encoding", "PGCLIENTENCODING", ""},
	{"options", "PGOPTIONS", ""},
	{"application_name", "PGAPPNAME", ""},
	{"fallback_application_name", "", ""},
	{"keepalives", "", ""},
	{"keepalives_idle", "", ""},
	{"keepalives_interval", "", ""},
	{"keepalives_count", "", ""},
	{"tcp_user_timeout", "", ""},
	{"sslmode", "PGSSLMODE", "prefer"},
	{"sslnegotiation", "PGSSLNEGOTIATION", "postgres"},
	{"sslcompression", "PGSSLCOMPRESSION", ""},
	{"sslcert", "PGSSLCERT", ""},
	{"sslkey", "PGSSLKEY", ""},
	{"sslcertmode", "PGSSLCERTMODE", "allow"},
	{"sslpassword", "", ""},
	{"sslrootcert", "PGSSLROOTCERT", ""},
	{"sslcrl", "PGSSLCRL", ""},
	{"sslcrldir", "PGSSLCRLDIR", ""},
	{"sslsni", "PGSSLSNI", "1"},
	{"sslkeylogfile", "", ""},
	{"ssl_min_protocol_version", "PGSSLMINPROTOCOLVERSION", "TLSv1.2"},
	{"ssl_max_protocol_version", "PGSSLMAXPROTOCOLVERSION", ""},
	{"requirepeer", "PGREQUIREPEER", ""},
	{"require_auth", "PGREQUIREAUTH", ""},
	{"gssencmode", "PGGSSENCMODE", "prefer"},
	{"krbsrvname", "PGKRBSRVNAME", ""},
	{"gsslib", "PGGSSLIB", ""},
	{"gssdelegation", "PGGSSDELEGATION", ""},
	{"replication", "", ""},
	{"target_session_attrs", "PGTARGETSESSIONATTRS", "any"},
	{"load_balance_hosts", "PGLOADBALANCEHOSTS", "disable"},
	{"min_protocol_version", "PGMINPROTOCOLVERSION", ""},
	{"max_protocol_version", "PGMAXPROTOCOLVERSION", ""},
	{"scram_client_key", "", ""},
	{"scram_server_key", "", ""},
	{"oauth_issuer", "", ""},
	{"oauth_client_id", "", ""},
	{"oauth_client_secret", "", ""},
	{"oauth_scope", "", ""},
}

// unsupported lists settings that are refused rather than ignored, because without them
// pglock would connect to another server, or less safely.
var unsupported = []string{
	"requirepeer", "sslcrl", "sslcrldir", "sslkeylogfile", "replication",
	"scram_client_key", "scram_server_key",
	"oauth_issuer", "oauth_client_id", "oauth_client_secret", "oauth_scope",
}

// choices lists the values of settings that have only a few.
var choices = map[string][]string{
	"channel_binding":      {"disable", "prefer", "require"},
	"sslmode":              {"disable", "allow", "prefer", "require", "verify-ca", "verify-full"},
	"sslnegotiation":       {"postgres", "direct"},
	"sslcertmode":          {"disable", "allow", "require"},
	"gssencmode":           {"disable", "prefer", "require"},
	"target_session_attrs": {"any", "read-write", "read-only", "primary", "standby", "prefer-standby"},
	"load_balance_hosts":   {"disable", "random"},
}

// serverVariables maps environment variables to the server settings that they set.
var serverVariables = map[string]string{"PGDATESTYLE": "datestyle", "PGTZ": "timezone", "PGGEQO": "geqo"}

// A SettingsError reports an error in the flags, the connection string, a file or the
// environment. It never contains a password.
type SettingsError struct{ Text string }

func (e *SettingsError) Error() string { return e.Text }

func settingsErrorf(format string, args ...any) error {
	return &SettingsError{Text: fmt.Sprintf("connection settings: "+format, args...)}
}

func isKeyword(name string) bool {
	return slices.ContainsFunc(keywords, func(k keyword) bool { return k.name == name })
}

// set stores a setting of a connection string.
func (v values) set(name, value string) error {
	if name == "requiressl" {
		name = "sslmode"
		if strings.HasPrefix(value, "1") {
			value = "require"
		} else {
			value = "prefer"
		}
	}
	if !isKeyword(name) {
		return unknownSetting(name)
	}
	v[name] = value
	return nil
}

var settingName = lazyregexp.New(`^[A-Za-z_][A-Za-z0-9_.]{0,62}$`)

// unknownSetting returns the error for an unknown keyword. If name does not look like a
// keyword, it is not shown: it may be a URI with its password, or half of a password.
func unknownSetting(name string) error {
	if !settingName().MatchString(name) {
		return settingsErrorf("expected a URI that begins with postgres://, or a key=value string")
	}
	return settingsErrorf("unknown setting %q; pass server settings in options, as in options='-c NAME=VALUE'", name)
}

// complete adds the settings of the service, the variables and the defaults. It records
// the place of each setting from a file in origins.
func (v values) complete(getenv Lookup, origins map[string]string) error {
	if err := v.addService(getenv, origins); err != nil {
		return err
	}
	for _, k := range keywords {
		if _, ok := v[k.name]; ok {
			continue
		}
		value, ok := "", false
		if k.variable != "" {
			value, ok = getenv(k.variable)
		}
		if require, _ := getenv("PGREQUIRESSL"); !ok && k.name == "sslmode" && strings.HasPrefix(require, "1") {
			value, ok = "require", true
		}
		if !ok && k.name == "sslmode" && v.getOr("sslrootcert", "PGSSLROOTCERT", getenv) == "system" {
			value, ok = "verify-full", true
		}
		if ok {
			v[k.name] = value
		} else if k.fallback != "" {
			v[k.name] = k.fallback
		}
		if ok && value != "" && slices.Contains(unsupported, k.name) {
			return settingsErrorf("pglock does not support %s: unset it", k.variable)
		}
	}
	return v.check()
}

// getOr returns a setting, or else its variable.
func (v values) getOr(name, variable string, getenv Lookup) string {
	value, ok := v[name]
	if !ok {
		value, _ = getenv(variable)
	}
	return value
}

// check returns an error for invalid and for unsupported settings.
func (v values) check() error {
	for name, value := range v {
		if strings.ContainsRune(value, 0) {
			return settingsErrorf("%s contains a NUL byte", name)
		}
	}
	for _, name := range unsupported {
		if v[name] != "" {
			return settingsErrorf("pglock does not support %s", name)
		}
	}
	for _, k := range keywords {
		if all, ok := choices[k.name]; ok && !slices.Contains(all, v[k.name]) {
			return settingsErrorf("%s is %q, but must be %s or %s", k.name, v[k.name], strings.Join(all[:len(all)-1], ", "), all[len(all)-1])
		}
	}
	if v["gssencmode"] == "require" {
		return settingsErrorf("pglock does not support GSSAPI encryption (gssencmode=require)")
	}
	if v["sslrootcert"] == "system" && v["sslmode"] != "verify-full" {
		return settingsErrorf("sslrootcert=system needs sslmode=verify-full, not %s", v["sslmode"])
	}
	if weak := []string{"disable", "allow", "prefer"}; v["sslnegotiation"] == "direct" && slices.Contains(weak, v["sslmode"]) {
		return settingsErrorf("sslnegotiation=direct needs sslmode=require or stricter, not %s", v["sslmode"])
	}
	_, _, err := v.tlsVersions()
	return err
}

// number returns a setting as a whole number, or 0 if it is missing.
func (v values) number(name string) (int, error) {
	text, ok := v[name]
	if !ok {
		return 0, nil
	}
	n, err := wholeNumber(text)
	if err != nil {
		return 0, settingsErrorf("%s is %q, but must be a whole number", name, text)
	}
	return n, nil
}

// wholeNumber parses a number as C's strtol does, with optional space around it.
func wholeNumber(text string) (int, error) {
	n, err := strconv.ParseInt(strings.Trim(text, space), 10, 32)
	return int(n), err
}

// space holds the ASCII characters for which C's isspace is true.
const space = " \t\n\v\f\r"
