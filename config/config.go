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

// A Config is what a config file says. Its zero value is that of an empty file.
type Config struct {
	Path string // of the file, "" when there is none
	From string // why this file: in words such as "PGLOCK_CONFIG"

	// Defaults hold where neither the command line nor a view says otherwise. It
	// has only what says where to look and how to show, never which locks.
	Defaults  View
	Databases []Database // by name
	Views     []View     // by name
}

// A Database is a name for what to connect to.
type Database struct {
	Name string
	Line int

	// ConnString is a URI, a key=value string or the name of a database.
	ConnString string

	// Settings are the settings one by one, if the file has them so; then there is
	// no ConnString.
	Settings []Setting
}

// A Setting is one of libpq's, such as host or sslmode.
type Setting struct{ Name, Value string }

// A View says which locks it is about and how they are shown. What it leaves open
// is nil or empty.
type View struct {
	Name        string
	Line        int
	Description string
	Database    string // the name of one of the databases of the file, or what -d takes

	Tables             []string // only locks on any of them
	Blocking           *bool    // pairs and not locks; the blockers, for who ends sessions
	Attributes         []string // to show
	BlockingAttributes []string // to show of pairs; those of Attributes if it has none
	Limit              *int     // how many to show, 0 for all
	Expanded           *bool    // each in lines of its own
	Output             string   // table, tsv, csv or json
	Yes                *bool    // end sessions without asking

	filters []inspect.Filter
	lines   map[string]int
}

// Filters are the filters that the view's filters and tables add up to, for
// inspect.Locks, or, with Blocking, for inspect.Blocked.
func (v View) Filters() []inspect.Filter {
	filters := slices.Clone(v.filters)
	if len(v.Tables) > 0 {
		filters = append(filters, inspect.On(v.Tables...))
	}
	return filters
}

// LineOf is the line of the file that says key, such as "limit"; 0 when none does.
func (v View) LineOf(key string) int { return v.lines[key] }

// IsBlocking reports whether the view is about pairs.
func (v View) IsBlocking() bool { return v.Blocking != nil && *v.Blocking }

// View finds a view. The error tells which there are.
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

// Database finds a database.
func (c *Config) Database(name string) (Database, bool) {
	for _, d := range c.Databases {
		if d.Name == name {
			return d, true
		}
	}
	return Database{}, false
}

// An Error is what is wrong with a file.
type Error struct {
	Path string
	Line int // 0 when no line is to blame
	Text string
}

// Error is one line that is safe to be shown on a terminal. It shows nothing of what
// may be a connection string.
func (e *Error) Error() string {
	if e.Line == 0 {
		return termtext.Line(fmt.Sprintf("%s: %s", e.Path, e.Text))
	}
	return termtext.Line(fmt.Sprintf("%s:%d: %s", e.Path, e.Line, e.Text))
}

const (
	// maxSize is far more than a config file has that a person wrote.
	maxSize = 1 << 20

	// readTimeout is how long a pipe in place of a file may take.
	readTimeout = 10 * time.Second
)

// Load reads a config file. With path "" it is the first that there is of:
// PGLOCK_CONFIG in the environment, pglock.yaml in the current folder, and
// pglock/config.yaml in the user's config folder (os.UserConfigDir). That none is
// there is no error, but that one is not there which was named is.
func Load(path string) (*Config, error) {
	from := "named"
	if path == "" {
		path, from = find()
	}
	if path == "" {
		return &Config{}, nil
	}
	data, err := read(path)
	if err != nil {
		return nil, cannotRead(path, err)
	}
	if len(data) > maxSize {
		return nil, &Error{Path: path, Text: fmt.Sprintf("it is no config file: it is larger than %d MiB", maxSize>>20)}
	}
	c, err := Parse(path, data)
	if err != nil {
		return nil, err
	}
	c.From = from
	return c, nil
}

// read reads a file, which may be a pipe, as with <(command) in a shell. It neither
// waits for somebody to open the other end of one, nor for ever for what comes out.
func read(path string) ([]byte, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	_ = file.SetReadDeadline(time.Now().Add(readTimeout)) // files have none, nor need one
	data, err := io.ReadAll(io.LimitReader(file, maxSize+1))
	if err != nil {
		return nil, err
	}
	if info, err := file.Stat(); err == nil && info.Mode()&fs.ModeNamedPipe != 0 && len(data) == 0 {
		return nil, errors.New("nobody writes to this pipe")
	}
	return data, nil
}

func cannotRead(path string, err error) error {
	var reason *fs.PathError
	if errors.As(err, &reason) {
		err = reason.Err
	}
	return &Error{Path: path, Text: "the config file cannot be read: " + err.Error()}
}

// Places are where Load looks for a file that nobody named, the first one first.
func Places() []string {
	places := []string{"pglock.yaml"}
	if dir, err := os.UserConfigDir(); err == nil {
		places = append(places, filepath.Join(dir, "pglock", "config.yaml"))
	}
	return places
}

// find is the file to read, and why that one.
func find() (path, from string) {
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
