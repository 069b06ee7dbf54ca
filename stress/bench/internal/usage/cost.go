// Package usage reports what processes have used.
package usage

import "time"

// A Cost is what a process has used from start to exit.
type Cost struct {
	Took, CPU time.Duration
	Memory    int64 // the highest, in bytes; 0 if unknown
}
