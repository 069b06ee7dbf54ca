//go:build unix

package connect

import "golang.org/x/sys/unix"

// silence makes a terminal not show what is typed.
func silence(fd int) error {
	settings, err := unix.IoctlGetTermios(fd, getTermios)
	if err != nil {
		return err
	}
	settings.Lflag &^= unix.ECHO
	return unix.IoctlSetTermios(fd, setTermios, settings)
}
