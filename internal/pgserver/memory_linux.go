package pgserver

import "syscall"

// memoryDir is a file system in memory with ample room, or "". A data folder is
// a thousand small files, and each database three hundred more: on some disks
// that makes a second of a tenth.
func memoryDir() string {
	const dir, tmpfs, ample = "/dev/shm", 0x01021994, 1 << 30
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil || int64(fs.Type) != tmpfs || fs.Bavail*uint64(fs.Bsize) < ample {
		return ""
	}
	return dir
}
