package main

import "golang.org/x/sys/unix"

// silent reports whether the terminal's echo is off.
func (term *terminal) silent() bool {
	conn, err := term.file.SyscallConn()
	if err != nil {
		return false
	}
	silent := false
	_ = conn.Control(func(fd uintptr) {
		settings, err := unix.IoctlGetTermios(int(fd), unix.TCGETS)
		silent = err == nil && settings.Lflag&unix.ECHO == 0
	})
	return silent
}
