// Command modzip adds a version of a module to a directory with the layout of a module
// proxy (https://go.dev/ref/mod#goproxy-protocol), so that the go command can use a
// version that is not published: GOPROXY=file:///directory. It zips the module as the go
// command does, without nested modules.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/mod/module"
	"golang.org/x/mod/semver"
	"golang.org/x/mod/zip"
)

func main() {
	if len(os.Args) != 5 {
		fmt.Fprintln(os.Stderr, "usage: modzip DIRECTORY MODULE VERSION PROXY")
		os.Exit(2)
	}
	if err := add(os.Args[1], module.Version{Path: os.Args[2], Version: os.Args[3]}, os.Args[4]); err != nil {
		fmt.Fprintln(os.Stderr, "modzip:", err)
		os.Exit(1)
	}
}

// add puts the module in dir into proxy.
func add(dir string, m module.Version, proxy string) (err error) {
	if err := module.Check(m.Path, m.Version); err != nil {
		return err
	}
	path, err := module.EscapePath(m.Path)
	if err != nil {
		return err
	}
	into := filepath.Join(proxy, filepath.FromSlash(path), "@v")
	if err := os.MkdirAll(into, 0o755); err != nil {
		return err
	}
	mod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
	if err != nil {
		return err
	}
	info, err := json.Marshal(struct {
		Version string
		Time    time.Time
	}{m.Version, time.Now().UTC().Truncate(time.Second)})
	if err != nil {
		return err
	}
	file, err := os.Create(filepath.Join(into, m.Version+".zip"))
	if err != nil {
		return err
	}
	if err := errors.Join(zip.CreateFromDir(file, m, dir), file.Close()); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(into, m.Version+".mod"), mod, 0o644); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(into, m.Version+".info"), info, 0o644); err != nil {
		return err
	}
	return list(into)
}

// list writes the list of versions, the highest last.
func list(into string) error {
	files, err := filepath.Glob(filepath.Join(into, "*.zip"))
	if err != nil {
		return err
	}
	var versions []string
	for _, f := range files {
		versions = append(versions, strings.TrimSuffix(filepath.Base(f), ".zip"))
	}
	semver.Sort(versions)
	return os.WriteFile(filepath.Join(into, "list"), []byte(strings.Join(versions, "\n")+"\n"), 0o644)
}
