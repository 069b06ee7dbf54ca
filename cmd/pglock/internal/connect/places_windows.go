package connect

import (
	"os"
	"os/user"
	"path/filepath"
	"strings"

	"golang.org/x/sys/windows"
)

const passwordFileName = "pgpass.conf"

// systemFolders are none: there PGSYSCONFDIR must say it.
var systemFolders []string

// settingsFolder returns the folder that has the user's files for libpq, or "".
func settingsFolder(Lookup) string {
	folder, err := windows.KnownFolderPath(windows.FOLDERID_RoamingAppData, 0)
	if err != nil {
		return ""
	}
	return filepath.Join(folder, "postgresql")
}

// userName returns the name of the user whom this process runs as, without the domain.
func userName() (string, error) {
	u, err := user.Current()
	if err != nil {
		return "", err
	}
	return u.Username[strings.LastIndexByte(u.Username, '\\')+1:], nil
}

// defaultHost returns the host for those who name none.
func defaultHost() string { return "localhost" }

// openToOthers is always false: the folder is protected.
func openToOthers(os.FileInfo) bool { return false }

func keyOpenToOthers(os.FileInfo) bool { return false }

// certificates returns the folder of the user's certificates, or "".
func certificates(getenv Lookup) string { return settingsFolder(getenv) }
