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
	// settle is how long what the command left behind may take to end by itself.
	settle = 100 * time.Millisecond

	// poll is how often it is looked whether all has ended.
	poll = 10 * time.Millisecond

	// patience is how long the system may take to end what was killed.
	patience = 5 * time.Second

	// killed is the exit code of what is killed, as a shell elsewhere has it.
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
	done   chan struct{} // and so has all that it started
	status Status
	err    error
}

// An Event is something that happened to a running command. One field is set.
type Event struct {
	Stopped bool   // never: there is no job control
	Stuck   string // names processes that cannot be ended, and why
}

// Start starts a command. It is suspended until it is in the job, so that it has
// started nothing before.
func Start(c Command) (*Process, error) {
	job, err := newJob()
	if err != nil {
		return nil, err
	}
	cmd := &exec.Cmd{
		Path: c.Path, Args: c.Args, Env: c.Env,
		Stdin: c.Stdin, Stdout: c.Stdout, Stderr: c.Stderr,
		// A group of its own: Ctrl-Break can be sent to it and not to us.
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

// follow waits for the end of the command, and ends what it left behind.
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
	if p.job.empty(settle) {
		return
	}
	p.End()
	for told := false; ; {
		// After the grace it is killed, and that takes the system a moment.
		if p.job.empty(p.grace + patience) {
			return
		}
		if !told {
			told = true
			p.events <- Event{Stuck: fmt.Sprintf("%d processes in its job object", p.job.active())}
		}
	}
}

// PID is the command's process id, and the id of its process group.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Events tells what happens to the command. The channel closes when nothing of
// the command is left.
func (p *Process) Events() <-chan Event { return p.events }

// Signal sends Ctrl-Break to the command's process group, whatever the signal: it
// is the one that a group can be sent, and what it does not handle ends by it.
func (p *Process) Signal(syscall.Signal) { _ = p.interrupt() }

// interrupt fails where there is no console, as in a service.
func (p *Process) interrupt() error {
	select {
	case <-p.exited: // another process may have its number
		return os.ErrProcessDone
	default:
		return windows.GenerateConsoleCtrlEvent(windows.CTRL_BREAK_EVENT, uint32(p.PID()))
	}
}

// Continue does nothing: there is no job control.
func (p *Process) Continue() {}

// End ends the command and all it started: Ctrl-Break, then after the grace the
// end of the job. Wait tells when that is done. Where nothing can be sent, because
// there is no console or the command itself has ended, nothing is waited for.
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

// Guard is not used: the job object does its work.
func Guard(_ []string, stderr io.Writer) int {
	fmt.Fprintln(stderr, "there is no guard on Windows")
	return 1
}
