//go:build unix

package main

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestNeverTwo runs testdata/worker, which detects overlaps itself, 200 times from two sides at once, and kills pglock, the
// guard, the session or the command. Two commands or their children never overlap, with
// one documented exception: if the session is killed, Postgres grants the lock to the next
// run at once, and the command is ended a moment later.
func TestNeverTwo(t *testing.T) {
	t.Parallel()
	const runs = 200
	s := newSite(t)
	s.place.binary = build(t, ".")
	dir, worker := t.TempDir(), build(t, "./testdata/worker")
	var mu sync.Mutex // guards what follows
	terminated := map[string]bool{}
	overlaps := map[string]string{} // from the number of a run to that of the other
	count := map[string]int{}

	numbers := make(chan int)
	var sides sync.WaitGroup
	for range 2 {
		look := connectTo(t, s.server.ConnString(s.name))
		sides.Add(1)
		go func() {
			defer sides.Done()
			for n := range numbers {
				run := fmt.Sprint(n)
				blow := blows[rand.IntN(len(blows))]
				if blow == "session" {
					mu.Lock()
					terminated[run] = true
					mu.Unlock()
				}
				other, err := oneRun(s, look, worker, dir, run, blow)
				mu.Lock()
				count[blow]++
				if other != "" {
					overlaps[run] = other
				}
				mu.Unlock()
				if err != nil {
					t.Errorf("run %s, %s killed: %v", run, blow, err)
				}
			}
		}()
	}
	for n := range runs {
		if t.Failed() {
			break
		}
		numbers <- n
	}
	close(numbers)
	sides.Wait()

	for run, other := range overlaps {
		if !terminated[other] {
			t.Errorf("run %s overlapped with run %s", run, other)
		}
	}
	t.Logf("what was killed: %v; %d overlaps, all with a killed session", count, len(overlaps))
}

// blows lists what is killed in a run.
var blows = []string{"nothing", "nothing", "pglock", "guard", "session", "command", "politely"}

// oneRun runs the worker once, and deals the blow a moment after its start. It returns the
// run that this one overlapped with, if any.
func oneRun(s site, look database, worker, dir, run, blow string) (overlap string, err error) {
	stdout, writer, err := os.Pipe()
	if err != nil {
		return "", err
	}
	defer stdout.Close()
	cmd := exec.Command(s.place.binary, "run", "--grace", "20ms", "x", "--", worker, dir, run)
	cmd.Env = append(s.env(), "PGAPPNAME=run "+run)
	cmd.Stdout = writer
	err = cmd.Start()
	writer.Close()
	if err != nil {
		return "", err
	}
	output := make([]byte, 100)
	n, readErr := stdout.Read(output)
	line := strings.TrimSpace(string(output[:n]))
	if line == "alone" {
		time.Sleep(time.Duration(rand.IntN(8)) * time.Millisecond)
		err = deal(look, cmd.Process.Pid, run, blow)
	}
	// The output ends when all processes that can write to it have ended, so a timeout
	// means that a process was left behind.
	if e := stdout.SetReadDeadline(time.Now().Add(bound)); e != nil {
		return "", e
	}
	_, restErr := io.ReadAll(stdout)
	if restErr != nil {
		restErr = fmt.Errorf("a process was left behind: %w", restErr)
		_ = cmd.Process.Kill()
	}
	exit := cmd.Wait()
	other, isOverlap := strings.CutPrefix(line, "overlap ")
	if !isOverlap && line != "alone" {
		return "", fmt.Errorf("the worker printed %q (%v), and ended with %v", line, readErr, exit)
	}
	code := cmd.ProcessState.ExitCode()
	allowed := map[string][]int{
		"nothing":  {0},
		"pglock":   {-1, 0}, // 0 if the blow came late
		"guard":    {137, 0},
		"session":  {76, 0},
		"command":  {137, 0},
		"politely": {143, 0},
	}[blow]
	ok := isOverlap && code == 3
	for _, c := range allowed {
		ok = ok || c == code
	}
	if !ok {
		err = errors.Join(err, fmt.Errorf("exit code %d", code))
	}
	if !isOverlap {
		other = ""
	}
	return other, errors.Join(err, restErr)
}

// deal deals a blow to a run of pglock.
func deal(look database, pid int, run, blow string) error {
	switch blow {
	case "pglock":
		_ = syscall.Kill(pid, syscall.SIGKILL)
	case "politely":
		_ = syscall.Kill(pid, syscall.SIGTERM)
	case "guard":
		for _, guard := range childrenOf(pid) {
			_ = syscall.Kill(guard, syscall.SIGKILL)
		}
	case "command":
		for _, guard := range childrenOf(pid) {
			if commands := childrenOf(guard); len(commands) > 0 {
				_ = syscall.Kill(commands[0], syscall.SIGKILL)
			}
		}
	case "session":
		return look.terminate("run " + run)
	}
	return nil
}
