// Package supervise runs a command and ends all of its processes: when the command ends,
// when it is told to end, and when the program that runs it dies.
//
// Between the program and the command runs a second process, the guard. It is the same
// executable, started under the name [GuardName]. The guard starts the command in a
// separate process group, passes signals on to that group, and ends the processes that
// the command leaves behind. It reads from a pipe from the program: if the pipe closes
// because the program is gone, the guard kills everything at once. The guard has its own
// process group, so that a signal that kills the program's group does not kill it.
//
// On Linux the guard is a "child subreaper" (prctl(2)): a process that leaves the group,
// or whose parent dies, becomes a descendant of the guard, which finds and ends it. If
// the guard is killed, the kernel kills the command, and the program, also a subreaper,
// ends the rest. docs/command.md lists the remaining gaps.
//
// A signal that reaches only the program is passed on to the command's group. If it
// reaches the guard too, it was sent to every process including the command, and is not
// passed on: see broadcast_unix.go.
//
// Without /proc, or with that of another PID namespace, the guard cannot list its
// descendants. It then finds its children by asking the kernel about each PID, and other
// descendants once they have become its children. As PID 1, the program also waits for
// orphans that are not its own (reap_linux.go).
//
// [Command.Hold] gives the guard a copy of sockets. A server sees such a socket close
// only when both the program and the guard are gone. So the lock of a session is not
// released before the command has been killed, even if the program is killed with
// SIGKILL.
//
// macOS has no subreapers. There, processes that left the group are looked for among the
// descendants when the command must end.
//
// On Windows a job object takes the place of the guard.
package supervise
