//go:build unix

package supervise

import (
	"syscall"
	"time"
)

// The program and the guard talk in JSON, one value after the other, over two
// pipes. The first message to the guard is a start; orders follow.

// start tells the guard what to start.
type start struct {
	Path  []byte   // bytes, since names of files need not be UTF-8, as text in JSON is
	Args  [][]byte // likewise
	Grace time.Duration

	// Foreground gives the command's group the terminal from the beginning.
	Foreground bool

	// Group is the program's process group, which gets the terminal back.
	Group int
}

// order tells the guard what to do; one field is set.
type order struct {
	Signal   syscall.Signal `json:",omitempty"` // pass it on to the command's group
	Continue bool           `json:",omitempty"` // the program was continued: so is the command
	End      bool           `json:",omitempty"` // end everything: SIGTERM, the grace, SIGKILL
}

// report tells the program what happened; one field is set.
type report struct {
	Started int           `json:",omitempty"` // the command's pid
	Failed  syscall.Errno `json:",omitempty"` // it could not be started
	Exited  *Status       `json:",omitempty"` // it ended, and what it left is being ended
	Stopped bool          `json:",omitempty"` // it was stopped, as by Ctrl-Z
	Stuck   string        `json:",omitempty"` // who cannot be ended
	Done    bool          `json:",omitempty"` // nothing of it is left
}
