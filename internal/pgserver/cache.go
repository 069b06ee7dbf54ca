package pgserver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"time"
)

// A cache is the folder for fetched binaries and fresh data folders. Everything under a
// final name is complete: it is created under a temporary name by the process that holds
// the lock, and renamed.
type cache struct{ dir string }

// openCache finds or creates the cache folder.
func openCache(o Options) (cache, error) {
	if o.CacheDir != "" {
		dir, err := filepath.Abs(o.CacheDir)
		if err != nil {
			return cache{}, err
		}
		return cache{dir}, makeDir(dir)
	}
	var failures []error
	for _, dir := range cacheDirs() {
		err := makeDir(dir)
		if err == nil {
			err = checkOwner(dir)
		}
		if err == nil {
			return cache{dir}, nil
		}
		failures = append(failures, err)
	}
	return cache{}, fmt.Errorf("pgserver: no folder to cache servers in; set HOME or XDG_CACHE_HOME to a folder that can be written to: %w", errors.Join(failures...))
}

// cacheDirs returns the candidates for the cache, best first. If the user is root, the
// server runs as another user, who cannot read /root.
func cacheDirs() []string {
	var dirs []string
	if os.Geteuid() == 0 {
		dirs = append(dirs, "/var/cache/pglock")
	} else {
		if dir, err := os.UserCacheDir(); err == nil {
			dirs = append(dirs, filepath.Join(dir, "pglock"))
		}
		if u, err := user.Current(); err == nil && filepath.IsAbs(u.HomeDir) {
			dirs = append(dirs, filepath.Join(u.HomeDir, ".cache", "pglock"))
		}
	}
	name := "pglock-cache-" + strconv.Itoa(os.Geteuid())
	return append(dirs, filepath.Join("/var/tmp", name), filepath.Join(os.TempDir(), name))
}

// makeDir creates a folder that others can read, regardless of the umask.
func makeDir(dir string) error {
	if info, err := os.Stat(dir); err == nil && info.IsDir() {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return nil
		}
		return err
	}
	return os.Chmod(dir, 0o755)
}

// lock waits until no other process works on the cache, removes leftovers of other
// processes, and returns a function to unlock it.
func (c cache) lock(ctx context.Context, o Options) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(c.dir, "lock"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	waits := 0
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for {
		ok, err := lockFile(f)
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("pgserver: locking %s: %w", f.Name(), err)
		}
		if ok {
			break
		}
		if waits++; waits == 20 { // a second
			o.logf("waiting for another process that prepares the server")
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("pgserver: waiting for the lock on %s: %w", f.Name(), context.Cause(ctx))
		case <-ticker.C:
		}
	}
	if leftovers, err := filepath.Glob(filepath.Join(c.dir, "tmp-*")); err == nil {
		for _, dir := range leftovers {
			os.RemoveAll(dir)
		}
	}
	return func() { f.Close() }, nil
}

// temp creates a temporary folder. The caller must hold the lock.
func (c cache) temp() (string, error) {
	dir, err := os.MkdirTemp(c.dir, "tmp-")
	if err != nil {
		return "", err
	}
	return dir, os.Chmod(dir, 0o755)
}

// publish syncs prepared to disk and renames it to final, so that not even a power
// failure leaves it incomplete.
func (c cache) publish(prepared, final string) error {
	if err := makeDir(filepath.Dir(final)); err != nil {
		return err
	}
	err := filepath.WalkDir(prepared, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !(entry.IsDir() || entry.Type().IsRegular()) {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		return f.Sync()
	})
	if err != nil {
		return err
	}
	if err := os.RemoveAll(final); err != nil {
		return err
	}
	return os.Rename(prepared, final)
}
