//go:build unix

package connect

import "golang.org/x/sys/unix"

// disableEcho turns off the echo of a terminal.
func disableEcho(fd int) error {
	settings, err := unix.IoctlGetTermios(fd, getTermios)
	if err != nil {
		return err
	}
	settings.Lflag &^= unix.ECHO
	return unix.IoctlSetTermios(fd, setTermios, settings)
}
