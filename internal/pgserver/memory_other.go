//go:build !linux

package pgserver

// memoryDir is a file system in memory with ample room: none is known here.
func memoryDir() string { return "" }
