package connect

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/pgxlock"
)

// A Target is a database to connect to, with the user and all settings. It is a
// [driver.Source].
type Target struct {
	User, Database string

	// Warnings lists what was ignored, and why.
	Warnings []string

	settings     values
	origins      map[string]string // the places of settings from files
	hosts        []host
	password     string // for all hosts, or "" if each has its own
	passfile     string // the file with the hosts' passwords
	certificates string // the folder of the user's certificates
	timeout      time.Duration
	base         *pgx.ConnConfig
	sockets      *Sockets
	fromURI      bool // the database, if given, is from a URI
}

var _ driver.Source = (*Target)(nil)

// newTarget resolves the settings to a Target. application is the application_name if
// the settings have none.
func newTarget(v values, getenv Lookup, application string) (*Target, error) {
	origins := map[string]string{}
	if err := v.complete(getenv, origins); err != nil {
		return nil, err
	}
	t := &Target{origins: origins, User: v["user"], Database: v["dbname"], password: v["password"], settings: v, certificates: certificates(getenv)}
	if t.User == "" {
		name, err := userName()
		if err != nil {
			return nil, settingsErrorf("no user is given, and the system user has no name: %v", err)
		}
		t.User = name
	}
	if t.Database == "" {
		t.Database = t.User
	}
	seconds, err := v.number("connect_timeout")
	if err != nil {
		return nil, err
	}
	if seconds > 0 {
		t.timeout = time.Duration(max(seconds, 2)) * time.Second // as libpq does it
	}
	if t.hosts, err = hostsOf(v); err != nil {
		return nil, err
	}
	if t.password == "" {
		t.findPasswords(settingsFolder(getenv))
	}
	t.base, err = t.baseConfig(getenv, application)
	return t, err
}

// findPasswords sets the hosts' passwords from the password file.
func (t *Target) findPasswords(home string) {
	file, warning := readPasswordFile(t.settings, home)
	if warning != "" {
		t.Warnings = append(t.Warnings, warning)
		return
	}
	t.passfile = file.path
	for i := range t.hosts {
		h := &t.hosts[i]
		h.password, h.found = file.find(h.inPasswordFile(), h.port, t.Database, t.User)
	}
}

// baseConfig returns the pgx configuration without a host.
func (t *Target) baseConfig(getenv Lookup, application string) (*pgx.ConnConfig, error) {
	// Set every setting that pgx would otherwise read from variables and files.
	fixed := values{
		"host": "localhost", "port": defaultPort, "user": "user", "database": "database", "password": "password",
		"passfile": "", "sslmode": "disable", "sslcert": "", "sslkey": "", "sslrootcert": "", "sslpassword": "", "sslsni": "1",
		"target_session_attrs": "any", "connect_timeout": "0",
	}
	for _, name := range []string{"sslcertmode", "sslnegotiation", "channel_binding", "require_auth", "min_protocol_version", "max_protocol_version", "krbsrvname"} {
		fixed[name] = t.settings[name]
	}
	var pairs []string
	for name, value := range fixed {
		pairs = append(pairs, name+"="+quote(value))
	}
	config, err := parseWithoutService(strings.Join(pairs, " "))
	if err != nil {
		return nil, err
	}
	config.User, config.Database = t.User, t.Database
	// pglock's text is UTF-8, so the server must send UTF-8.
	config.RuntimeParams = map[string]string{"client_encoding": "UTF8"}
	for variable, name := range serverVariables {
		if value, ok := getenv(variable); ok && !strings.EqualFold(value, "default") {
			config.RuntimeParams[name] = value
		}
	}
	if options := t.settings["options"]; options != "" {
		config.RuntimeParams["options"] = options
	}
	if name, ok := t.settings["application_name"]; ok {
		application = name
	}
	config.RuntimeParams["application_name"] = application
	for name, value := range config.RuntimeParams {
		if strings.ContainsRune(value, 0) {
			return nil, settingsErrorf("%s contains a NUL byte", name)
		}
	}
	return config, nil
}

