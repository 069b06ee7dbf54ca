//go:build unix && !linux

package supervise

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
)

// family is the command and all that it started: outside Linux, those of its
// process group. One that leaves the group is out of reach.
type family struct {
	root   int // this process
	leader int // the command, its group's leader
	ended  bool
}

// event is what became of the leader.
type event struct {
	exited  bool
	status  Status
	stopped syscall.Signal
}

func adoptOrphans() error { return nil }

func diesWithParent(attr *syscall.SysProcAttr) *syscall.SysProcAttr { return attr }

func nameProcess(string) {}

func ownExecutable() (string, error) { return os.Executable() }

// look tells what became of the leader since the last look.
func (f *family) look() event {
	if f.ended {
		return event{}
	}
	for {
		var ws syscall.WaitStatus
		pid, err := syscall.Wait4(f.leader, &ws, syscall.WNOHANG|syscall.WUNTRACED, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case pid != f.leader:
			return event{}
		case ws.Stopped():
			return event{stopped: ws.StopSignal()}
		case ws.Signaled():
			f.ended = true
			return event{exited: true, status: Status{Signal: ws.Signal()}}
		case ws.Exited():
			f.ended = true
			return event{exited: true, status: Status{Code: ws.ExitStatus()}}
		}
	}
}

func (f *family) signalGroup(sig syscall.Signal) { _ = syscall.Kill(-f.leader, sig) }

func (f *family) signal(sig syscall.Signal) { f.signalGroup(sig) }

// gone reports whether nothing is left of the group. A group of zombies alone
// may not be signalled on macOS, which says EPERM.
func (f *family) gone() bool {
	err := syscall.Kill(-f.leader, 0)
	return f.ended && err != nil
}

// killAll kills what a guard left. The leader's status is not to be had: it was
// the guard's child.
func (f *family) killAll() (Status, error) {
	deadline := time.Now().Add(patience)
	for syscall.Kill(-f.leader, syscall.SIGKILL) == nil {
		if time.Now().After(deadline) {
			return Status{Signal: syscall.SIGKILL}, fmt.Errorf("still there: %s", f)
		}
		time.Sleep(poll)
	}
	return Status{Signal: syscall.SIGKILL}, nil
}

// String names who is left.
func (f *family) String() string { return fmt.Sprintf("process group %d", f.leader) }
