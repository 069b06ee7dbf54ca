package supervise

import (
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// PID 1 of a container becomes the parent of every process there whose own parent is
// gone, such as what docker exec or a preStop hook leaves running. What it does not wait
// for stays a zombie for as long as the container lives.

// ReapOrphans waits for children as they end, if this program is PID 1, until end is
// called. The program must wait for no child of its own meanwhile; [Start] reaps what
// ends while a command runs.
func ReapOrphans() (end func()) { return reapOrphans() }

// reapOrphans is ReapOrphans for all children but some, for which others wait.
func reapOrphans(but ...int) (end func()) {
	if os.Getpid() != 1 {
		return func() {}
	}
	children := make(chan os.Signal, 1)
	signal.Notify(children, syscall.SIGCHLD)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			for {
				info, ok := waitid(waitAny, 0, unix.WEXITED|unix.WNOWAIT)
				if !ok || slices.Contains(but, int(info.child.pid)) {
					break
				}
				bury(int(info.child.pid))
			}
			select {
			case <-children:
			case <-stop:
				return
			}
		}
	}()
	return sync.OnceFunc(func() {
		signal.Stop(children)
		close(stop)
		<-stopped
	})
}
