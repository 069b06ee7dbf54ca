package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/internal/termtext"
)

// A Config is the content of a config file. Its zero value is that of an empty file.
type Config struct {
	Path string // of the file, "" if there is none
	From string // why this file was chosen, such as "PGLOCK_CONFIG"

	// Defaults apply if neither the command line nor a view sets a value. They set
	// only which database to read and how to show locks, never which locks.
	Defaults  View
	Databases []Database // by name
	Views     []View     // by name

	// Names are those of advisory locks. Postgres knows only their hash.
	Names []NamePattern
}

// A Database is a named database to connect to.
type Database struct {
	Name string
	Line int

	// ConnString is a URI, a key=value string or the name of a database.
	ConnString string

	// Settings are the connection settings, if the file lists them separately;
	// ConnString is then empty.
	Settings []Setting

	ReadOnly bool // the command ends no session of it
}

// A Setting is a connection setting of libpq, such as host or sslmode.
type Setting struct{ Name, Value string }

// A View selects locks and how they are shown. A value that it does not set is nil or
// empty.
type View struct {
	Name        string
	Line        int
	Description string
	Database    string // the name of a database in the file, or a value as for -d

	Tables             []string // only locks on any of them
	Blocking           *bool    // pairs instead of locks; to end sessions, the blockers
	Attributes         []string // to show
	BlockingAttributes []string // to show for pairs; Attributes if empty
	SessionAttributes  []string // to show for sessions; Attributes if empty
	Limit              *int     // how many to show, 0 for all
	Expanded           *bool    // each on several lines
	Output             string   // table, tsv, csv or json
	Yes                *bool    // end sessions without asking

	filters []inspect.Filter
	lines   map[string]int
}

// Filters returns the view's filters and tables as filters for inspect.Locks, or,
// with Blocking, for inspect.Blocked.
func (v View) Filters() []inspect.Filter {
	filters := slices.Clone(v.filters)
	if len(v.Tables) > 0 {
		filters = append(filters, inspect.On(v.Tables...))
	}
	return filters
}

// LineOf returns the line of the file that sets key, such as "limit", or 0 if none
// does.
func (v View) LineOf(key string) int { return v.lines[key] }

// IsBlocking reports whether the view is about pairs.
func (v View) IsBlocking() bool { return v.Blocking != nil && *v.Blocking }

// View returns the view with that name. Its error lists the views that exist.
func (c *Config) View(name string) (View, error) {
	for _, v := range c.Views {
		if v.Name == name {
			return v, nil
		}
	}
	var names []string
	for _, v := range c.Views {
		names = append(names, v.Name)
	}
	switch {
	case c.Path == "":
		return View{}, fmt.Errorf("config: there is no view %q, since there is no config file", name)
	case len(names) == 0:
		return View{}, fmt.Errorf("config: there is no view %q: %s has none", name, c.Path)
	}
	return View{}, fmt.Errorf("config: there is no view %q: %s has %s", name, c.Path, strings.Join(names, ", "))
}

// Database returns the database with that name.
func (c *Config) Database(name string) (Database, bool) {
	for _, d := range c.Databases {
		if d.Name == name {
			return d, true
		}
	}
	return Database{}, false
}

// An Error is an error in a config file.
type Error struct {
	Path string
	Line int // 0 if the error is not about a line
	Text string
}

// Error returns one line that is safe to show on a terminal. It shows nothing that
// may be a connection string.
func (e *Error) Error() string {
	if e.Line == 0 {
		return termtext.Line(fmt.Sprintf("%s: %s", e.Path, e.Text))
	}
	return termtext.Line(fmt.Sprintf("%s:%d: %s", e.Path, e.Line, e.Text))
}

const (
	// maxSize is far more than the size of any config file that a person writes.
	maxSize = 1 << 20

	// readTimeout is how long reading a pipe may take.
	readTimeout = 10 * time.Second
)

// Load reads a config file. With path "" it reads the first that exists:
// PGLOCK_CONFIG in the environment, pglock.yaml in the current directory, and
// pglock/config.yaml in the user's config directory (os.UserConfigDir). If none
// exists, the result is an empty Config without an error. If a named file does not
// exist, that is an error.
func Load(path string) (*Config, error) {
	from := "named"
	if path == "" {
		path, from = findFile()
	}
	if path == "" {
		return &Config{}, nil
	}
	data, err := readFile(path)
	if err != nil {
		return nil, readError(path, err)
	}
	if len(data) > maxSize {
		return nil, &Error{Path: path, Text: fmt.Sprintf("not a config file: it is larger than %d MiB", maxSize>>20)}
	}
	c, err := Parse(path, data)
	if err != nil {
		return nil, err
	}
	c.From = from
	return c, nil
}

// readFile reads a file, which may be a pipe, as with <(command) in a shell. It does not
// wait for another process to open the pipe, nor forever for its data.
func readFile(path string) ([]byte, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	_ = file.SetReadDeadline(time.Now().Add(readTimeout)) // files do not support or need one
	data, err := io.ReadAll(io.LimitReader(file, maxSize+1))
	if err != nil {
		return nil, err
	}
	if info, err := file.Stat(); err == nil && info.Mode()&fs.ModeNamedPipe != 0 && len(data) == 0 {
		return nil, errors.New("no process writes to this pipe")
	}
	return data, nil
}

func readError(path string, err error) error {
	var reason *fs.PathError
	if errors.As(err, &reason) {
		err = reason.Err
	}
	return &Error{Path: path, Text: "the config file cannot be read: " + err.Error()}
}

// Places returns the paths where Load looks for a file that is not named, in order.
func Places() []string {
	places := []string{"pglock.yaml"}
	if dir, err := os.UserConfigDir(); err == nil {
		places = append(places, filepath.Join(dir, "pglock", "config.yaml"))
	}
	return places
}

// findFile returns the path of the file to read and why it was chosen.
func findFile() (path, from string) {
	if path := os.Getenv("PGLOCK_CONFIG"); path != "" {
		return path, "PGLOCK_CONFIG"
	}
	for i, path := range Places() {
		if _, err := os.Stat(path); err == nil || !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
			return path, []string{"current folder", "user's config folder"}[i]
		}
	}
	return "", ""
}
