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

// A Program is a program that tests need in addition to the Postgres server, such as a
// pooler or psql.
type Program struct {
	Path string
	env  []string
	id   identity
}

// debianPackages returns the Debian packages of a program and of what tests use with it.
func debianPackages(program string) []string {
	switch program {
	case "psql":
		return []string{"postgresql-client"}
	case "etcd":
		return []string{"etcd-server"}
	case "patroni":
		return []string{"patroni", "python3-etcd"}
	case "django-admin":
		return []string{"python3-django", "python3-psycopg2"}
	}
	return []string{program}
}

// FindProgram finds a program by name: on the machine, with the fetched servers, or in
// Debian's package, which it unpacks into the cache without installing it.
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
	for _, dir := range []string{"/usr/sbin", "/usr/local/sbin"} { // not in every PATH
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
	return Program{}, fmt.Errorf("pgserver: Debian's packages %q have no program %s", debianPackages(name), name)
}

// besideServers finds a program of Postgres beside the available servers.
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
		// The one in usr/bin is a script that searches the machine for the real one.
		dirs, _ = filepath.Glob(filepath.Join(root, "usr/lib/postgresql/*/bin")) // fails only on a bad pattern
		for i, dir := range dirs {
			dirs[i] = strings.TrimPrefix(dir, root)
		}
	}
	for _, dir := range dirs {
		if path := filepath.Join(root, dir, name); exists(path) {
			env := unpackedLibraries(root)
			if modules := filepath.Join(root, "usr/lib/python3/dist-packages"); exists(modules) {
				env = append(env, "PYTHONPATH="+modules)
			}
			return Program{Path: path, env: env, id: f.id}, true
		}
	}
	return Program{}, false
}

// With returns the program with more variables in its environment.
func (p Program) With(env ...string) Program {
	p.env = slices.Concat(p.env, env)
	return p
}

// Command returns a command that runs the program as the current user. Its environment
// omits the PG variables, which would lead it to another server.
func (p Program) Command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, p.Path, args...)
	for _, v := range append(os.Environ(), p.env...) {
		if !strings.HasPrefix(v, "PG") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	return cmd
}

// Env returns the variables that the program needs in addition to the environment.
func (p Program) Env() []string { return slices.Clone(p.env) }

// fetchProgram unpacks a Debian package, and the dependencies that the machine does not
// have, into final. The caller must hold the cache's lock.
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
	packages := debianPackages(name)
	f.logf("fetching Debian's %s (not installing it)", strings.Join(packages, ", "))
	_, updateErr := apt("apt-get", "--quiet", "update") // the update may fail in part and still be usable
	install := append([]string{"--quiet", "--yes", "--no-install-recommends", "--download-only", "install"}, packages...)
	if _, err := apt("apt-get", install...); err != nil {
		return errors.Join(updateErr, err)
	}
	if err := f.unpackDebs(ctx, archives, root); err != nil {
		return err
	}
	return f.cache.publish(root, final)
}

// A Process is a running [Program]. It runs as the user that runs servers, in its own
// folder, and no longer than this process. Processes that it starts in the folder's
// subfolder data end with it.
type Process struct {
	folder string
	guard  *guard
	pid    int
}

// Start creates a folder with the program's files and runs the program. setup returns,
// for the folder, the files and the program's arguments.
func (p Program) Start(ctx context.Context, setup func(folder string) (files map[string]string, args []string)) (*Process, error) {
	var failures []error
	for _, parent := range folderParents() {
		name, err := randomName("pglock-")
		if err != nil {
			return nil, err
		}
		folder := filepath.Join(parent, name)
		if len(folder) > 60 || !safePath().MatchString(parent) {
			continue
		}
		files, args := setup(folder)
		guard, err := startGuard(p.id, p.env, folder, append([]string{p.Path}, args...)...)
		if err != nil {
			failures = append(failures, err)
			continue
		}
		process := &Process{folder: folder, guard: guard}
		for _, name := range slices.Sorted(maps.Keys(files)) {
			if _, err := p.id.run(ctx, nil, strings.NewReader(files[name]), "/bin/sh", "-c", `cat >"$1"`, "sh", filepath.Join(folder, name)); err != nil {
				return nil, errors.Join(err, process.Stop())
			}
		}
		if err := process.Restart(); err != nil {
			return nil, errors.Join(err, process.Stop())
		}
		return process, nil
	}
	return nil, fmt.Errorf("pgserver: no folder for %s: %w", p.Path, errors.Join(failures...))
}

// Kill kills the process with SIGKILL, and all those in its subfolder data. It keeps the
// folder for Restart.
func (p *Process) Kill() error {
	if _, err := p.guard.send("kill"); err != nil {
		return fmt.Errorf("pgserver: killing a process: %w", err)
	}
	return nil
}

// Restart starts the program again, with the same folder and arguments. It must not be
// running.
func (p *Process) Restart() (err error) {
	p.pid, err = p.guard.start()
	return err
}

// PID returns the PID of the process that was started last.
func (p *Process) PID() int { return p.pid }

// Folder returns the folder of the process.
func (p *Process) Folder() string { return p.folder }

// Running reports whether the process is still running.
func (p *Process) Running() bool {
	running, err := p.guard.running()
	return running && err == nil
}

// Logs returns the output of the process.
func (p *Process) Logs() string {
	b, err := os.ReadFile(filepath.Join(p.folder, "log"))
	if err != nil {
		return ""
	}
	return string(b)
}

// Stop ends the process and removes its folder. A second Stop does nothing.
func (p *Process) Stop() error {
	// Postgres does not need this signal. end reports whether the process has ended.
	_, _ = p.guard.send("signal TERM")
	return p.guard.end()
}
