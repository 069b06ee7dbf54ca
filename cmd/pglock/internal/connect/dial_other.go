//go:build !linux

package connect

import "syscall"

// userTimeout returns nil: only Linux has TCP_USER_TIMEOUT.
func userTimeout(int) func(network, address string, c syscall.RawConn) error { return nil }
