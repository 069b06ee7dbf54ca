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

// A family is the command and all that it started: outside Linux, its process group.
// Orphans are not adopted here. So a process that leaves the group is found only if the
// system lists processes, and only while all processes between it and the command live.
// Once found, it is remembered.
type family struct {
	root   int // this process
	leader int // the command, which leads its process group
	ended  bool
	strays []process // known processes outside the group
}

// An event is a change of the leader's state.
type event struct {
	exited  bool
	status  Status
	stopped syscall.Signal
}

func adoptOrphans() error { return nil }

func diesWithParent(attr *syscall.SysProcAttr) *syscall.SysProcAttr { return attr }

func setProcessName(string) {}

func ownExecutable() (string, error) { return os.Executable() }

func seesOwnExecutable() bool { return true }

// parentOf returns the parent of a process, and false if it is not known.
func parentOf(pid int) (parent int, ok bool) {
	all, err := processes()
	i := slices.IndexFunc(all, func(p process) bool { return p.pid == pid })
	if err != nil || i < 0 {
		return 0, false
	}
	return all[i].parent, true
}

// ReapOrphans does nothing: programs run as PID 1 only on Linux.
func ReapOrphans() (end func()) { return func() {} }

func reapOrphans(...int) (end func()) { return func() {} }

// pollState returns how the leader's state changed since the last call.
func (f *family) pollState() event {
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

// findStrays removes the strays that have ended, and adds those that it can find.
func (f *family) findStrays() {
	all, err := processes()
	if err != nil {
		return // then no stray was ever found
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

// signal signals the group and the strays. It looks for strays first, because the signal
// ends the processes through which they are found.
func (f *family) signal(sig syscall.Signal) {
	f.findStrays()
	f.signalGroup(sig)
	for _, p := range f.strays {
		_ = syscall.Kill(p.pid, sig)
	}
}

// gone reports whether neither the group nor a stray is left. On macOS, signaling a group
// of only zombies fails with EPERM.
func (f *family) gone() bool {
	if err := syscall.Kill(-f.leader, 0); !f.ended || err == nil {
		return false
	}
	f.findStrays()
	return len(f.strays) == 0
}

// killAll kills what a killed guard left. It does not know the leader's status, because
// the leader was the guard's child.
func (f *family) killAll() (Status, error) {
	deadline := time.Now().Add(killTimeout)
	for syscall.Kill(-f.leader, syscall.SIGKILL) == nil {
		if time.Now().After(deadline) {
			return Status{Signal: syscall.SIGKILL}, fmt.Errorf("still running: %s", f)
		}
		time.Sleep(pollInterval)
	}
	return Status{Signal: syscall.SIGKILL}, nil
}

// String names the processes that are left.
func (f *family) String() string {
	text := fmt.Sprintf("process group %d", f.leader)
	for _, p := range f.strays {
		text += fmt.Sprintf(", pid %d (%s)", p.pid, p.name)
	}
	return text
}
