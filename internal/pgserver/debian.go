package pgserver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/pglock-go/pglock/internal/lazyregexp"
)

// fetchDebian downloads the packages of the newest server of Debian or Ubuntu and unpacks
// them. It does not install them, which would start a server on port 5432.
func (f *finder) fetchDebian(ctx context.Context, temp, root string) (string, error) {
	apt, archives, err := f.apt(ctx, temp)
	if err != nil {
		return "", err
	}
	f.logf("no %s on this machine; updating Debian's package lists", f.wanted())
	_, updateErr := apt("apt-get", "--quiet", "update") // the update may fail in part and still be usable
	names, err := apt("apt-cache", "pkgnames", "postgresql-")
	if err != nil {
		return "", errors.Join(updateErr, err)
	}
	majors := debianMajors(names, f.Major)
	if len(majors) == 0 {
		return "", errors.Join(updateErr, errors.New("the package lists have no matching server"))
	}
	failures := []error{updateErr}
	for _, major := range majors {
		name := fmt.Sprintf("postgresql-%d", major)
		f.logf("fetching Debian's %s (not installing it)", name)
		if _, err := apt("apt-get", "--quiet", "--yes", "--no-install-recommends", "--download-only", "install", name); err != nil {
			failures = append(failures, err)
			continue
		}
		return fmt.Sprintf("debian-%d", major), f.unpackDebs(ctx, archives, root)
	}
	return "", errors.Join(failures...)
}

// apt returns a function that runs apt's programs, and their download folder. apt keeps
// its lists and downloads in temp, so it neither needs root nor changes the machine. It
// does read which packages are installed, and fetches only what is missing.
func (f *finder) apt(ctx context.Context, temp string) (run func(name string, args ...string) (string, error), archives string, err error) {
	for _, name := range []string{"apt-get", "apt-cache", "dpkg-deb"} {
		if _, err := f.lookPath(name); err != nil {
			return nil, "", err
		}
	}
	archives = filepath.Join(temp, "cache/archives")
	for _, dir := range []string{"lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(temp, dir), 0o755); err != nil {
			return nil, "", err
		}
	}
	return func(name string, args ...string) (string, error) {
		options := []string{
			"-o", "Dir::State::lists=" + filepath.Join(temp, "lists"),
			"-o", "Dir::Cache=" + filepath.Join(temp, "cache"),
			"-o", "Dir::Cache::archives=" + archives,
			"-o", "Debug::NoLocking=true",
			"-o", "Acquire::Languages=none",
			"-o", "Acquire::Retries=3",
		}
		if f.id.switches {
			options = append(options, "-o", "APT::Sandbox::User=root")
		}
		return f.download(ctx, temp, name, append(options, args...)...)
	}, archives, nil
}

var serverPackage = lazyregexp.New(`(?m)^postgresql-(\d+)$`)

// debianMajors returns the major versions among package names, newest first.
func debianMajors(names string, wanted int) []int {
	var majors []int
	for _, match := range serverPackage().FindAllStringSubmatch(names, -1) {
		major, err := strconv.Atoi(match[1])
		if err == nil && major >= oldestMajor && (wanted == 0 || major == wanted) {
			majors = append(majors, major)
		}
	}
	slices.Sort(majors)
	slices.Reverse(majors)
	return majors
}

func (f *finder) unpackDebs(ctx context.Context, archives, root string) error {
	debs, err := filepath.Glob(filepath.Join(archives, "*.deb"))
	if err != nil {
		return err
	}
	if len(debs) == 0 {
		return errors.New("apt-get downloaded nothing: the package is installed, but has no server")
	}
	for _, deb := range debs {
		// The machine's loader works only with the machine's C library.
		if strings.HasPrefix(filepath.Base(deb), "libc6_") || strings.HasPrefix(filepath.Base(deb), "libc-bin_") {
			continue
		}
		if _, err := f.download(ctx, root, "dpkg-deb", "--extract", deb, root); err != nil {
			return err
		}
	}
	return nil
}

var unpackedBin = lazyregexp.New(`^(.+)/usr/lib/postgresql/[^/]+/bin$`)

// libraryEnv returns the environment with which programs find their libraries, if dir is
// in a folder of unpacked Debian packages.
func libraryEnv(dir string) []string {
	match := unpackedBin().FindStringSubmatch(dir)
	if match == nil {
		return nil
	}
	return unpackedLibraries(match[1])
}

// unpackedLibraries returns the environment with which programs find their libraries in a
// folder of unpacked Debian packages.
func unpackedLibraries(root string) []string {
	var dirs []string
	for _, pattern := range []string{"usr/lib/*-linux-gnu*", "lib/*-linux-gnu*"} {
		matches, _ := filepath.Glob(filepath.Join(root, pattern)) // fails only on a bad pattern
		dirs = append(dirs, matches...)
	}
	if own := os.Getenv("LD_LIBRARY_PATH"); own != "" {
		dirs = append(dirs, own)
	}
	if len(dirs) == 0 {
		return nil
	}
	return []string{"LD_LIBRARY_PATH=" + strings.Join(dirs, ":")}
}
