//go:build unix

package connect

import (
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

const (
	passwordFileName  = ".pgpass"
	certificateFolder = ".postgresql"
)

// systemFolders lists where libpq may look for the system-wide service file. The
// directory is compiled into libpq, so it differs between packages.
var systemFolders = []string{
	"/etc/postgresql-common",       // Debian
	"/etc/sysconfig/pgsql",         // PGDG's RPMs
	"/usr/local/pgsql/etc",         // built from source
	"/opt/homebrew/etc/postgresql", // Homebrew
	"/usr/local/etc/postgresql",
	"/etc",
}

// settingsFolder returns the directory of the user's libpq files, or "". It is HOME, or
// the home directory in the password database.
func settingsFolder(getenv Lookup) string {
	if home, _ := getenv("HOME"); home != "" {
		return home
	}
	if u, err := currentUser(); err == nil {
		return u.HomeDir
	}
	return ""
}

// userName returns the name of the user that runs this process.
func userName() (string, error) {
	u, err := currentUser()
	if err != nil {
		return "", err
	}
	return u.Username, nil
}

func currentUser() (*user.User, error) {
	u, err := user.LookupId(strconv.Itoa(os.Geteuid()))
	if err != nil {
		// Without cgo, Go reads only /etc/passwd, and uses USER for users from
		// elsewhere, such as LDAP.
		return user.Current()
	}
	return u, nil
}

// defaultHost returns the socket directory that is used if no host is given. It is
// compiled into libpq: Debian and Red Hat use the first one, all others the second.
func defaultHost() string {
	const packed = "/var/run/postgresql"
	if info, err := os.Stat(packed); err == nil && info.IsDir() {
		return packed
	}
	return "/tmp"
}

// openToOthers reports whether users other than its owner can use a file.
func openToOthers(info os.FileInfo) bool { return info.Mode().Perm()&0o077 != 0 }

// keyOpenToOthers reports whether users other than its owner can use a key file. A key
// owned by root may be readable by its group.
func keyOpenToOthers(info os.FileInfo) bool {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && stat.Uid == 0 {
		return info.Mode().Perm()&0o037 != 0
	}
	return openToOthers(info)
}

// certificates returns the directory of the user's certificates, or "".
func certificates(getenv Lookup) string {
	home := settingsFolder(getenv)
	if home == "" {
		return ""
	}
	return filepath.Join(home, certificateFolder)
}
