// Command cost runs a command line, discards its output, and prints what it cost. It is
// small, because Linux counts the memory of a process' parent as the least that the process
// has used.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"time"

	"github.com/pglock-go/pglock/stress/bench/internal/usage"
)

func main() {
	cmd := exec.Command(os.Args[1], os.Args[2:]...)
	cmd.Stderr = os.Stderr
	began := time.Now()
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	c := usage.Cost{Took: time.Since(began), CPU: cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()}
	if memory, ok := usage.PeakMemory(cmd.ProcessState); ok {
		c.Memory = memory
	}
	if err := json.NewEncoder(os.Stdout).Encode(c); err != nil {
		os.Exit(1)
	}
}
