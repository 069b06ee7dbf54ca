package connect

import (
	"regexp"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// What libpq knows and pgx does not (PostgreSQL manual, 34.1.2 "Parameter Key
// Words"). pgx would send it to the server as a setting, which then refuses the
// session with a puzzling message.

// harmless settings are dropped: they tune how libpq works inside, or ask for
// something that pgx does in its own way.
var harmless = []string{
	"keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count",
	"tcp_user_timeout", "sslcompression", "gsslib", "gssdelegation", "load_balance_hosts",
}

// unsupported settings say whom to connect to or how safely: without them the
// session would not be the one that was asked for.
var unsupported = []string{
	"hostaddr", "requirepeer", "sslcrl", "sslcrldir", "replication",
	"ssl_min_protocol_version", "ssl_max_protocol_version",
	"scram_client_key", "scram_server_key", "oauth_issuer", "oauth_client_id",
}

// unsupportedVariables are the same, as variables that pgx does not read.
var unsupportedVariables = []string{
	"PGHOSTADDR", "PGREQUIREPEER", "PGSSLCRL", "PGSSLCRLDIR",
	"PGSSLMINPROTOCOLVERSION", "PGSSLMAXPROTOCOLVERSION",
}

// settingName is what a setting of the server's can be called. What is called like a
// password is none, in whatever case: it would be sent to the server, which logs it.
var settingName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_$.]*$`)

func refuseVariables(getenv func(string) string) error {
	for _, name := range unsupportedVariables {
		if getenv(name) != "" {
			return settingsErrorf("%s is set, which pglock does not support: unset it", name)
		}
	}
	if getenv("PGGSSENCMODE") == "require" {
		return settingsErrorf("PGGSSENCMODE=require: pglock does not support GSSAPI encryption")
	}
	return nil
}

// adapt makes of libpq's settings what pgx can use.
func adapt(config *pgx.ConnConfig) error {
	params := config.RuntimeParams
	for name, value := range params {
		if !settingName.MatchString(name) {
			// It may be a URI with its password, or half of a password, so it is not shown.
			return settingsErrorf("connection settings: neither a URI, which begins with postgres://, nor a key=value string")
		}
		if strings.ContainsRune(value, 0) || strings.ContainsRune(name, 0) {
			return settingsErrorf("connection settings: %s has a NUL byte in it", strings.ReplaceAll(name, "\x00", "?"))
		}
		switch lower := strings.ToLower(name); {
		case strings.Contains(lower, "passw") || strings.Contains(lower, "secret"):
			return settingsErrorf("connection settings: there is no setting %q", name)
		case slices.Contains(harmless, name):
			delete(params, name)
		case slices.Contains(unsupported, name):
			return settingsErrorf("connection settings: pglock does not support %s", name)
		}
	}
	for name, value := range map[string]string{"user": config.User, "database": config.Database, "password": config.Password} {
		if strings.ContainsRune(value, 0) {
			return settingsErrorf("connection settings: the %s has a NUL byte in it", name)
		}
	}
	if params["gssencmode"] == "require" {
		return settingsErrorf("connection settings: pglock does not support GSSAPI encryption (gssencmode=require)")
	}
	delete(params, "gssencmode")

	if fallback := params["fallback_application_name"]; params["application_name"] == "" {
		params["application_name"] = fallback
	}
	delete(params, "fallback_application_name")

	// All text is UTF-8 here, and so must be what the server sends.
	params["client_encoding"] = "UTF8"
	return nil
}
