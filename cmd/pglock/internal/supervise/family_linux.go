package supervise

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// family is the command and all that it started, directly or not: on Linux the
// descendants of root, which adopts the orphans among them.
type family struct {
	root   int // this process
	leader int // the command, its group's leader

	ended  bool // the leader has ended; it stays a zombie, so that no other group can get its number
	buried bool // and is gone now
}

// event is what became of the leader.
type event struct {
	exited  bool
	status  Status
	stopped syscall.Signal
}

// adoptOrphans makes this process the parent of descendants whose own is gone.
func adoptOrphans() error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("becoming a subreaper: %w", err)
	}
	return nil
}

// diesWithParent makes the kernel kill the child when the calling thread ends.
func diesWithParent(attr *syscall.SysProcAttr) *syscall.SysProcAttr {
	attr.Pdeathsig = syscall.SIGKILL
	return attr
}

// nameProcess sets the name that ps(1) and killall(1) know the process by, which
// would be "exe" after [ownExecutable].
func nameProcess(name string) {
	_ = os.WriteFile("/proc/self/comm", []byte(name), 0)
}

// ownExecutable is this program, also when its file has been replaced meanwhile.
func ownExecutable() (string, error) {
	const self = "/proc/self/exe"
	if _, err := os.Stat(self); err == nil {
		return self, nil
	}
	return os.Executable()
}

// siginfo is what waitid(2) tells, on all of Linux' architectures.
type siginfo struct {
	signo, errno, code int32
	child              struct {
		_           [0]uintptr // aligned as the pointers in the C union
		pid         int32
		uid, status int32
	}
	_ [128]byte // the kernel writes 128 bytes in all
}

const (
	cldExited = 1 // si_code, see sigaction(2)
	waitAny   = unix.P_ALL
	waitPID   = unix.P_PID
)

func waitid(kind, id, options int) (info siginfo, ok bool) {
	for {
		info = siginfo{}
		_, _, errno := unix.Syscall6(unix.SYS_WAITID, uintptr(kind), uintptr(id),
			uintptr(unsafe.Pointer(&info)), uintptr(options|unix.WNOHANG), 0, 0)
		if errno == unix.EINTR {
			continue
		}
		return info, errno == 0 && info.child.pid != 0
	}
}

// look tells what became of the leader since the last look, and buries orphans
// that have ended.
func (f *family) look() event {
	if info, ok := waitid(waitPID, f.leader, unix.WSTOPPED); ok {
		return event{stopped: syscall.Signal(info.child.status)}
	}
	for {
		info, ok := waitid(waitAny, 0, unix.WEXITED|unix.WNOWAIT)
		switch {
		case !ok:
			return event{}
		case int(info.child.pid) != f.leader:
			bury(int(info.child.pid))
		default:
			f.ended = true
			if info.code == cldExited {
				return event{exited: true, status: Status{Code: int(info.child.status)}}
			}
			return event{exited: true, status: Status{Signal: syscall.Signal(info.child.status)}}
		}
	}
}

func bury(pid int) { _, _ = syscall.Wait4(pid, nil, syscall.WNOHANG, nil) }

// readProcess reads a line of /proc/PID/stat.
func readProcess(pid int) (process, bool) {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return process{}, false
	}
	// The name is in parentheses and may contain anything.
	open, end := bytes.IndexByte(stat, '('), bytes.LastIndexByte(stat, ')')
	if open < 0 || end < open {
		return process{}, false
	}
	fields := strings.Fields(string(stat[end+1:])) // from field 3, the state, on
	if len(fields) < 20 {
		return process{}, false
	}
	p := process{pid: pid, name: string(stat[open+1 : end]), started: fields[19]} // in clock ticks since boot
	p.zombie = fields[0] == "Z" || fields[0] == "X"
	p.parent, _ = strconv.Atoi(fields[1])
	p.group, _ = strconv.Atoi(fields[2])
	return p, true
}

// processes are all of the system's.
func processes() ([]process, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var all []process
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		if p, ok := readProcess(pid); ok {
			all = append(all, p)
		}
	}
	return all, nil
}

// members are the descendants of root.
func (f *family) members() ([]process, error) {
	all, err := processes()
	return descendants(all, f.root), err
}

// signalGroup signals the leader's process group.
func (f *family) signalGroup(sig syscall.Signal) {
	if !f.buried {
		_ = syscall.Kill(-f.leader, sig)
	}
}

// signal signals the group, and all others of the family.
func (f *family) signal(sig syscall.Signal) {
	f.signalGroup(sig)
	members, _ := f.members()
	for _, p := range members {
		if !p.zombie && (p.group != f.leader || f.buried) {
			p.signal(sig)
		}
	}
}

// signal signals this process, and none that has got its number since.
func (p process) signal(sig syscall.Signal) {
	fd, err := unix.PidfdOpen(p.pid, 0)
	switch {
	case err == unix.ESRCH:
		return
	case err != nil: // Linux before 5.3, or a sandbox that does not know pidfds
		_ = syscall.Kill(p.pid, sig)
		return
	}
	defer unix.Close(fd)
	if now, ok := readProcess(p.pid); ok && now.started == p.started {
		_ = unix.PidfdSendSignal(fd, sig, nil, 0)
	}
}

// gone reports whether nothing of the family is left but the leader, which it
// then buries.
func (f *family) gone() bool {
	members, err := f.members()
	if err != nil {
		// No /proc. Give up the leader's zombie; then the kernel tells whether
		// there are children left.
		if f.ended && !f.buried {
			_ = syscall.Kill(-f.leader, syscall.SIGKILL)
			bury(f.leader)
			f.buried = true
		}
		return f.buried && childless()
	}
	for _, p := range members {
		switch {
		case p.pid == f.leader && p.zombie:
		case p.zombie && p.parent == f.root:
			bury(p.pid)
		case p.zombie:
			// Its parent's to bury, which is alive and counts.
		default:
			return false
		}
	}
	if !f.ended {
		return false
	}
	if !f.buried {
		bury(f.leader)
		f.buried = true
	}
	// A list is no moment in time. But whoever is left has an ancestor that is
	// our own child, and that the kernel knows for sure.
	return childless()
}

// childless reports whether this process has no children, buried ones aside.
func childless() bool {
	for {
		pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
		switch {
		case err == syscall.EINTR || pid > 0:
		default:
			return err == syscall.ECHILD
		}
	}
}

// killAll kills what a guard left to this process, and returns how the leader
// ended. The error says who does not end.
func (f *family) killAll() (Status, error) {
	var status Status
	deadline := time.Now().Add(patience)
	for {
		if e := f.look(); e.exited {
			status = e.status
		}
		if members, err := f.members(); err != nil || len(members) == 0 {
			return status, err
		}
		f.signal(syscall.SIGKILL)
		if f.gone() {
			return status, nil
		}
		if time.Now().After(deadline) {
			return status, fmt.Errorf("still there: %s", f)
		}
		time.Sleep(poll)
	}
}

// String names who is left.
func (f *family) String() string {
	members, err := f.members()
	if err != nil {
		return err.Error()
	}
	var names []string
	for _, p := range members {
		if !p.zombie {
			names = append(names, fmt.Sprintf("pid %d (%s)", p.pid, p.name))
		}
	}
	return strings.Join(names, ", ")
}
