//go:build unix

package chaos

import "golang.org/x/sys/unix"

// now reads a clock that all processes of the machine share and that is never set. Go's
// own monotonic time starts anew in each process.
func now() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic(err) // the clock always exists
	}
	return ts.Nano()
}
