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

// systemFolders are where libpq looks for the service file of all users: the folder is
// compiled into it, so that it depends on who packed it.
var systemFolders = []string{
	"/etc/postgresql-common",       // Debian
	"/etc/sysconfig/pgsql",         // PGDG's RPMs
	"/usr/local/pgsql/etc",         // built from source
	"/opt/homebrew/etc/postgresql", // Homebrew
	"/usr/local/etc/postgresql",
	"/etc",
}

// settingsFolder returns the folder that has the user's files for libpq, or "": HOME,
// or what the password database says.
func settingsFolder(getenv Lookup) string {
	if home, _ := getenv("HOME"); home != "" {
		return home
	}
	if u, err := currentUser(); err == nil {
		return u.HomeDir
	}
	return ""
}

// userName returns the name of the user whom this process runs as.
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
		// Without C's library Go sees /etc/passwd alone, and goes by USER for those
		// who are elsewhere, such as in LDAP.
		return user.Current()
	}
	return u, nil
}

// defaultHost returns the folder of the socket for those who name no host. It, too, is
// compiled into libpq: Debian and Red Hat have the first one, all others the second.
func defaultHost() string {
	const packed = "/var/run/postgresql"
	if info, err := os.Stat(packed); err == nil && info.IsDir() {
		return packed
	}
	return "/tmp"
}

// openToOthers reports whether others than its owner can use a file.
func openToOthers(info os.FileInfo) bool { return info.Mode().Perm()&0o077 != 0 }

// keyOpenToOthers reports whether others than its owner can use the file of a key.
// root may give one to a group to read.
func keyOpenToOthers(info os.FileInfo) bool {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && stat.Uid == 0 {
		return info.Mode().Perm()&0o037 != 0
	}
	return openToOthers(info)
}

// certificates returns the folder of the user's certificates, or "".
func certificates(getenv Lookup) string {
	home := settingsFolder(getenv)
	if home == "" {
		return ""
	}
	return filepath.Join(home, certificateFolder)
}
