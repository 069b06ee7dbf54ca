package supervise

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/windows"
)

const (
	// settleTime is how long what the command left behind may take to end by itself.
	settleTime = 100 * time.Millisecond

	// pollInterval is how often the job is checked for running processes.
	pollInterval = 10 * time.Millisecond

	// killTimeout is how long the system may take to end killed processes.
	killTimeout = 5 * time.Second

	// killed is the exit code of killed processes, as in a Unix shell.
	killed = 128 + 9
)

// A Process is a command that was started, in a job object. Its methods may be
// called from several goroutines.
type Process struct {
	cmd    *exec.Cmd
	job    *job
	grace  time.Duration
	events chan Event
	end    sync.Once
	exited chan struct{} // the command has ended
	done   chan struct{} // and so have all processes that it started
	status Status
	err    error
}

// An Event is something that happened to a running command. One field is set.
type Event struct {
	Stopped bool   // never: there is no job control
	Stuck   string // names the processes that do not end
}

// Start starts a command. The command is suspended until it is in the job, so that it
// cannot start a process outside.
func Start(c Command) (*Process, error) {
	job, err := newJob()
	if err != nil {
		return nil, err
	}
	cmd := &exec.Cmd{
		Path: c.Path, Args: c.Args, Env: c.Env,
		Stdin: c.Stdin, Stdout: c.Stdout, Stderr: c.Stderr,
		// A separate group, so that Ctrl-Break can be sent to it alone.
		SysProcAttr: &syscall.SysProcAttr{CreationFlags: windows.CREATE_NEW_PROCESS_GROUP | windows.CREATE_SUSPENDED},
		WaitDelay:   time.Second,
	}
	if err := cmd.Start(); err != nil {
		job.close()
		return nil, &StartError{Path: c.Path, NotFound: errors.Is(err, os.ErrNotExist), Err: err}
	}
	if err := job.adopt(cmd.Process.Pid); err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		job.close()
		return nil, err
	}
	p := &Process{
		cmd: cmd, job: job, grace: c.Grace, events: make(chan Event, 8),
		exited: make(chan struct{}), done: make(chan struct{}),
	}
	go p.follow()
	return p, nil
}

// follow waits until the command ends, and ends what it left behind.
func (p *Process) follow() {
	defer close(p.done)
	defer close(p.events)
	defer p.job.close()
	err := p.cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) && !errors.Is(err, exec.ErrWaitDelay) {
		p.err = err
	}
	p.status = Status{Code: p.cmd.ProcessState.ExitCode()}
	close(p.exited)
	if p.job.empty(settleTime) {
		return
	}
	p.End()
	for reported := false; ; {
		// After the grace the job is killed, which takes the system a moment.
		if p.job.empty(p.grace + killTimeout) {
			return
		}
		if !reported {
			reported = true
			p.events <- Event{Stuck: fmt.Sprintf("%d processes in its job object", p.job.active())}
		}
	}
}

// PID returns the command's PID, which is also the ID of its process group.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Events returns the channel of the command's events. It closes when nothing of the
// command is left.
func (p *Process) Events() <-chan Event { return p.events }

// Signal sends Ctrl-Break to the command's process group, for any signal. It is the only
// event that can be sent to a group, and ends processes that do not handle it.
func (p *Process) Signal(syscall.Signal) { _ = p.interrupt() }

// interrupt sends Ctrl-Break. It fails if there is no console, as in a service.
func (p *Process) interrupt() error {
	select {
	case <-p.exited: // its PID may have been reused
		return os.ErrProcessDone
	default:
		return windows.GenerateConsoleCtrlEvent(windows.CTRL_BREAK_EVENT, uint32(p.PID()))
	}
}

// Continue does nothing: there is no job control.
func (p *Process) Continue() {}

// End ends the command and all it started, with Ctrl-Break and after the grace by killing
// the job. If Ctrl-Break cannot be sent, because there is no console or the command itself
// has ended, it kills the job at once. It does not block; Wait does.
func (p *Process) End() {
	p.end.Do(func() {
		if p.interrupt() != nil {
			p.job.kill()
			return
		}
		go func() {
			select {
			case <-p.done:
			case <-time.After(p.grace):
				p.job.kill()
			}
		}()
	})
}

// Wait waits until nothing of the command is left, and returns how the command
// itself ended.
func (p *Process) Wait() (Status, error) {
	<-p.done
	return p.status, p.err
}

// Guard is not used on Windows: a job object takes its place.
func Guard(_ []string, stderr io.Writer) int {
	fmt.Fprintln(stderr, "there is no guard on Windows")
	return 1
}
