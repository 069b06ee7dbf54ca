//go:build unix

package supervise

import (
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// A terminal gives its keyboard to one process group at a time, the foreground
// group. Any other that reads from it or changes its modes is stopped by SIGTTIN
// or SIGTTOU (termios(3), credentials(7)).

// foreground is the group that terminal f is given to; ok is false when f is not
// the terminal that this process belongs to.
func foreground(f *os.File) (group int, ok bool) {
	if f == nil {
		return 0, false
	}
	group, err := unix.IoctlGetInt(int(f.Fd()), unix.TIOCGPGRP)
	return group, err == nil
}

// giveTerminal makes group the foreground group of terminal f.
func giveTerminal(f *os.File, group int) {
	// It is the guard that calls this, which is in a background group: without
	// ignoring SIGTTOU it would be stopped. It starts no process any more, that
	// would inherit it.
	signal.Ignore(syscall.SIGTTOU)
	_ = unix.IoctlSetPointerInt(int(f.Fd()), unix.TIOCSPGRP, group)
}

// ownsTerminal reports whether the command should have the terminal from the
// beginning, rather than when it asks for it: when this program has it, and
// shares it with no one. When stdout goes elsewhere, then perhaps to a pager in
// our own group that needs the keyboard.
func ownsTerminal(stdin, stdout *os.File) bool {
	in, ok := foreground(stdin)
	if !ok {
		return false
	}
	_, ok = foreground(stdout)
	return ok && in == unix.Getpgrp() && unix.Getpgrp() == os.Getpid()
}
