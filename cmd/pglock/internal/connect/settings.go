package connect

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// values are settings by keyword. One that is empty is not the same as one that is
// missing: it hides the variable and the default.
type values map[string]string

// A Lookup returns a variable of the environment, as os.LookupEnv does.
type Lookup func(name string) (value string, ok bool)

// A keyword is a setting that libpq knows, the variable that stands in for it, and
// its default.
type keyword struct{ name, variable, fallback string }

// keywords are those of libpq (PostgreSQL manual, 34.1.2 "Parameter Key Words" and
// 34.15 "Environment Variables"), of any version.
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

// unsupported settings say whom to connect to or how safely: without them the
// session would not be the one that was asked for.
var unsupported = []string{
	"requirepeer", "sslcrl", "sslcrldir", "sslkeylogfile", "replication",
	"scram_client_key", "scram_server_key",
	"oauth_issuer", "oauth_client_id", "oauth_client_secret", "oauth_scope",
}

// choices are the values of settings that have few.
var choices = map[string][]string{
	"channel_binding":      {"disable", "prefer", "require"},
	"sslmode":              {"disable", "allow", "prefer", "require", "verify-ca", "verify-full"},
	"sslnegotiation":       {"postgres", "direct"},
	"sslcertmode":          {"disable", "allow", "require"},
	"gssencmode":           {"disable", "prefer", "require"},
	"target_session_attrs": {"any", "read-write", "read-only", "primary", "standby", "prefer-standby"},
	"load_balance_hosts":   {"disable", "random"},
}

// serverVariables are variables that set something in the session.
var serverVariables = map[string]string{"PGDATESTYLE": "datestyle", "PGTZ": "timezone", "PGGEQO": "geqo"}

// A SettingsError says what is wrong with the flags, the connection string, a file
// or the environment. It never contains a password.
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
		return unknown(name)
	}
	v[name] = value
	return nil
}

var settingName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.]{0,62}$`)

// unknown refuses a keyword. One that does not look like one may be a URI with its
// password, or half of a password, so it is not shown.
func unknown(name string) error {
	if !settingName.MatchString(name) {
		return settingsErrorf("neither a URI, which begins with postgres://, nor a key=value string")
	}
	return settingsErrorf("there is no setting %q; settings of the server go into options, as in options='-c NAME=VALUE'", name)
}

// complete adds what the service, the variables and the defaults say. getenv looks up
// variables; origins gets the place of what a file says.
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
		if !ok && k.name == "sslmode" && v.of("sslrootcert", "PGSSLROOTCERT", getenv) == "system" {
			value, ok = "verify-full", true
		}
		if ok {
			v[k.name] = value
		} else if k.fallback != "" {
			v[k.name] = k.fallback
		}
		if ok && value != "" && slices.Contains(unsupported, k.name) {
			return settingsErrorf("%s is set, which pglock does not support: unset it", k.variable)
		}
	}
	return v.check()
}

// of returns a setting or the variable that stands in for it.
func (v values) of(name, variable string, getenv Lookup) string {
	value, ok := v[name]
	if !ok {
		value, _ = getenv(variable)
	}
	return value
}

// check refuses what is wrong and what pglock does not support.
func (v values) check() error {
	for name, value := range v {
		if strings.ContainsRune(value, 0) {
			return settingsErrorf("%s has a NUL byte in it", name)
		}
	}
	for _, name := range unsupported {
		if v[name] != "" {
			return settingsErrorf("pglock does not support %s", name)
		}
	}
	for _, k := range keywords {
		if all, ok := choices[k.name]; ok && !slices.Contains(all, v[k.name]) {
			return settingsErrorf("%s is %q, and must be %s or %s", k.name, v[k.name], strings.Join(all[:len(all)-1], ", "), all[len(all)-1])
		}
	}
	if v["gssencmode"] == "require" {
		return settingsErrorf("pglock does not support GSSAPI encryption (gssencmode=require)")
	}
	if v["sslrootcert"] == "system" && v["sslmode"] != "verify-full" {
		return settingsErrorf("sslrootcert=system needs sslmode=verify-full, and not %s", v["sslmode"])
	}
	if weak := []string{"disable", "allow", "prefer"}; v["sslnegotiation"] == "direct" && slices.Contains(weak, v["sslmode"]) {
		return settingsErrorf("sslnegotiation=direct needs sslmode=require or stricter, and not %s", v["sslmode"])
	}
	_, _, err := v.tlsVersions()
	return err
}

// number returns a setting that is a whole number, 0 if it is missing.
func (v values) number(name string) (int, error) {
	text, ok := v[name]
	if !ok {
		return 0, nil
	}
	n, err := wholeNumber(text)
	if err != nil {
		return 0, settingsErrorf("%s is a whole number, which %q is not", name, text)
	}
	return n, nil
}

// wholeNumber reads a number as C's strtol does, with space around it.
func wholeNumber(text string) (int, error) {
	n, err := strconv.ParseInt(strings.Trim(text, space), 10, 32)
	return int(n), err
}

// space is what C's isspace says of ASCII.
const space = " \t\n\v\f\r"
