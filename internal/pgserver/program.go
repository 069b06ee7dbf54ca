package pgserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// A Program is one that tests need besides Postgres' server: one that stands before
// it, such as a pooler, or one that talks to it, such as psql.
type Program struct {
	Path string
	env  []string
	id   identity
}

// debianPackage is the package that has a program.
func debianPackage(program string) string {
	switch program {
	case "psql":
		return "postgresql-client"
	case "etcd":
		return "etcd-server"
	}
	return program
}

// FindProgram finds a program by its name: what the machine has, what came with the
// servers that were fetched, else Debian's package, unpacked into the cache and not
// installed.
func FindProgram(ctx context.Context, name string, log io.Writer) (Program, error) {
	f, err := newFinder(Options{Log: log})
	if err != nil {
		return Program{}, err
	}
	return f.program(ctx, name)
}

func (f *finder) program(ctx context.Context, name string) (Program, error) {
	if path, err := f.lookPath(name); err == nil {
		return Program{Path: path, id: f.id}, nil
	}
	for _, dir := range []string{"/usr/sbin", "/usr/local/sbin"} { // not in everybody's PATH
		if path := filepath.Join(dir, name); exists(path) {
			return Program{Path: path, id: f.id}, nil
		}
	}
	if name == "psql" {
		if path, env, ok := f.besideServers(ctx, name); ok {
			return Program{Path: path, env: env, id: f.id}, nil
		}
	}
	root := filepath.Join(f.cache.dir, "program", name)
	if p, ok := f.unpackedProgram(root, name); ok {
		return p, nil
	}
	unlock, err := f.cache.lock(ctx, f.Options)
	if err != nil {
		return Program{}, err
	}
	defer unlock()
	if p, ok := f.unpackedProgram(root, name); ok {
		return p, nil
	}
	if err := f.fetchProgram(ctx, name, root); err != nil {
		return Program{}, fmt.Errorf("pgserver: no %s on this machine, and it could not be fetched; install it: %w", name, err)
	}
	if p, ok := f.unpackedProgram(root, name); ok {
		return p, nil
	}
	return Program{}, fmt.Errorf("pgserver: Debian's package %s has no program %s", debianPackage(name), name)
}

// besideServers finds a program of Postgres' own beside the servers that are there.
func (f *finder) besideServers(ctx context.Context, name string) (path string, env []string, ok bool) {
	dirs := f.places()
	if bin, ok := f.cached(ctx); ok {
		dirs = append(dirs, bin.Dir)
	}
	for _, dir := range dirs {
		if path := filepath.Join(dir, name); exists(path) {
			return path, libraryEnv(dir), true
		}
	}
	return "", nil, false
}

func (f *finder) unpackedProgram(root, name string) (Program, bool) {
	dirs := []string{"usr/sbin", "usr/bin"}
	if name == "psql" {
		// What is in usr/bin is a script that looks for the real one in places of the
		// machine.
		dirs, _ = filepath.Glob(filepath.Join(root, "usr/lib/postgresql/*/bin")) // fails only on a bad pattern
		for i, dir := range dirs {
			dirs[i] = strings.TrimPrefix(dir, root)
		}
	}
	for _, dir := range dirs {
		if path := filepath.Join(root, dir, name); exists(path) {
			return Program{Path: path, env: unpackedLibraries(root), id: f.id}, true
		}
	}
	return Program{}, false
}

// Command is the program with arguments, to be run as the current user. Of the
// environment it has all but what would lead it to another server.
func (p Program) Command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, p.Path, args...)
	for _, v := range append(os.Environ(), p.env...) {
		if !strings.HasPrefix(v, "PG") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	return cmd
}

// Env is what the program needs in its environment besides.
func (p Program) Env() []string { return slices.Clone(p.env) }

// fetchProgram unpacks a Debian package, and what it needs and the machine does
// not have, into final. Only for the holder of the cache's lock.
func (f *finder) fetchProgram(ctx context.Context, name, final string) error {
	temp, err := f.cache.temp()
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp)
	root := filepath.Join(temp, "root")
	if err := makeDir(root); err != nil {
		return err
	}
	apt, archives, err := f.apt(ctx, temp)
	if err != nil {
		return err
	}
	f.logf("fetching Debian's %s (not installing it)", debianPackage(name))
	_, updateErr := apt("apt-get", "--quiet", "update") // a part may fail and the rest do
	if _, err := apt("apt-get", "--quiet", "--yes", "--no-install-recommends", "--download-only", "install", debianPackage(name)); err != nil {
		return errors.Join(updateErr, err)
	}
	if err := f.unpackDebs(ctx, archives, root); err != nil {
		return err
	}
	return f.cache.publish(root, final)
}

// A Process is a [Program] that runs: as the user whom servers run as, in a folder
// of its own, and no longer than this process.
type Process struct {
	folder string
	guard  *guard
}

// Start runs the program once its files are in its folder. setup says, for the
// folder, what these are and which arguments the program gets.
func (p Program) Start(ctx context.Context, setup func(folder string) (files map[string]string, args []string)) (*Process, error) {
	var failures []error
	for _, parent := range folderParents() {
		name, err := randomName("pglock-")
		if err != nil {
			return nil, err
		}
		folder := filepath.Join(parent, name)
		if len(folder) > 60 || !plainPath.MatchString(parent) {
			continue
		}
		files, args := setup(folder)
		guard, err := startGuard(p.id, p.env, folder, append([]string{p.Path}, args...)...)
		if err != nil {
			failures = append(failures, err)
			continue
		}
		process := &Process{folder, guard}
		for _, name := range slices.Sorted(maps.Keys(files)) {
			if _, err := p.id.run(ctx, nil, strings.NewReader(files[name]), "/bin/sh", "-c", `cat >"$1"`, "sh", filepath.Join(folder, name)); err != nil {
				return nil, errors.Join(err, process.Stop())
			}
		}
		if _, err := guard.start(); err != nil {
			return nil, errors.Join(err, process.Stop())
		}
		return process, nil
	}
	return nil, fmt.Errorf("pgserver: no folder for %s: %w", p.Path, errors.Join(failures...))
}

// Folder is the folder of the process.
func (p *Process) Folder() string { return p.folder }

// Running reports whether the process has not ended by itself.
func (p *Process) Running() bool {
	running, err := p.guard.running()
	return running && err == nil
}

// Logs is what the process wrote.
func (p *Process) Logs() string {
	b, err := os.ReadFile(filepath.Join(p.folder, "log"))
	if err != nil {
		return ""
	}
	return string(b)
}

// Stop ends the process and removes its folder. A second Stop does nothing.
func (p *Process) Stop() error {
	// A signal more than Postgres needs. What it brings is found out by end.
	_, _ = p.guard.tell("signal TERM")
	return p.guard.end()
}
