//go:build unix

package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pglock-go/pglock/internal/pgserver"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
)

// A site is a database, and the place to run commands that connect to it.
type site struct {
	server *pgserver.Server
	name   string
	needs  []string // more environment variables for commands
	stderr *os.File // stderr of commands, or nil to collect it
	place  place    // where commands run
	database
}

// A place is an environment on this machine, such as a namespace.
type place struct {
	binary string               // pglock, or "" for the test binary
	within []string             // a command that runs its arguments in the place
	attr   *syscall.SysProcAttr // how to start the command
}

func newSite(t *testing.T) site {
	t.Helper()
	server := pgtest.Server(t)
	name := pgtest.DatabaseOn(t, server)
	return site{server: server, name: name, database: connectTo(t, server.ConnString(name))}
}

func (s site) env() []string {
	return slices.Concat(os.Environ(), s.server.Env(s.name), s.needs)
}

// A command is a running pglock.
type command struct {
	t      *testing.T
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	output chan string // lines
	mu     sync.Mutex
	stderr bytes.Buffer
	exited chan struct{}
}

// build builds the program in a folder, as pglock is released: without cgo, which would look
// up users and hosts in another way, and without the race detector. It starts four times
// faster than the test binary, so it is for tests that start hundreds of processes.
func build(t *testing.T, folder string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "pglock")
	cmd := exec.Command("go", "build", "-o", path, folder)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if output, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	return path
}

// binary returns the path of pglock.
func (s site) binary(t *testing.T) string {
	if s.place.binary != "" {
		return s.place.binary
	}
	return testBinary(t)
}

// command returns pglock with args, not started yet.
func (s site) command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	binary := s.binary(t)
	cmd := exec.Command(binary, args...)
	cmd.Args[0] = "pglock"
	if start := s.place.within; len(start) > 0 {
		cmd = exec.Command(start[0], slices.Concat(start[1:], []string{binary}, args)...)
	}
	cmd.Env = s.env()
	// A separate process group, as in a shell with job control.
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if s.place.attr != nil {
		*cmd.SysProcAttr = *s.place.attr
	}
	cmd.SysProcAttr.Setpgid = true
	return cmd
}

// start starts pglock with args in s.
func (s site) start(t *testing.T, args ...string) *command {
	t.Helper()
	c := &command{t: t, output: make(chan string, 1000), exited: make(chan struct{})}
	c.cmd = s.command(t, args...)
	c.cmd.Stderr = lockedWriter{c}
	if s.stderr != nil {
		c.cmd.Stderr = s.stderr
	}
	// An orphan with stderr open must not block the test.
	c.cmd.WaitDelay = time.Second
	stdin, err := c.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.stdin = stdin
	stdout, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	c.cmd.Stdout = writer
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	writer.Close()
	read := make(chan struct{})
	go func() {
		defer close(read)
		defer close(c.output)
		for scanner := bufio.NewScanner(stdout); scanner.Scan(); {
			c.output <- scanner.Text()
		}
	}()
	go func() {
		defer close(c.exited)
		_ = c.cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = c.cmd.Process.Kill() // an error means that it has ended
		<-c.exited
		select {
		case <-read: // all processes with this stdout are gone
		case <-time.After(bound):
			t.Error("a process of the command still has its stdout open")
		}
		stdout.Close()
		if t.Failed() {
			t.Logf("stderr of pglock %s:\n%s", strings.Join(args, " "), c.errors())
		}
	})
	return c
}

// lockedWriter collects stderr.
type lockedWriter struct{ c *command }

func (w lockedWriter) Write(p []byte) (int, error) {
	w.c.mu.Lock()
	defer w.c.mu.Unlock()
	return w.c.stderr.Write(p)
}

func (c *command) errors() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stderr.String()
}

// line returns the next line that the command writes.
func (c *command) line() string {
	c.t.Helper()
	select {
	case line, ok := <-c.output:
		if !ok {
			<-c.exited
			c.t.Fatalf("the output ended; stderr: %s", c.errors())
		}
		return line
	case <-time.After(bound):
		c.t.Fatalf("no line of output; stderr: %s", c.errors())
	}
	return ""
}

// pid returns the PID on the next line.
func (c *command) pid() int {
	c.t.Helper()
	line := c.line()
	pid, err := strconv.Atoi(line)
	if err != nil {
		c.t.Fatalf("%q is not a PID", line)
	}
	return pid
}

// wait returns the exit code, or the negative number of the signal that ended pglock.
func (c *command) wait() int {
	c.t.Helper()
	select {
	case <-c.exited:
	case <-time.After(bound):
		c.t.Fatalf("pglock has not ended; stderr: %s", c.errors())
	}
	status := c.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if status.Signaled() {
		return -int(status.Signal())
	}
	return status.ExitStatus()
}

func (c *command) signal(sig syscall.Signal) {
	c.t.Helper()
	if err := c.cmd.Process.Signal(sig); err != nil {
		c.t.Fatal(err)
	}
}

// want checks the exit code.
func (c *command) want(code int) {
	c.t.Helper()
	if got := c.wait(); got != code {
		c.t.Errorf("exit code %d, not %d; stderr: %s", got, code, c.errors())
	}
}

// alive reports whether a process exists and is not a zombie.
func alive(pid int) bool {
	if errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
		return false
	}
	state, _, ok := processStatus(pid)
	return ok && state != "Z" && state != "X"
}

// processStatus returns the state and the parent of a process from /proc/PID/stat,
// because not every machine has ps.
func processStatus(pid int) (state string, parent int, ok bool) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", 0, false
	}
	// The name is in parentheses and may contain anything.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 2 {
		return "", 0, false
	}
	parent, err = strconv.Atoi(fields[1])
	return fields[0], parent, err == nil
}

// childrenOf returns the children of a process.
func childrenOf(pid int) (children []int) {
	entries, _ := os.ReadDir("/proc")
	for _, entry := range entries {
		child, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		if _, parent, ok := processStatus(child); ok && parent == pid {
			children = append(children, child)
		}
	}
	return children
}

// awaitGone waits until the processes have ended.
func awaitGone(t *testing.T, pids ...int) {
	t.Helper()
	for _, pid := range pids {
		eventually(t, fmt.Sprintf("the end of process %d", pid), func() bool { return !alive(pid) })
	}
}

// guardOf returns the guard, the process between pglock and the command pid.
func guardOf(t *testing.T, pid int) int {
	t.Helper()
	_, guard, ok := processStatus(pid)
	if !ok {
		t.Fatalf("there is no process %d", pid)
	}
	return guard
}
