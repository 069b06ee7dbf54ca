package pgserver

import "syscall"

// memoryDir returns a file system in memory with enough room, or "". A data folder has a
// thousand small files, and each database three hundred more, which on some disks takes
// ten times as long.
func memoryDir() string {
	const dir, tmpfs, ample = "/dev/shm", 0x01021994, 1 << 30
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil || int64(fs.Type) != tmpfs || fs.Bavail*uint64(fs.Bsize) < ample {
		return ""
	}
	return dir
}
