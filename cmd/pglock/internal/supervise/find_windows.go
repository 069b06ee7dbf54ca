package supervise

import (
	"errors"
	"os"
	"os/exec"
	"strings"
)

// Find looks up a command in the directories of PATH, with the extensions of PATHEXT. A
// name with a slash or backslash is a path. A command in the current directory must be
// given as .\NAME, because anybody may have put it there. The error is a [StartError].
func Find(name string, _ []string) (string, error) {
	if name == "" {
		return "", &StartError{Path: `""`, NotFound: true, Err: errors.New("command not found")}
	}
	path, err := exec.LookPath(name)
	switch {
	case err == nil:
		return path, nil
	case errors.Is(err, exec.ErrDot):
		return "", &StartError{Path: name, NotFound: true, Err: errors.New(`found only in the current directory; to run it, write .\` + name)}
	case strings.ContainsAny(name, `/\`) && errors.Is(err, os.ErrPermission):
		return "", &StartError{Path: name, Err: os.ErrPermission}
	}
	return "", &StartError{Path: name, NotFound: true, Err: errors.New("command not found")}
}
