package connect

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// maxServiceLine is libpq's limit for a line of a service file, with its line end.
const maxServiceLine = 1022

// addService adds the settings of the service, if one is named, that v does not have yet
// (PostgreSQL manual, 34.17 "The Connection Service File"). The user's file comes first,
// then the system's. addService records the place of each setting in origins.
func (v values) addService(getenv Lookup, origins map[string]string) error {
	name, ok := v["service"]
	if !ok {
		name, ok = getenv("PGSERVICE")
	}
	if !ok {
		return nil
	}
	file, named := v["servicefile"]
	if !named {
		file, named = getenv("PGSERVICEFILE")
	}
	var files []string
	if home := settingsFolder(getenv); !named && home != "" {
		files = append(files, filepath.Join(home, ".pg_service.conf"))
	}
	folders := systemFolders
	if folder, ok := getenv("PGSYSCONFDIR"); ok {
		folders = []string{folder}
	}
	for _, folder := range folders {
		files = append(files, filepath.Join(folder, "pg_service.conf"))
	}
	files = slices.DeleteFunc(files, func(file string) bool {
		_, err := os.Stat(file)
		return err != nil
	})
	if named { // it must be there
		files = append([]string{file}, files...)
	}
	for _, file := range files {
		if found, err := v.addServiceFrom(file, name, origins); found || err != nil {
			return err
		}
	}
	return settingsErrorf("no service file has the service %q", name)
}

// addServiceFrom adds the settings of a service from a file, and reports whether the file
// has the service. If a setting is repeated, the first one counts.
func (v values) addServiceFrom(path, name string, origins map[string]string) (found bool, err error) {
	file, err := os.Open(path)
	if err != nil {
		var reason *os.PathError
		if errors.As(err, &reason) {
			err = reason.Err
		}
		return false, settingsErrorf("service file %s: %v", path, err)
	}
	defer file.Close()
	reader := bufio.NewReader(file)
	for number := 1; ; number++ {
		line, err := reader.ReadSlice('\n')
		wrong := func(text string) error { return settingsErrorf("%s:%d: %s", path, number, text) }
		switch {
		case errors.Is(err, bufio.ErrBufferFull), len(line) > maxServiceLine:
			return found, wrong("the line is too long")
		case errors.Is(err, io.EOF) && len(line) == 0:
			return found, nil
		case err != nil && !errors.Is(err, io.EOF):
			return found, settingsErrorf("service file %s: %v", path, err)
		}
		text := strings.Trim(string(line), space)
		switch {
		case text == "", text[0] == '#':
			continue
		case text[0] == '[' && found:
			return true, nil // the next one begins
		case text[0] == '[':
			found = strings.HasPrefix(text[1:], name+"]")
			continue
		case !found:
			continue
		case strings.HasPrefix(text, "ldap"):
			return true, wrong("pglock does not support services in LDAP")
		}
		key, value, ok := strings.Cut(text, "=")
		switch {
		case !ok:
			return true, wrong("expected [service] or name=value")
		case key == "service", key == "servicefile":
			return true, wrong("a service cannot refer to another service")
		case !isKeyword(key):
			return true, wrong("unknown setting; spaces around the = are not allowed")
		}
		if _, ok := v[key]; !ok {
			v[key], origins[key] = value, fmt.Sprintf("%s:%d", path, number)
		}
	}
}
