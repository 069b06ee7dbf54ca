//go:build !unix

package usage

import (
	"os"
	"time"
)

// OwnCPU returns false: the system does not report it.
func OwnCPU() (time.Duration, bool) { return 0, false }

// PeakMemory returns false: the system does not report it.
func PeakMemory(*os.ProcessState) (int64, bool) { return 0, false }
