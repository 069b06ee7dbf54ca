//go:build unix

package pgserver

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"syscall"
)

// serverIdentity returns the current user, or if that is root, the first existing one of
// postgres and nobody.
func serverIdentity() (identity, error) {
	if uid := os.Geteuid(); uid != 0 {
		return identity{name: "uid " + strconv.Itoa(uid), uid: uint32(uid), gid: uint32(os.Getegid())}, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err := strconv.ParseUint(u.Uid, 10, 32)
		if err != nil || uid == 0 {
			continue
		}
		gid, err := strconv.ParseUint(u.Gid, 10, 32)
		if err != nil {
			continue
		}
		return identity{name: name, uid: uint32(uid), gid: uint32(gid), switches: true}, nil
	}
	return identity{}, errors.New("pgserver: Postgres refuses to run as root, and there is no user postgres or nobody to run it as; add one: useradd --system postgres")
}

// attributes makes a child run as id in its own session.
func (id identity) attributes() *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setsid: true}
	if id.switches {
		attr.Credential = &syscall.Credential{Uid: id.uid, Gid: id.gid} // without supplementary groups
	}
	return attr
}

// own changes the owner of a file or folder to id.
func (id identity) own(path string) error {
	if !id.switches {
		return nil
	}
	return os.Chown(path, int(id.uid), int(id.gid))
}

// checkOwner returns an error if another user owns the folder or can write to it.
func checkOwner(path string) error {
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !info.IsDir():
		return fmt.Errorf("%s is not a folder", path)
	case !ok || int(stat.Uid) != os.Geteuid():
		return fmt.Errorf("%s belongs to another user", path)
	case info.Mode().Perm()&0o022 != 0:
		return fmt.Errorf("%s can be written to by other users", path)
	}
	return nil
}

// lockFile tries to lock a file against other processes.
func lockFile(f *os.File) (bool, error) {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) || errors.Is(err, syscall.EINTR) {
		return false, nil
	}
	return err == nil, err
}
