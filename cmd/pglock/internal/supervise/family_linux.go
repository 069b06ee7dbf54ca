package supervise

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A family is the command and all that it started, directly or not: on Linux the
// descendants of root, which adopts the orphans among them.
type family struct {
	root   int // this process
	leader int // the command, which leads its process group

	ended  bool // the leader has ended, and is kept a zombie so that no other group gets its ID
	reaped bool // the leader was waited for

	probed   time.Time // when probe last looked for children
	children []int     // the children that probe found
}

// An event is a change of the leader's state.
type event struct {
	exited  bool
	status  Status
	stopped syscall.Signal
}

// adoptOrphans makes this process the parent of descendants whose parent ends.
func adoptOrphans() error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("becoming a subreaper: %w", err)
	}
	return nil
}

// diesWithParent sets attr so that the kernel kills the child when the calling thread ends.
func diesWithParent(attr *syscall.SysProcAttr) *syscall.SysProcAttr {
	attr.Pdeathsig = syscall.SIGKILL
	return attr
}

// setProcessName sets the process name that ps(1) and killall(1) use. It would be "exe"
// after [ownExecutable].
func setProcessName(name string) {
	_ = os.WriteFile("/proc/self/comm", []byte(name), 0)
}

// selfExe is this program, even if its file has been replaced.
const selfExe = "/proc/self/exe"

func seesOwnExecutable() bool {
	_, err := os.Stat(selfExe)
	return err == nil
}

// ownExecutable returns a path of this program. Without /proc it is the path that the
// program was started with, from the auxiliary vector (getauxval(3)).
func ownExecutable() (string, error) {
	if seesOwnExecutable() {
		return selfExe, nil
	}
	const atExecFn = 31 // AT_EXECFN
	vector, err := unix.Auxv()
	if err != nil {
		return "", fmt.Errorf("finding this program's file: %w", err)
	}
	for _, entry := range vector {
		if entry[0] == atExecFn && entry[1] != 0 {
			// The kernel wrote the path above the stack, where it stays.
			return unix.BytePtrToString(*(**byte)(unsafe.Pointer(&entry[1]))), nil
		}
	}
	return "", errors.New("the kernel does not provide the path of this program's file")
}

// siginfo is the result of waitid(2), on all Linux architectures.
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

// pollState returns how the leader's state changed since the last call, and reaps orphans
// that have ended.
func (f *family) pollState() event {
	if info, ok := waitid(waitPID, f.leader, unix.WSTOPPED); ok {
		return event{stopped: syscall.Signal(info.child.status)}
	}
	for {
		info, ok := waitid(waitAny, 0, unix.WEXITED|unix.WNOWAIT)
		switch {
		case !ok:
			return event{}
		case int(info.child.pid) != f.leader:
			reap(int(info.child.pid))
		default:
			f.ended = true
			if info.code == cldExited {
				return event{exited: true, status: Status{Code: int(info.child.status)}}
			}
			return event{exited: true, status: Status{Signal: syscall.Signal(info.child.status)}}
		}
	}
}

// reap reaps a child that has ended.
func reap(pid int) { _, _ = syscall.Wait4(pid, nil, syscall.WNOHANG, nil) }

// readProcess parses /proc/PID/stat.
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
	fields := strings.Fields(string(stat[end+1:])) // starts with field 3, the state
	if len(fields) < 20 {
		return process{}, false
	}
	p := process{pid: pid, name: string(stat[open+1 : end]), started: fields[19]} // in clock ticks since boot
	p.zombie = fields[0] == "Z" || fields[0] == "X"
	p.parent, _ = strconv.Atoi(fields[1])
	p.group, _ = strconv.Atoi(fields[2])
	return p, true
}

// errNoProc is returned if /proc does not show this process's PID namespace.
var errNoProc = errors.New("/proc is not mounted, or not for this PID namespace")

