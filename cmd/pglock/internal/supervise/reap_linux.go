package supervise

import (
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// PID 1 of a container becomes the parent of every process there whose parent is gone,
// such as processes that docker exec or a preStop hook leaves running. If PID 1 does not
// wait for them, they stay zombies until the container ends.

// ReapOrphans reaps children as they end, if this program is PID 1, until end is called.
// The program must not wait for children of its own meanwhile. While a command runs,
// [Start] reaps orphans.
func ReapOrphans() (end func()) { return reapOrphans() }

// reapOrphans is like ReapOrphans, but leaves out some children.
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
				reap(int(info.child.pid))
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
