//go:build unix

package supervise

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A Process is a command that was started. Its methods may be called from
// several goroutines.
type Process struct {
	pid    int
	grace  time.Duration
	guard  *exec.Cmd
	orders *os.File
	write  sync.Mutex // one order at a time

	// events receives what happens to the command, and closes at the end.
	events chan Event
	done   chan struct{} // closed when status and err are set
	status Status
	err    error

	endReaping func()
}

// An Event is something that happened to a running command. One field is set.
type Event struct {
	Stopped bool   // it was stopped, as by Ctrl-Z, in this terminal
	Stuck   string // names the processes that do not end
}

// Start starts a command. The program must have no other child processes: if the guard is
// killed, all descendants of the program are ended.
func Start(c Command) (*Process, error) {
	if err := adoptOrphans(); err != nil {
		return nil, err
	}
	var inherited fds
	defer inherited.close()
	ordersEnd, orders, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer ordersEnd.Close()
	reports, reportsEnd, err := os.Pipe()
	if err != nil {
		orders.Close()
		return nil, err
	}
	defer reportsEnd.Close()
	fail := func(err error) (*Process, error) {
		orders.Close()
		reports.Close()
		return nil, fmt.Errorf("starting the guard: %w", err)
	}
	for _, f := range []*os.File{ordersEnd, reportsEnd} {
		if err := inherited.add(f); err != nil {
			return fail(err)
		}
	}
	for _, conn := range c.Hold {
		// An error means that it is closed, and need not be held.
		_ = inherited.add(conn)
	}

	guard, err := newGuard(&inherited)
	if err != nil {
		return fail(err)
	}
	guard.Env, guard.Stdin, guard.Stdout, guard.Stderr = c.Env, c.Stdin, c.Stdout, c.Stderr
	// Copying a stream that is not a file must not block Wait forever.
	guard.WaitDelay = time.Second
	if err := guard.Start(); err != nil {
		return fail(err)
	}
	inherited.close() // now only the guard has them, so reports ends when the guard does
	p := &Process{
		grace:  c.Grace,
		guard:  guard,
		orders: orders,
		events: make(chan Event, 8),
		done:   make(chan struct{}),
	}
	args := make([][]byte, len(c.Args))
	for i, arg := range c.Args {
		args[i] = []byte(arg)
	}
	err = json.NewEncoder(orders).Encode(start{
		Path:       []byte(c.Path),
		Args:       args,
		Grace:      c.Grace,
		Foreground: ownsTerminal(file(c.Stdin), file(c.Stdout)),
		Group:      unix.Getpgrp(),
	})
	ordersEnd.Close()
	reportsEnd.Close()

	var first report
	decoder := json.NewDecoder(reports)
	if err == nil {
		err = decoder.Decode(&first)
	}
	if err == nil && first.Started == 0 && first.Failed == 0 {
		err = errors.New("it did not report whether the command started")
	}
	if err != nil || first.Failed != 0 {
		orders.Close()
		reports.Close()
		exit := guard.Wait()
		if first.Failed != 0 {
			return nil, &StartError{Path: c.Path, NotFound: isAbsent(first.Failed), Err: first.Failed}
		}
		if ended := guard.ProcessState.Sys().(syscall.WaitStatus); ended.Signaled() && slices.Contains(Forwarded(), os.Signal(ended.Signal())) {
			return nil, &InterruptedError{ended.Signal()}
		}
		return nil, fmt.Errorf("starting the guard: %w (it exited: %v)", err, exit)
	}
	p.pid = first.Started
	p.endReaping = reapOrphans(guard.Process.Pid, p.pid)
	go p.follow(decoder, reports)
	return p, nil
}

// newGuard returns the command for a guard that inherits the descriptors.
func newGuard(inherited *fds) (*exec.Cmd, error) {
	exe, err := ownExecutable()
	if err != nil {
		return nil, err
	}
	return &exec.Cmd{
		Path: exe,
		Args: []string{GuardName, inherited.String()},
		// A separate group: a signal to the program's group, such as kill -9 %1 in
		// a shell, must not reach the guard.
		SysProcAttr: &syscall.SysProcAttr{Setpgid: true},
	}, nil
}

// Check returns an error if this program cannot start a guard. Callers use it before they
// acquire a lock. With /proc, which reliably names the executable, Check assumes that it
// can; without, it starts a guard that has nothing to do.
func Check() error {
	if seesOwnExecutable() {
		return nil
	}
	if err := tryGuard(); err != nil {
		return fmt.Errorf("the guard of the command cannot be started: %w; start pglock by its path, or mount /proc", err)
	}
	return nil
}

