//go:build unix && !linux

package supervise

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"
	"time"
)

// family is the command and all that it started: outside Linux, its process group.
// Nothing here adopts the orphans among the descendants, so one that leaves the
// group is found only, and only where processes are listed, while all between it
// and the command still live. Those that were found are known from then on.
type family struct {
	root   int // this process
	leader int // the command, its group's leader
	ended  bool
	strays []process // those outside the group
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

func seesOwnExecutable() bool { return true }

// parentOf returns the parent of a process, and false if that is not known.
func parentOf(pid int) (parent int, ok bool) {
	all, err := processes()
	i := slices.IndexFunc(all, func(p process) bool { return p.pid == pid })
	if err != nil || i < 0 {
		return 0, false
	}
	return all[i].parent, true
}

// ReapOrphans does nothing: what runs as PID 1 runs on Linux.
func ReapOrphans() (end func()) { return func() {} }

func reapOrphans(...int) (end func()) { return func() {} }

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

// findStrays forgets the strays that have ended, and adds those that can be found.
func (f *family) findStrays() {
	all, err := processes()
	if err != nil {
		return // then there never were any
	}
	now := map[int]process{}
	for _, p := range all {
		now[p.pid] = p
	}
	var roots []int
	if !f.ended {
		roots = append(roots, f.leader)
	}
	var strays []process
	for _, p := range f.strays {
		if same := now[p.pid]; same.started == p.started && !same.zombie {
			strays = append(strays, p)
			roots = append(roots, p.pid)
		}
	}
	for _, p := range descendants(all, roots...) {
		if p.group != f.leader && !p.zombie {
			strays = append(strays, p)
		}
	}
	f.strays = strays
}

// signal signals the group, and the strays. They are looked for before: the signal
// ends those by whom they are found.
func (f *family) signal(sig syscall.Signal) {
	f.findStrays()
	f.signalGroup(sig)
	for _, p := range f.strays {
		_ = syscall.Kill(p.pid, sig)
	}
}

// gone reports whether nothing is left of the group, nor of the strays. A group of
// zombies alone may not be signalled on macOS, which says EPERM.
func (f *family) gone() bool {
	if err := syscall.Kill(-f.leader, 0); !f.ended || err == nil {
		return false
	}
	f.findStrays()
	return len(f.strays) == 0
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
func (f *family) String() string {
	text := fmt.Sprintf("process group %d", f.leader)
	for _, p := range f.strays {
		text += fmt.Sprintf(", pid %d (%s)", p.pid, p.name)
	}
	return text
}
