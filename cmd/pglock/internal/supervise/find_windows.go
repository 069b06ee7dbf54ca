package supervise

import (
	"errors"
	"os"
	"os/exec"
	"strings"
)

// Find looks a command up in the folders of PATH, with the endings of PATHEXT. A
// name with a slash or backslash in it is a path. What is in the current folder
// runs only when it is asked for as .\NAME: it may be anybody's. The error is a
// [StartError].
func Find(name string, _ []string) (string, error) {
	if name == "" {
		return "", &StartError{Path: `""`, NotFound: true, Err: errors.New("command not found")}
	}
	path, err := exec.LookPath(name)
	switch {
	case err == nil:
		return path, nil
	case errors.Is(err, exec.ErrDot):
		return "", &StartError{Path: name, NotFound: true, Err: errors.New(`found in the current folder only; if that is the one, name it .\` + name)}
	case strings.ContainsAny(name, `/\`) && errors.Is(err, os.ErrPermission):
		return "", &StartError{Path: name, Err: os.ErrPermission}
	}
	return "", &StartError{Path: name, NotFound: true, Err: errors.New("command not found")}
}
