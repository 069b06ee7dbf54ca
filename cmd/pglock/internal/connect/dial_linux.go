package connect

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// userTimeout returns a Control function that sets TCP_USER_TIMEOUT to ms milliseconds.
func userTimeout(ms int) func(network, address string, c syscall.RawConn) error {
	return func(_, _ string, c syscall.RawConn) error {
		var err error
		if e := c.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, ms)
		}); e != nil {
			return e
		}
		return err
	}
}
