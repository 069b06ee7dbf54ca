//go:build unix

package usage

import (
	"os"
	"runtime"
	"syscall"
	"time"
)

// OwnCPU returns the processor time of this process since its start. It returns false if
// the system does not report it.
func OwnCPU() (time.Duration, bool) {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0, false
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), true
}

// PeakMemory returns the highest memory use of a process that has exited, in bytes, but at
// least that of its parent, which Linux counts as well. It returns false if the system does
// not report it.
func PeakMemory(p *os.ProcessState) (int64, bool) {
	u, ok := p.SysUsage().(*syscall.Rusage)
	if !ok {
		return 0, false
	}
	if runtime.GOOS == "darwin" {
		return int64(u.Maxrss), true
	}
	return int64(u.Maxrss) << 10, true
}
