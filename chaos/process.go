//go:build unix

package chaos

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

// patience is how long a worker may take to do what it is told. Every operation is
// bounded by a few seconds; the rest is for a machine that has other things to do.
const patience = time.Minute

// A process is a worker that runs.
type process struct {
	config  workerConfig
	cmd     *exec.Cmd
	in      *os.File
	lines   chan string // what it says, closed when it says no more
	log     string      // where its standard error goes
	killed  int64       // when it was about to be killed
	stopped bool        // by SIGSTOP
}

// startWorker starts this program again, as a worker, which begins at the first "go".
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
	// It ends when its input does, so it needs no ctx.
	p.cmd = exec.CommandContext(context.Background(), self)
	p.cmd.Env = append(os.Environ(), workerEnv+"="+string(text))
	p.cmd.Stdin, p.cmd.Stderr = inEnd, log
	// Should this program be killed while a worker is stopped, the kernel wakes and
	// ends it if it is in a process group of its own.
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

// tell tells the worker something, and waits until it has done it.
func (p *process) tell(word string) error {
	if _, err := fmt.Fprintln(p.in, word); err != nil {
		return p.failure(word, err)
	}
	return p.expect(word)
}

func (p *process) expect(word string) error {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case line, ok := <-p.lines:
		switch {
		case !ok:
			return p.failure(word, errors.New("it has ended"))
		case line != word:
			return p.failure(word, fmt.Errorf("it said %q", line))
		}
		return nil
	case <-timer.C:
		_ = p.signal(syscall.SIGQUIT) // what its goroutines do goes into its log
		for range p.lines {
		}
		return p.failure(word, errors.New("it did not answer"))
	}
}

func (p *process) failure(word string, err error) error {
	return fmt.Errorf("worker %s, told to %q: %w; see %s", p.config.Name, word, err, p.log)
}

func (p *process) signal(s syscall.Signal) error {
	p.stopped = s == syscall.SIGSTOP
	return p.cmd.Process.Signal(s)
}

// kill ends the worker with a kill -9.
func (p *process) kill() error {
	p.killed = now()
	if err := p.signal(syscall.SIGKILL); err != nil {
		return err
	}
	return p.end()
}

// end ends the worker, however it stands with it, and returns how it ended if that
// was not as it should be.
func (p *process) end() error {
	p.in.Close()
	if p.stopped && p.killed == 0 {
		_ = p.signal(syscall.SIGCONT)
	}
	hung := time.AfterFunc(patience, func() { _ = p.cmd.Process.Signal(syscall.SIGQUIT) })
	defer hung.Stop()
	for range p.lines {
	}
	err := p.cmd.Wait()
	if p.killed != 0 {
		return nil
	}
	said, readErr := os.ReadFile(p.log)
	if err != nil || readErr != nil || len(said) > 0 {
		return fmt.Errorf("worker %s: %w; it said:\n%s", p.config.Name, errors.Join(err, readErr), tail(string(said)))
	}
	return nil
}

// tail is the end of what a worker said: enough for a data race or a panic.
func tail(s string) string {
	const most = 8 << 10
	if len(s) > most {
		s = "..." + s[len(s)-most:]
	}
	return strings.TrimSpace(s)
}
