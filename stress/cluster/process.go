//go:build unix

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// commandTimeout limits how long a worker may take for a command. Each of its operations
// takes a few seconds at most; the rest is for busy machines.
const commandTimeout = time.Minute

// A process is a running worker.
type process struct {
	config workerConfig
	cmd    *exec.Cmd
	in     *os.File
	lines  chan string // its standard output, closed at the end
	log    string      // the file with its standard error
}

// startWorker starts this program again as a worker, which waits for the first "go".
func startWorker(c workerConfig) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	p := &process{config: c, lines: make(chan string, 1), log: filepath.Join(c.Dir, c.Name+".log")}
	log, err := os.Create(p.log)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	inEnd, in, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer inEnd.Close()
	p.in = in
	// It exits when its input ends, so it needs no ctx. Ctrl-C does not reach it.
	p.cmd = exec.CommandContext(context.Background(), self)
	p.cmd.Env = append(os.Environ(), workerEnv+"="+string(text))
	p.cmd.Stdin, p.cmd.Stderr = inEnd, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := p.cmd.StdoutPipe()
	if err == nil {
		err = p.cmd.Start()
	}
	if err != nil {
		in.Close()
		return nil, err
	}
	go func() {
		defer close(p.lines)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			p.lines <- lines.Text()
		}
	}()
	if err := p.expect("ready"); err != nil {
		return nil, errors.Join(err, p.end())
	}
	return p, nil
}

// send sends a command to the worker, and waits until it is done.
func (p *process) send(word string) error {
	if _, err := fmt.Fprintln(p.in, word); err != nil {
		return p.failure(word, err)
	}
	return p.expect(word)
}

func (p *process) expect(word string) error {
	timer := time.NewTimer(commandTimeout)
	defer timer.Stop()
	select {
	case line, ok := <-p.lines:
		switch {
		case !ok:
			return p.failure(word, errors.New("it exited"))
		case line != word:
			return p.failure(word, fmt.Errorf("it replied %q", line))
		}
		return nil
	case <-timer.C:
		_ = p.cmd.Process.Signal(syscall.SIGQUIT) // writes its goroutines into its log
		return p.failure(word, errors.New("no reply"))
	}
}

func (p *process) failure(word string, err error) error {
	return fmt.Errorf("worker %s: command %q: %w; see %s", p.config.Name, word, err, p.log)
}

// end ends the worker, and returns an error if it failed or wrote to its standard error.
func (p *process) end() error {
	p.in.Close()
	hung := time.AfterFunc(commandTimeout, func() { _ = p.cmd.Process.Signal(syscall.SIGQUIT) })
	defer hung.Stop()
	for range p.lines {
	}
	err := p.cmd.Wait()
	said, readErr := os.ReadFile(p.log)
	if err != nil || readErr != nil || len(said) > 0 {
		return fmt.Errorf("worker %s: %w; its standard error:\n%s",
			p.config.Name, errors.Join(err, readErr), strings.TrimSpace(string(said[max(len(said)-8<<10, 0):])))
	}
	return nil
}
