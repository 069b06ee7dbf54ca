//go:build unix

package supervise

import (
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// Only one process group at a time, the foreground group, may use a terminal. Any other
// that reads from it or changes its modes is stopped by SIGTTIN or SIGTTOU (termios(3),
// credentials(7)).

// foreground returns the foreground group of terminal f. ok is false if f is not the
// controlling terminal of this process.
func foreground(f *os.File) (group int, ok bool) {
	if f == nil {
		return 0, false
	}
	group, err := unix.IoctlGetInt(int(f.Fd()), unix.TIOCGPGRP)
	return group, err == nil
}

// giveTerminal makes group the foreground group of terminal f.
func giveTerminal(f *os.File, group int) {
	// The guard calls this from a background group, and would be stopped by SIGTTOU.
	// It starts no more processes that would inherit the ignored signal.
	signal.Ignore(syscall.SIGTTOU)
	_ = unix.IoctlSetPointerInt(int(f.Fd()), unix.TIOCSPGRP, group)
}

// ownsTerminal reports whether to give the command the terminal at the start, rather than
// when it needs it: if this program has the terminal and leads its group. If stdout goes
// elsewhere, it does not: it may go to a pager in the same group that needs the keyboard.
func ownsTerminal(stdin, stdout *os.File) bool {
	in, ok := foreground(stdin)
	if !ok {
		return false
	}
	_, ok = foreground(stdout)
	return ok && in == unix.Getpgrp() && unix.Getpgrp() == os.Getpid()
}
