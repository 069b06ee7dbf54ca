// Package supervise runs a command so that nothing of it survives: not when it
// ends, not when it is told to end, and not when the program that runs it dies.
//
// Between the program and the command stands a second process, the guard: the
// same executable, started again under the name [GuardName]. It starts the
// command in a process group of its own, passes signals on to that group, and
// when the command has ended it ends whatever the command left behind. It
// listens on a pipe from the program: when that closes because the program is
// gone, the guard kills everything at once. The guard lives in a process group
// of its own, so that what kills the program's group does not kill it.
//
// On Linux the guard is a "child subreaper" (prctl(2)): a process that leaves
// the group, or whose parent dies, still ends up below the guard, which finds
// and ends it. The kernel kills the command when the guard is killed, and the
// program, a subreaper too, then ends the rest. What remains possible is said in
// docs/command.md.
//
// A signal that reaches the program alone is passed on to the command's group. One that
// reaches the guard too was sent to every process, the command included, and is not
// passed on: see broadcast_unix.go.
//
// Without /proc, or with that of another PID namespace, the guard cannot list its
// descendants. It finds its children by asking the kernel about each PID, and the others
// when they have become its children. As PID 1, the program also waits for the orphans of
// others (reap_linux.go).
//
// [Command.Hold] gives the guard a copy of sockets. A server on the other side
// sees such a socket close only when the program and the guard are both gone: so
// a lock that a session holds is not free before the command has been killed,
// also when the program is killed with SIGKILL.
//
// On macOS there is no such thing; what left the group is looked for among the
// descendants when the command is to be ended.
//
// On Windows there is no guard: a job object does its work.
package supervise
