//go:build unix

package connect

import "golang.org/x/sys/unix"

// silence turns off the echo of a terminal.
func silence(fd int) error {
	settings, err := unix.IoctlGetTermios(fd, getTermios)
	if err != nil {
		return err
	}
	settings.Lflag &^= unix.ECHO
	return unix.IoctlSetTermios(fd, setTermios, settings)
}
