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

// cache is the folder that keeps fetched binaries and fresh data folders. What
// stands in it under its final name is whole: everything is made under a
// temporary name and renamed, and only by the process that holds the lock.
type cache struct{ dir string }

// openCache finds or makes the cache folder.
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

// cacheDirs are the places for the cache, best first. As root the server runs
// as another user, who cannot see into /root.
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

// makeDir makes a folder that others can read, whatever the umask.
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

// lock waits until no other process works on the cache, and returns the
// unlocking. Whoever holds the lock finds no leftovers of others.
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
			o.logf("another process prepares the server; waiting for it")
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

// temp makes a folder to prepare something in. Only for the holder of the lock.
func (c cache) temp() (string, error) {
	dir, err := os.MkdirTemp(c.dir, "tmp-")
	if err != nil {
		return "", err
	}
	return dir, os.Chmod(dir, 0o755)
}

// publish gives what was prepared its final name, after it has reached the
// disk, so that not even a power cut leaves half of it.
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
