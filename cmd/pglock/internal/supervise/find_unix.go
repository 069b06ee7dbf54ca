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

// Find looks up a command as a shell does: a name with a slash is a path, any other is
// searched for in the directories of PATH in env. The error is a [StartError].
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
	var denied error // found, but not executable; returned if no other is found
	for _, dir := range filepath.SplitList(pathOf(env)) {
		if dir == "" {
			dir = "." // an empty entry is the current directory
		}
		path := filepath.Join(dir, name)
		if dir == "." {
			path = "./" + name
		}
		err := executable(path)
		if err == nil {
			return path, nil
		}
		// Skip directories of PATH that cannot be read, and directories with the
		// command's name.
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

// executable returns why a file cannot be executed, or nil if it can.
func executable(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return errnoOf(err)
	}
	if info.IsDir() {
		return syscall.EISDIR
	}
	// For root, access succeeds if any user may execute the file.
	return errnoOf(unix.Access(path, unix.X_OK))
}

// errnoOf returns the error without the operation and the path, which the caller adds.
func errnoOf(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}

func isAbsent(err error) bool {
	return errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ENOTDIR)
}
