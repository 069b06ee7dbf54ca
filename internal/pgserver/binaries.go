package pgserver

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pglock-go/pglock/internal/lazyregexp"
)

// Binaries are the programs of one version of Postgres.
type Binaries struct {
	Dir     string   // the folder with postgres and initdb
	Major   int      // such as 17
	Version string   // such as 17.10
	Env     []string // needed in their environment
}

// Find returns the binaries that match o, and fetches them if the machine does not have
// them. The package comment lists the places.
func Find(ctx context.Context, o Options) (Binaries, error) {
	f, err := newFinder(o)
	if err != nil {
		return Binaries{}, err
	}
	return f.find(ctx)
}

// A finder is a search for binaries.
type finder struct {
	Options
	id    identity
	cache cache
	// places returns the folders of this machine that may have binaries.
	places func() []string
	// lookPath finds the programs used for downloads.
	lookPath func(name string) (string, error)
}

func newFinder(o Options) (*finder, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	id, err := serverIdentity()
	if err != nil {
		return nil, err
	}
	c, err := openCache(o)
	if err != nil {
		return nil, err
	}
	return &finder{Options: o, id: id, cache: c, places: machinePlaces, lookPath: exec.LookPath}, nil
}

func (f *finder) find(ctx context.Context) (Binaries, error) {
	if f.BinDir != "" {
		bin, err := f.examine(ctx, f.BinDir)
		if err != nil {
			return Binaries{}, fmt.Errorf("pgserver: the folder has no usable server: %w", err)
		}
		if f.Major != 0 && bin.Major != f.Major {
			return Binaries{}, fmt.Errorf("pgserver: %s has Postgres %s, not %d", f.BinDir, bin.Version, f.Major)
		}
		return bin, nil
	}
	if bin, ok := f.newest(ctx, f.places()); ok {
		return bin, nil
	}
	if bin, ok := f.cached(ctx); ok {
		return bin, nil
	}
	return f.fetch(ctx)
}

// matches reports whether binaries have a usable version.
func (f *finder) matches(bin Binaries) bool {
	return bin.Major >= oldestMajor && (f.Major == 0 || bin.Major == f.Major)
}

// newest returns the newest matching binaries in dirs.
func (f *finder) newest(ctx context.Context, dirs []string) (best Binaries, ok bool) {
	seen := map[string]bool{}
	for _, dir := range dirs {
		dir, err := realDir(dir)
		if err != nil || seen[dir] {
			continue
		}
		seen[dir] = true
		bin, err := f.examine(ctx, dir)
		if err == nil && f.matches(bin) && (!ok || newer(bin.Version, best.Version)) {
			best, ok = bin, true
		}
	}
	return best, ok
}

// realDir returns the folder with the binaries after symbolic links:
// /usr/local/bin/postgres may be a link.
func realDir(dir string) (string, error) {
	path, err := filepath.EvalSymlinks(filepath.Join(dir, "postgres"))
	if err != nil {
		return "", err
	}
	return filepath.Dir(path), nil
}

var versionOutput = lazyregexp.New(`\(PostgreSQL\) ((\d+)[^ \n]*)`)

// examine runs the binaries in dir as the user that will run the server, and returns
// their version.
func (f *finder) examine(ctx context.Context, dir string) (Binaries, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	dir, err := filepath.Abs(dir)
	if err != nil {
		return Binaries{}, err
	}
	env := libraryEnv(dir)
	var version []string
	for _, name := range []string{"initdb", "postgres"} {
		out, err := f.id.run(ctx, env, nil, filepath.Join(dir, name), "--version")
		if err != nil {
			return Binaries{}, err
		}
		if version = versionOutput().FindStringSubmatch(out); version == nil {
			return Binaries{}, fmt.Errorf("%s --version printed %q", filepath.Join(dir, name), strings.TrimSpace(out))
		}
	}
	major, err := strconv.Atoi(version[2])
	if err != nil {
		return Binaries{}, err
	}
	return Binaries{Dir: dir, Major: major, Version: version[1], Env: env}, nil
}

var digits = lazyregexp.New(`\d+`)

// newer reports whether version a is newer than b. Versions are like 15.18 and 18beta1.
func newer(a, b string) bool {
	numbers := func(s string) (n []int) {
		for _, d := range digits().FindAllString(s, -1) {
			i, _ := strconv.Atoi(d) // only digits, and few
			n = append(n, i)
		}
		return n
	}
	return slices.Compare(numbers(a), numbers(b)) > 0
}

// machinePlaces returns the folders where Postgres usually is.
func machinePlaces() []string {
	var dirs []string
	for _, pattern := range []string{
		"/usr/lib/postgresql/*/bin",       // Debian, Ubuntu
		"/usr/pgsql-*/bin",                // the Postgres project's packages for Red Hat
		"/usr/lib/postgresql*/bin",        // SUSE
		"/usr/libexec/postgresql*",        // Alpine
		"/usr/local/pgsql/bin",            // built from source
		"/opt/homebrew/opt/postgres*/bin", // Homebrew on Apple's own chips
		"/usr/local/opt/postgres*/bin",    // and on Intel's
		"/home/linuxbrew/.linuxbrew/opt/postgres*/bin",
		"/Applications/Postgres.app/Contents/Versions/*/bin",
		"/Library/PostgreSQL/*/bin",
		"/opt/local/lib/postgresql*/bin", // MacPorts
	} {
		matches, _ := filepath.Glob(pattern) // fails only on a bad pattern
		dirs = append(dirs, matches...)
	}
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		if filepath.IsAbs(dir) {
			dirs = append(dirs, dir)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if out, err := exec.CommandContext(ctx, "pg_config", "--bindir").Output(); err == nil {
		dirs = append(dirs, strings.TrimSpace(string(out)))
	}
	return dirs
}