// tryGuard starts a guard with a closed pipe, which makes it exit at once.
func tryGuard() error {
	var inherited fds
	defer inherited.close()
	orders, closed, err := os.Pipe()
	if err != nil {
		return err
	}
	defer orders.Close()
	closed.Close()
	for range 2 {
		if err := inherited.add(orders); err != nil {
			return err
		}
	}
	guard, err := newGuard(&inherited)
	if err != nil {
		return err
	}
	return guard.Run()
}

// follow handles the guard's reports until the guard is gone.
func (p *Process) follow(decoder *json.Decoder, reports *os.File) {
	defer close(p.done)
	defer close(p.events)
	defer reports.Close()
	defer p.orders.Close()
	defer p.endReaping()

	var exited *Status
	for {
		var r report
		if err := decoder.Decode(&r); err != nil {
			p.status, p.err = p.cleanUp(exited)
			return
		}
		switch {
		case r.Exited != nil:
			exited = r.Exited
		case r.Stopped:
			p.emit(Event{Stopped: true})
		case r.Stuck != "":
			p.emit(Event{Stuck: r.Stuck})
		case r.Done && exited != nil:
			p.status = *exited
			// Neither WaitDelay's error, which is about copying a stream, nor the
			// guard's exit code concerns the command.
			_ = p.guard.Wait()
			return
		}
	}
}

// emit sends an event, or drops it if the channel is full, so that it never blocks.
func (p *Process) emit(e Event) {
	select {
	case p.events <- e:
	default:
	}
}

// cleanUp ends what is left after the guard was killed. The kernel has killed the command
// too, and the rest are now descendants of this process.
func (p *Process) cleanUp(exited *Status) (Status, error) {
	_ = p.guard.Wait()
	p.endReaping() // killAll must get the leader's status
	left := family{root: os.Getpid(), leader: p.pid}
	status, err := left.killAll()
	if exited != nil {
		status = *exited
	}
	if err != nil {
		return status, fmt.Errorf("the guard of the command was killed, and so was the command: %w", err)
	}
	return status, errors.New("the guard of the command was killed, and so was the command")
}

// PID returns the command's PID, which is also the ID of its process group.
func (p *Process) PID() int { return p.pid }

// Events returns the channel of the command's events. It closes when nothing of the
// command is left.
func (p *Process) Events() <-chan Event { return p.events }

// Signal passes a signal on to the command's process group.
func (p *Process) Signal(sig syscall.Signal) { p.order(order{Signal: sig}) }

// Continue continues the command after this program was continued. If the command had
// the terminal and the program has it now, the command gets it back.
func (p *Process) Continue() { p.order(order{Continue: true}) }

// End ends the command and all it started, with SIGTERM and after the grace SIGKILL. It
// does not block; Wait does.
func (p *Process) End() {
	p.order(order{End: true})
	// The guard may be stopped, and must work now.
	_ = p.guard.Process.Signal(syscall.SIGCONT)
}

// order sends an order to the guard. It fails only if the guard is gone, which follow notices.
func (p *Process) order(o order) {
	p.write.Lock()
	defer p.write.Unlock()
	_ = json.NewEncoder(p.orders).Encode(o)
}

// Wait waits until nothing of the command is left, and returns how the command itself
// ended. It returns an error if the guard was killed.
func (p *Process) Wait() (Status, error) {
	<-p.done
	return p.status, p.err
}

// fds holds file descriptors that the guard inherits. Their numbers are high, because the
// command may inherit low ones from the parent of this program, as from make(1) with its
// job server.
type fds struct{ numbers []int }

const firstFD = 64

func (f *fds) add(c syscall.Conn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var n int
	var dupErr error
	err = raw.Control(func(fd uintptr) {
		// Not close-on-exec, unlike everything else that Go opens.
		n, dupErr = unix.FcntlInt(fd, unix.F_DUPFD, firstFD)
	})
	if err = errors.Join(err, dupErr); err != nil {
		return err
	}
	f.numbers = append(f.numbers, n)
	return nil
}

func (f *fds) close() {
	for _, n := range f.numbers {
		_ = unix.Close(n)
	}
	f.numbers = nil
}

func (f *fds) String() string {
	var texts []string
	for _, n := range f.numbers {
		texts = append(texts, strconv.Itoa(n))
	}
	return strings.Join(texts, ",")
}

// parseFDs parses the result of String, and sets close-on-exec on the descriptors.
func parseFDs(s string) ([]int, error) {
	var numbers []int
	for _, text := range strings.Split(s, ",") {
		n, err := strconv.Atoi(text)
		if err != nil {
			return nil, err
		}
		if _, err := unix.FcntlInt(uintptr(n), unix.F_SETFD, unix.FD_CLOEXEC); err != nil {
			return nil, fmt.Errorf("file descriptor %d: %w", n, err)
		}
		numbers = append(numbers, n)
	}
	if len(numbers) < 2 {
		return nil, errors.New("expected at least two file descriptors")
	}
	return numbers, nil
}