// processes returns all processes. It fails if /proc is not mounted, or is that of another
// PID namespace, where PIDs mean other processes.
func processes() ([]process, error) {
	if own, err := os.Readlink("/proc/self"); err != nil || own != strconv.Itoa(os.Getpid()) {
		return nil, errNoProc
	}
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

// parentOf returns the parent of a process, and false if it is not known.
func parentOf(pid int) (parent int, ok bool) {
	if _, err := os.Readlink("/proc/self"); err != nil {
		return 0, false
	}
	p, ok := readProcess(pid)
	return p.parent, ok
}

// Without /proc the descendants cannot be listed. But this process can ask the kernel for
// its children, and every descendant becomes a child when the processes above it end. So
// signaling the children repeatedly reaches all of them. A grandchild that has left the
// command's group gets SIGTERM only when it has become a child.

// probeEvery is the minimum time between probes, which need a system call for each
// possible PID.
const probeEvery = time.Second

// maxPID is the highest PID of Linux (PID_MAX_LIMIT).
const maxPID = 1 << 22

// probe finds the children. Linux assigns increasing PIDs, so they are between the PID of
// this process and the newest, unless the PIDs have wrapped around.
func (f *family) probe() {
	if time.Since(f.probed) < probeEvery {
		return
	}
	if newest, ok := newestPID(); ok && newest > f.root {
		f.children = childrenAmong(f.root, newest)
	} else {
		f.children = nil
	}
	if len(f.children) == 0 {
		f.children = childrenAmong(1, maxPID)
	}
	f.probed = time.Now()
}

// newestPID returns the newest PID, that of a process that it starts and that exits at once.
func newestPID() (int, bool) {
	exe, err := ownExecutable()
	if err != nil {
		return 0, false
	}
	pid, err := syscall.ForkExec(exe, []string{GuardName}, &syscall.ProcAttr{})
	if err != nil {
		return 0, false
	}
	for {
		if _, err := syscall.Wait4(pid, nil, 0, nil); err != syscall.EINTR {
			return pid, true
		}
	}
}

// childrenAmong returns the children of this process with PIDs from first to last.
func childrenAmong(first, last int) (children []int) {
	for pid := first; pid <= last; pid++ {
		if isChild(pid) {
			children = append(children, pid)
		}
	}
	return children
}

// isChild reports whether a process is a child of this one: the kernel refuses to wait
// for any other.
func isChild(pid int) bool {
	_, _, errno := unix.Syscall6(unix.SYS_WAITID, waitPID, uintptr(pid), 0,
		unix.WEXITED|unix.WNOHANG|unix.WNOWAIT|unix.WALL, 0, 0)
	return errno == 0
}

// hasChild reports whether this process has a child that waitid could return for options.
// With WSTOPPED alone, zombies do not count.
func hasChild(options uintptr) bool {
	for {
		_, _, errno := unix.Syscall6(unix.SYS_WAITID, waitAny, 0, 0,
			options|unix.WNOHANG|unix.WNOWAIT|unix.WALL, 0, 0)
		if errno != unix.EINTR {
			return errno != unix.ECHILD
		}
	}
}

func hasLiveChild() bool { return hasChild(unix.WSTOPPED) }

// signalChildren signals the children outside the leader's group, and the groups that
// they lead. Only this goroutine waits for children, so their PIDs cannot be reused
// meanwhile.
func (f *family) signalChildren(sig syscall.Signal) {
	f.probe()
	for _, pid := range f.children {
		if !isChild(pid) {
			continue
		}
		switch group, err := unix.Getpgid(pid); {
		case err == nil && group == f.leader && !f.reaped:
		case err == nil && group == pid:
			_ = syscall.Kill(-pid, sig)
		default:
			_ = syscall.Kill(pid, sig)
		}
	}
}

// signalGroup signals the leader's process group.
func (f *family) signalGroup(sig syscall.Signal) {
	if !f.reaped {
		_ = syscall.Kill(-f.leader, sig)
	}
}

// signal signals the leader's group and the rest of the family.
func (f *family) signal(sig syscall.Signal) {
	f.signalGroup(sig)
	all, err := processes()
	if err != nil {
		if hasLiveChild() {
			f.signalChildren(sig)
		}
		return
	}
	for _, p := range descendants(all, f.root) {
		if !p.zombie && (p.group != f.leader || f.reaped) {
			p.signal(sig)
		}
	}
}

// signal signals the process, unless its PID has been reused.
func (p process) signal(sig syscall.Signal) {
	fd, err := unix.PidfdOpen(p.pid, 0)
	switch {
	case err == unix.ESRCH:
		return
	case err != nil: // Linux before 5.3, or a sandbox without pidfds
		_ = syscall.Kill(p.pid, sig)
		return
	}
	defer unix.Close(fd)
	if now, ok := readProcess(p.pid); ok && now.started == p.started {
		_ = unix.PidfdSendSignal(fd, sig, nil, 0)
	}
}

// gone reports whether nothing of the family is left. It reaps the leader last.
func (f *family) gone() bool {
	if all, err := processes(); err == nil {
		for _, p := range descendants(all, f.root) {
			switch {
			case p.pid == f.leader && p.zombie:
			case p.zombie && p.parent == f.root:
				reap(p.pid)
			case p.zombie:
				// Its parent must reap it, and is alive.
			default:
				return false
			}
		}
	}
	// The list is not atomic, or there is none. But every process that is left has an
	// ancestor that is a child of this process, which the kernel knows for certain.
	if !f.ended || hasLiveChild() {
		return false
	}
	if !f.reaped {
		reap(f.leader)
		f.reaped = true
	}
	return childless()
}

// childless reaps children that have ended, and reports whether none is left.
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

// killAll kills what a killed guard left to this process, and returns how the leader
// ended. It returns an error if processes do not end.
func (f *family) killAll() (Status, error) {
	var status Status
	deadline := time.Now().Add(killTimeout)
	for {
		if e := f.pollState(); e.exited {
			status = e.status
		}
		if !hasChild(unix.WSTOPPED | unix.WEXITED) {
			return status, nil
		}
		f.signal(syscall.SIGKILL)
		if f.gone() {
			return status, nil
		}
		if time.Now().After(deadline) {
			return status, fmt.Errorf("still running: %s", f)
		}
		time.Sleep(pollInterval)
	}
}

// String names the processes that are left.
func (f *family) String() string {
	var names []string
	all, err := processes()
	if err != nil {
		f.probe()
		for _, pid := range f.children {
			if isChild(pid) {
				names = append(names, fmt.Sprintf("pid %d", pid))
			}
		}
		return strings.Join(names, ", ")
	}
	for _, p := range descendants(all, f.root) {
		if !p.zombie {
			names = append(names, fmt.Sprintf("pid %d (%s)", p.pid, p.name))
		}
	}
	return strings.Join(names, ", ")
}
