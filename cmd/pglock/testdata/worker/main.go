// Command worker does work that must not overlap: worker DIR RUN. It locks a marker file
// with flock(2). The kernel releases that when all processes with the file open have ended,
// including the worker's child.
package main

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

func main() { os.Exit(work(os.Args[1], os.Args[2])) }

func work(dir, run string) int {
	marker, err := os.OpenFile(filepath.Join(dir, "marker"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if err := syscall.Flock(int(marker.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		other, _ := io.ReadAll(marker)
		fmt.Printf("overlap %s\n", other)
		return 3
	}
	if err := errors.Join(marker.Truncate(0), writeAt(marker, run)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	// The child has its own session and ignores SIGTERM, SIGINT and SIGHUP.
	child := exec.Command("sh", "-c", "trap '' TERM INT HUP; exec sleep 1000")
	child.ExtraFiles = []*os.File{marker}
	child.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := child.Start(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println("alone")
	time.Sleep(time.Duration(rand.IntN(10)) * time.Millisecond) // the work
	if rand.IntN(3) > 0 {
		// Clean up in most runs; in the others pglock must end the child.
		_ = child.Process.Kill()
		_ = child.Wait()
	}
	return 0
}

func writeAt(f *os.File, text string) error {
	_, err := f.WriteAt([]byte(text), 0)
	return err
}
