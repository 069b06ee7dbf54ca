//go:build unix

package supervise

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Find looks a command up as a shell does: a name with a slash in it is a path,
// any other is searched for in the folders of PATH, which is taken from env. The
// error is a [StartError].
func Find(name string, env []string) (string, error) {
	if name == "" {
		return "", &StartError{Path: `""`, NotFound: true, Err: errors.New("command not found")}
	}
	if strings.Contains(name, "/") {
		if err := executable(name); err != nil {
			return "", &StartError{Path: name, NotFound: isAbsent(err), Err: err}
		}
		return name, nil
	}
	var denied error // there, but not executable: told when there is no other
	for _, dir := range filepath.SplitList(pathOf(env)) {
		if dir == "" {
			dir = "." // an empty entry is the current folder
		}
		path := filepath.Join(dir, name)
		if dir == "." {
			path = "./" + name
		}
		err := executable(path)
		if err == nil {
			return path, nil
		}
		// A folder of PATH that we may not look into is none of ours, and neither
		// is a folder of that name.
		if info, statErr := os.Stat(path); denied == nil && statErr == nil && !info.IsDir() {
			denied = &StartError{Path: path, Err: err}
		}
	}
	if denied != nil {
		return "", denied
	}
	return "", &StartError{Path: name, NotFound: true, Err: errors.New("command not found")}
}

func pathOf(env []string) string {
	path := ""
	for _, kv := range env {
		if value, ok := strings.CutPrefix(kv, "PATH="); ok {
			path = value // the last one counts, as for os/exec
		}
	}
	return path
}

// executable says why a file cannot be executed, or nil.
func executable(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return bare(err)
	}
	if info.IsDir() {
		return syscall.EISDIR
	}
	// For root access says yes as soon as anybody may execute it.
	return bare(unix.Access(path, unix.X_OK))
}

// bare is the error without the operation and the path, which are told anyway.
func bare(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}

func isAbsent(err error) bool {
	return errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ENOTDIR)
}