// quote quotes a value of a key=value string.
func quote(value string) string {
	// A Replacer would allocate a table for each of the settings.
	return "'" + strings.ReplaceAll(strings.ReplaceAll(value, `\`, `\\`), `'`, `\'`) + "'"
}

// Hosts returns the hosts, their addresses if those are given, and the ports.
func (t *Target) Hosts() (names, addresses, ports string) {
	var all [2][]string
	for _, h := range t.hosts {
		all[0], all[1] = append(all[0], h.name), append(all[1], h.port)
	}
	return strings.Join(all[0], ","), t.settings["hostaddr"], strings.Join(all[1], ",")
}

// ShownDatabase returns the database's name for output. It hides a name from a URI that
// contains an @, since that may be the rest of a password.
func (t *Target) ShownDatabase() string {
	if t.fromURI && strings.Contains(t.Database, "@") {
		return "(not shown)"
	}
	return t.Database
}

// HasPassword reports whether a password was found for any of the hosts.
func (t *Target) HasPassword() bool {
	return t.password != "" || slices.ContainsFunc(t.hosts, func(h host) bool { return h.password != "" })
}

// Origin returns the place of a setting that is from a file, or "".
func (t *Target) Origin(setting string) string {
	if setting == "password" && t.password == "" && t.HasPassword() {
		return t.passfile
	}
	return t.origins[setting]
}

// Application returns the application_name.
func (t *Target) Application() string { return t.base.RuntimeParams["application_name"] }

// SetApplication sets the application_name, whatever the settings say.
func (t *Target) SetApplication(name string) { t.base.RuntimeParams["application_name"] = name }

// SetPassword sets the password for all hosts.
func (t *Target) SetPassword(password string) { t.password = password }

// LimitConnect sets how long each host may take to connect, unless connect_timeout sets
// it. It returns how long all hosts may take together.
func (t *Target) LimitConnect(d time.Duration) time.Duration {
	if t.timeout == 0 {
		t.timeout = d
	}
	return t.timeout*time.Duration(len(t.hosts)) + time.Second // for the statements after that
}

// Connect opens a connection. ctx covers only the opening.
func (t *Target) Connect(ctx context.Context) (conn *pgx.Conn, err error) {
	err = t.search(ctx, func(ctx context.Context, config *pgx.ConnConfig) error {
		var err error
		conn, err = pgx.ConnectConfig(ctx, config)
		return err
	})
	return conn, err
}

// Open opens a session. ctx covers only the opening.
func (t *Target) Open(ctx context.Context) (session driver.Session, err error) {
	err = t.search(ctx, func(ctx context.Context, config *pgx.ConnConfig) error {
		var err error
		session, err = pgxlock.Config(config).Open(ctx)
		return err
	})
	return session, err
}

// next is how the search goes on after a failure.
type next int

const (
	stop next = iota
	otherMode
	nextAddress
	nextHost
)

// search tries the hosts in turn until connect succeeds (PostgreSQL manual, 34.1.1.3
// "Specifying Multiple Hosts").
func (t *Target) search(ctx context.Context, connect func(context.Context, *pgx.ConnConfig) error) error {
	failed := &Error{User: t.User, Database: t.ShownDatabase()}
	attrs := []string{t.settings["target_session_attrs"]}
	if attrs[0] == "prefer-standby" {
		attrs = []string{"standby", "any"}
	}
	for _, attr := range attrs {
		for _, h := range t.hosts {
			s := &search{target: t, host: h, attr: attr, connect: connect, failed: failed}
			done, err := s.run(ctx)
			if done && err == nil {
				return nil
			}
			if done {
				failed.final = true
				return failed
			}
		}
	}
	return failed
}

// A search goes through the addresses of a host.
type search struct {
	target  *Target
	host    host
	attr    string // of target_session_attrs
	connect func(context.Context, *pgx.ConnConfig) error
	failed  *Error
}

// run tries the host's addresses. It reports whether the search is over.
func (s *search) run(ctx context.Context) (done bool, err error) {
	t, h := s.target, s.host
	port, err := portNumber(h.port)
	if err != nil {
		s.failed.add(failure{address: h.shown(), err: err})
		return port == 0, err // like libpq, go on if it is at least a number
	}
	h.port = strconv.Itoa(port)
	addresses, err := h.addresses(ctx, t.settings["load_balance_hosts"] == "random")
	if err != nil {
		s.failed.add(failure{address: h.label(), err: err})
		return ctx.Err() != nil, err
	}
	for _, a := range addresses {
		next, err := s.tryAddress(ctx, h, a)
		switch {
		case err == nil:
			return true, nil
		case next == stop:
			return true, err
		case next == nextHost:
			return false, err
		}
	}
	return false, nil
}

// tryAddress tries an address with TLS, without TLS, or both.
func (s *search) tryAddress(parent context.Context, h host, a address) (next, error) {
	t := s.target
	ctx := parent
	if t.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(parent, t.timeout)
		defer cancel()
	}
	modes := []bool{false}
	if a.network != "unix" {
		modes = t.settings.tlsModes()
	}
	var then next
	var err error
	for i, withTLS := range modes {
		r := &reply{}
		if err = s.try(ctx, h, a, withTLS, r); err == nil {
			return stop, nil
		}
		f := failure{address: a.label, err: err, timeout: t.timeout}
		if h.found && t.password == "" {
			f.passfile = t.passfile
		}
		s.failed.add(f)
		then = whatNext(err, withTLS, r)
		switch {
		case parent.Err() != nil:
			return stop, err
		case ctx.Err() != nil:
			return nextAddress, err
		case then == otherMode && i == len(modes)-1:
			return stop, err
		case then != otherMode:
			return then, err
		}
	}
	return then, err
}

// whatNext returns how to go on after a failed try.
func whatNext(err error, withTLS bool, r *reply) next {
	var refused *pgconn.PgError
	var dial *dialError
	var target *targetError
	switch {
	case errors.As(err, &dial):
		return nextAddress
	case errors.As(err, &target):
		return nextHost
	case errors.As(err, &refused) && refused.Code == "57P03": // the server is starting
		return nextHost
	case errors.As(err, &refused) && !r.authenticated.Load():
		return otherMode
	case withTLS && !r.greeted.Load(): // no TLS
		return otherMode
	}
	return stop
}

// try makes one try.
func (s *search) try(ctx context.Context, h host, a address, withTLS bool, r *reply) error {
	t := s.target
	dialer := &net.Dialer{}
	if a.network != "unix" {
		var err error
		if dialer, err = t.settings.dialer(); err != nil {
			return &dialError{err}
		}
	}
	config := t.base.Copy()
	config.Password = t.password
	if config.Password == "" {
		config.Password = h.password
	}
	r.hasPassword = config.Password != ""
	if withTLS {
		var err error
		if config.TLSConfig, err = t.settings.tlsConfig(t.certificates, h.name); err != nil {
			return err
		}
	}
	// The address that pgx sees does not matter: DialFunc dials a.target.
	config.LookupFunc = func(context.Context, string) ([]string, error) { return []string{"127.0.0.1"}, nil }
	config.DialFunc = func(ctx context.Context, _, _ string) (net.Conn, error) {
		conn, err := dialer.DialContext(ctx, a.network, a.target)
		if err != nil {
			return nil, &dialError{err}
		}
		t.sockets.add(conn)
		return conn, nil
	}
	config.BuildFrontend = func(in io.Reader, out io.Writer) *pgproto3.Frontend {
		return pgproto3.NewFrontend(r.watch(in, out))
	}
	if s.attr != "any" {
		config.ValidateConnect = func(ctx context.Context, conn *pgconn.PgConn) error { return checkTarget(ctx, conn, s.attr) }
	}
	return s.connect(ctx, config)
}
