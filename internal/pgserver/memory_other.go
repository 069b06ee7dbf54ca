//go:build !linux

package pgserver

// memoryDir returns "", since no file system in memory is known here.
func memoryDir() string { return "" }
