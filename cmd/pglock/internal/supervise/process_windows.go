package supervise

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/windows"
)

// A Process is a command that was started, in a job object: the system ends what
// is in it when this program ends, however it does.
type Process struct {
	cmd    *exec.Cmd
	job    windows.Handle
	grace  time.Duration
	events chan Event
	end    sync.Once
	done   chan struct{}
	status Status
	err    error
}

// An Event is something that happened to a running command.
type Event struct {
	Stopped bool
	Stuck   string
}

// Start starts a command.
func Start(c Command) (*Process, error) {
	job, err := windows.CreateJobObject(nil, nil)
	if err != nil {
		return nil, fmt.Errorf("making a job object: %w", err)
	}
	var limits windows.JOBOBJECT_EXTENDED_LIMIT_INFORMATION
	limits.BasicLimitInformation.LimitFlags = windows.JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE
	if _, err := windows.SetInformationJobObject(job, windows.JobObjectExtendedLimitInformation,
		uintptr(unsafe.Pointer(&limits)), uint32(unsafe.Sizeof(limits))); err != nil {
		windows.CloseHandle(job)
		return nil, fmt.Errorf("setting up a job object: %w", err)
	}
	cmd := &exec.Cmd{
		Path: c.Path, Args: c.Args, Env: c.Env,
		Stdin: c.Stdin, Stdout: c.Stdout, Stderr: c.Stderr,
		SysProcAttr: &syscall.SysProcAttr{CreationFlags: windows.CREATE_NEW_PROCESS_GROUP},
		WaitDelay:   time.Second,
	}
	if err := cmd.Start(); err != nil {
		windows.CloseHandle(job)
		return nil, &StartError{Path: c.Path, NotFound: errors.Is(err, os.ErrNotExist), Err: err}
	}
	p := &Process{cmd: cmd, job: job, grace: c.Grace, events: make(chan Event), done: make(chan struct{})}
	if err := p.assign(); err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		windows.CloseHandle(job)
		return nil, fmt.Errorf("putting the command into a job object: %w", err)
	}
	go func() {
		defer close(p.done)
		defer close(p.events)
		err := cmd.Wait()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) && !errors.Is(err, exec.ErrWaitDelay) {
			p.err = err
		}
		p.status = Status{Code: cmd.ProcessState.ExitCode()}
		_ = windows.TerminateJobObject(job, 1) // what the command left behind
		windows.CloseHandle(job)
	}()
	return p, nil
}

func (p *Process) assign() error {
	process, err := windows.OpenProcess(windows.PROCESS_SET_QUOTA|windows.PROCESS_TERMINATE, false, uint32(p.cmd.Process.Pid))
	if err != nil {
		return err
	}
	defer windows.CloseHandle(process)
	return windows.AssignProcessToJobObject(p.job, process)
}

// PID is the command's process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Events closes when the command has ended.
func (p *Process) Events() <-chan Event { return p.events }

// Signal sends Ctrl-Break, the one such thing that a process group can be sent.
func (p *Process) Signal(syscall.Signal) {
	_ = windows.GenerateConsoleCtrlEvent(windows.CTRL_BREAK_EVENT, uint32(p.cmd.Process.Pid))
}

// Continue does nothing: there is no job control.
func (p *Process) Continue() {}

// End ends the command and all it started: Ctrl-Break, then after the grace the
// end of the job.
func (p *Process) End() {
	p.end.Do(func() {
		p.Signal(0)
		go func() {
			select {
			case <-p.done:
			case <-time.After(p.grace):
				_ = windows.TerminateJobObject(p.job, 1)
			}
		}()
	})
}

// Wait waits until nothing of the command is left.
func (p *Process) Wait() (Status, error) {
	<-p.done
	return p.status, p.err
}

// Forwarded are the signals to pass on to a command with [Process.Signal].
func Forwarded() []os.Signal { return []os.Signal{os.Interrupt, syscall.SIGTERM} }

// Continued is empty: there is no job control.
func Continued() []os.Signal { return nil }

// Stop does nothing.
func Stop() {}

// Guard is not used: the job object does its work.
func Guard(_ []string, stderr io.Writer) int {
	fmt.Fprintln(stderr, "there is no guard on Windows")
	return 1
}

// Find looks a command up in PATH.
func Find(name string, _ []string) (string, error) {
	path, err := exec.LookPath(name)
	if err == nil || errors.Is(err, exec.ErrDot) {
		return path, nil
	}
	if strings.ContainsAny(name, `/\`) && errors.Is(err, os.ErrPermission) {
		return "", &StartError{Path: name, Err: os.ErrPermission}
	}
	return "", &StartError{Path: name, NotFound: true, Err: errors.New("command not found")}
}
