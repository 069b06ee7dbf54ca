package connect

import (
	"os"
	"os/user"
	"path/filepath"
	"strings"

	"golang.org/x/sys/windows"
)

const passwordFileName = "pgpass.conf"

// systemFolders is empty: on Windows, PGSYSCONFDIR must name the directory.
var systemFolders []string

// settingsFolder returns the directory of the user's libpq files, or "".
func settingsFolder(Lookup) string {
	folder, err := windows.KnownFolderPath(windows.FOLDERID_RoamingAppData, 0)
	if err != nil {
		return ""
	}
	return filepath.Join(folder, "postgresql")
}

// userName returns the name of the user that runs this process, without the domain.
func userName() (string, error) {
	u, err := user.Current()
	if err != nil {
		return "", err
	}
	return u.Username[strings.LastIndexByte(u.Username, '\\')+1:], nil
}

// defaultHost returns the host that is used if none is given.
func defaultHost() string { return "localhost" }

// openToOthers returns false: the directory is protected.
func openToOthers(os.FileInfo) bool { return false }

func keyOpenToOthers(os.FileInfo) bool { return false }

// certificates returns the directory of the user's certificates, or "".
func certificates(getenv Lookup) string { return settingsFolder(getenv) }
