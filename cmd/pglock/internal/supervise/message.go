//go:build unix

package supervise

import (
	"syscall"
	"time"
)

// The program and the guard exchange a stream of JSON values over two pipes. The first
// message to the guard is a start; orders follow.

// A start tells the guard what to start.
type start struct {
	Path  []byte   // not a string: file names need not be UTF-8, but JSON strings must
	Args  [][]byte // likewise
	Grace time.Duration

	// Foreground gives the command's group the terminal at the start.
	Foreground bool

	// Group is the program's process group, which gets the terminal back at the end.
	Group int
}

// An order tells the guard what to do. One field is set.
type order struct {
	Signal   syscall.Signal `json:",omitempty"` // pass it on to the command's group
	Continue bool           `json:",omitempty"` // continue the command, as the program was continued
	End      bool           `json:",omitempty"` // end everything: SIGTERM, and SIGKILL after the grace
}

// A report tells the program what happened. One field is set.
type report struct {
	Started int           `json:",omitempty"` // the command's PID
	Failed  syscall.Errno `json:",omitempty"` // the command could not be started
	Exited  *Status       `json:",omitempty"` // the command ended; what it left is being ended
	Stopped bool          `json:",omitempty"` // the command was stopped, as by Ctrl-Z
	Stuck   string        `json:",omitempty"` // the processes that do not end
	Done    bool          `json:",omitempty"` // nothing of the command is left
}
