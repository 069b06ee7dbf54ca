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

// serverIdentity is the current user, or for root the first of the users that
// every machine has.
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

// attributes puts a child in a session of its own, as this user.
func (id identity) attributes() *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setsid: true}
	if id.switches {
		attr.Credential = &syscall.Credential{Uid: id.uid, Gid: id.gid} // and no other group
	}
	return attr
}

// own gives a file or folder that this process made to the identity.
func (id identity) own(path string) error {
	if !id.switches {
		return nil
	}
	return os.Chown(path, int(id.uid), int(id.gid))
}

// checkOwner refuses a folder that somebody else made or can write to.
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

// lockFile locks a file against other processes, without waiting.
func lockFile(f *os.File) (bool, error) {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) || errors.Is(err, syscall.EINTR) {
		return false, nil
	}
	return err == nil, err
}
