package supervise

import (
	"os"
	"os/exec"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// Without /proc the children are found too, and zombies do not count as alive.
func TestChildrenWithoutProc(t *testing.T) {
	if hasChild(unix.WSTOPPED | unix.WEXITED) {
		t.Fatal("there are children before any was started")
	}
	// The shell ends when the pipe closes.
	cmd := exec.Command("sh", "-c", "read line; exit 0")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := cmd.Process.Pid
	f := family{root: os.Getpid()}
	f.probe()
	if !hasLiveChild() || !slices.Equal(f.children, []int{pid}) {
		t.Errorf("the child is %d; found: %v", pid, f.children)
	}
	if isChild(os.Getpid()) || isChild(1) {
		t.Error("found children that do not exist")
	}
	stdin.Close()
	var info unix.Siginfo
	if err := unix.Waitid(unix.P_PID, pid, &info, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
		t.Fatal(err)
	}
	if hasLiveChild() || !hasChild(unix.WSTOPPED|unix.WEXITED) || !isChild(pid) {
		t.Error("a zombie counts as alive, or not as a child")
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	if hasChild(unix.WSTOPPED|unix.WEXITED) || isChild(pid) {
		t.Error("a child that was waited for is still found")
	}
}
