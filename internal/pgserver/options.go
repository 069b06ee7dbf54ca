package pgserver

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/pglock-go/pglock/internal/lazyregexp"
)

// oldestMajor is the oldest major version that pglock works with.
const oldestMajor = 12

// Options describe the server to start. The zero value means a server of the newest
// available version, on a Unix socket.
type Options struct {
	// Major is the major version, such as 17. Zero means the newest.
	Major int

	// BinDir is the folder with postgres and initdb. If empty, it is searched for.
	BinDir string

	// CacheDir is the folder for fetched binaries and fresh data folders. If empty, it is
	// the default cache.
	CacheDir string

	// Settings are added to postgresql.conf, and override the defaults of this package.
	Settings map[string]string

	// HBA are lines of pg_hba.conf that precede the one that trusts everybody.
	HBA []string

	// TCP makes the server also listen on a free port of 127.0.0.1.
	TCP bool

	// KeepSessions makes CreateDatabase and DropDatabase keep their sessions, in another
	// database, for the next call. For a server with many databases this halves the cost
	// of one; Stop ends the sessions.
	KeepSessions bool

	// Database is the connection string of an existing server to use instead of a new
	// one. All other options but KeepSessions are then ignored.
	Database string

	// Log receives messages about slow steps, such as a download. It may be nil.
	Log io.Writer
}

// FromEnv returns the options set in the environment. The package comment lists the
// variables.
func FromEnv() (Options, error) {
	o := Options{
		BinDir:   os.Getenv("PGLOCK_TEST_POSTGRES_BIN"),
		Database: os.Getenv("PGLOCK_TEST_DATABASE"),
	}
	if v := os.Getenv("PGLOCK_TEST_POSTGRES"); v != "" {
		major, err := strconv.Atoi(v)
		if err != nil || major < oldestMajor {
			return Options{}, fmt.Errorf("PGLOCK_TEST_POSTGRES=%s is not a major version of at least %d, such as 17", v, oldestMajor)
		}
		o.Major = major
	}
	return o, nil
}

func (o Options) logf(format string, args ...any) {
	if o.Log != nil {
		fmt.Fprintf(o.Log, format+"\n", args...)
	}
}

func (o Options) validate() error {
	if o.Major != 0 && o.Major < oldestMajor {
		return fmt.Errorf("pgserver: major version %d is older than %d", o.Major, oldestMajor)
	}
	for name, value := range o.Settings {
		if !settingName().MatchString(name) {
			return fmt.Errorf("pgserver: %q is not the name of a setting", name)
		}
		if strings.ContainsAny(value, "\n\x00") {
			return fmt.Errorf("pgserver: the value of %s spans lines", name)
		}
		if slices.Contains([]string{"port", "listen_addresses", "unix_socket_directories", "hba_file"}, name) {
			return errors.New("pgserver: " + name + " cannot be set")
		}
	}
	return nil
}

var settingName = lazyregexp.New(`^[A-Za-z_][A-Za-z0-9_.]*$`)

// config returns the lines to append to postgresql.conf.
func (o Options) config(socket string, port int, hba string) string {
	listen := ""
	if o.TCP {
		listen = "127.0.0.1"
	}
	settings := map[string]string{
		"listen_addresses":        listen,
		"unix_socket_directories": socket,
		"port":                    strconv.Itoa(port),
		"hba_file":                hba,

		// Nothing needs to survive a crash of the machine.
		"fsync":              "off",
		"synchronous_commit": "off",
		"full_page_writes":   "off",
		"max_wal_size":       "256MB",

		"max_connections":           "100",
		"max_prepared_transactions": "20",
		"password_encryption":       "scram-sha-256", // the default of newer versions
		// A killed server must leave nothing outside its folder.
		"dynamic_shared_memory_type": "mmap",
		// The only zone that Postgres knows if the machine has no time zone database.
		"timezone":     "GMT",
		"log_timezone": "GMT",
	}
	for name, value := range o.Settings {
		settings[strings.ToLower(name)] = value
	}
	names := make([]string, 0, len(settings))
	for name := range settings {
		names = append(names, name)
	}
	slices.Sort(names)
	quote := strings.NewReplacer(`\`, `\\`, `'`, `''`)
	var b strings.Builder
	b.WriteString("\n# The throwaway server's own settings.\n")
	for _, name := range names {
		fmt.Fprintf(&b, "%s = '%s'\n", name, quote.Replace(settings[name]))
	}
	return b.String()
}
