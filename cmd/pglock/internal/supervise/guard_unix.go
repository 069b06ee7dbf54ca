//go:build unix

package supervise

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"
)

const (
	// settleTime is how long processes that the command left behind may take to end by
	// themselves before SIGTERM: bash's >(tee log) ends just after bash does.
	settleTime = 100 * time.Millisecond

	// pollInterval is how often the guard checks whether all processes are gone, while it ends
	// them. It is not notified of the end of processes that are not its children.
	pollInterval = 10 * time.Millisecond

	// killTimeout is when, after SIGKILL, the guard reports the processes that do not end.
	killTimeout = 5 * time.Second
)

// Guard is the main function of the guard, for a program that was started as [GuardName]
// with args. It starts a command and returns when nothing of it is left. It returns the
// exit code, which nothing uses.
func Guard(args []string, stderr io.Writer) int {
	// The kernel kills the command when the thread that started it ends (see
	// SysProcAttr.Pdeathsig), so this thread must live until the process ends.
	runtime.LockOSThread()
	if err := guard(args); err != nil {
		fmt.Fprintf(stderr, "%s: %v\n", GuardName, err)
		return 1
	}
	return 0
}

func guard(args []string) error {
	if len(args) != 1 {
		return errors.New("pglock starts this program itself; do not start it by hand")
	}
	fds, err := parseFDs(args[0])
	if err != nil {
		return err
	}
	if err := adoptOrphans(); err != nil {
		return err
	}
	setProcessName(GuardName)
	// The pipes to and from the program. The other descriptors are only kept open.
	orders := os.NewFile(uintptr(fds[0]), "orders")
	reports := os.NewFile(uintptr(fds[1]), "reports")

	g := &guardian{reports: json.NewEncoder(reports), orders: make(chan order)}
	decoder := json.NewDecoder(orders)
	if err := decoder.Decode(&g.start); err == io.EOF {
		return nil // the program is gone
	} else if err != nil {
		return fmt.Errorf("reading the command to start: %w", err)
	}

	// Signals for the command must not end the guard.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	own := make(chan os.Signal, 64)
	signal.Notify(own, append(Forwarded(), Continued()...)...)
	children := make(chan os.Signal, 1)
	signal.Notify(children, syscall.SIGCHLD)

	pid, err := g.start.fork()
	// Discard earlier signals. They were sent to all processes before the command
	// existed, and must not cancel signals that the program passes on.
	for len(own) > 0 {
		<-own
	}
	if err != nil {
		var errno syscall.Errno
		if !errors.As(err, &errno) {
			errno = syscall.EIO
		}
		g.report(report{Failed: errno})
		return nil
	}
	g.family = family{root: os.Getpid(), leader: pid}
	if g.start.Foreground {
		giveTerminal(os.Stdin, pid)
		g.hadTerminal = true
	}
	g.report(report{Started: pid})

	go func() {
		defer close(g.orders)
		for {
			var o order
			if decoder.Decode(&o) != nil {
				return // the program is gone, or sends no more orders
			}
			g.orders <- o
		}
	}()
	g.run(children, own)
	g.takeTerminal()
	g.report(report{Done: true})
	return nil
}

// fork starts the command. An executable script without a #! line runs in the shell, as
// with execvp(3).
func (s start) fork() (int, error) {
	attr := &syscall.ProcAttr{
		Env:   os.Environ(),
		Files: []uintptr{0, 1, 2},
		Sys:   diesWithParent(&syscall.SysProcAttr{Setpgid: true}),
	}
	path, args := string(s.Path), make([]string, len(s.Args))
	for i, arg := range s.Args {
		args[i] = string(arg)
	}
	pid, err := syscall.ForkExec(path, args, attr)
	if errors.Is(err, syscall.ENOEXEC) {
		args = append([]string{"sh", path}, args[1:]...)
		pid, err = syscall.ForkExec("/bin/sh", args, attr)
	}
	return pid, err
}

// A guardian is the state of the guard.
type guardian struct {
	start   start
	reports *json.Encoder
	orders  chan order
	family  family

	hadTerminal bool // the command had the terminal
	suspended   bool // the command was stopped at its terminal, and not continued yet
	exited      bool // the command has ended
	stage       stage
	next        <-chan time.Time // when the next stage begins

	signals broadcast        // signals to pass on
	passing <-chan time.Time // when to pass on the first of them
}

// A stage is how far the guard has come in ending the family.
type stage int

const (
	running     stage = iota
	settling          // the command has ended; the rest may end by itself
	terminating       // SIGTERM was sent
	killing           // SIGKILL is sent
)

// report sends a report. It fails only if the program is gone, which run notices.
func (g *guardian) report(r report) { _ = g.reports.Encode(r) }

// run supervises the command until nothing of it is left.
func (g *guardian) run(children, own <-chan os.Signal) {
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	ticker.Stop()
	orders := g.orders
	for {
		g.pollState()
		if g.exited || g.stage == killing {
			if g.stage == killing {
				g.family.signal(syscall.SIGKILL)
			}
			if g.family.gone() && g.exited {
				return
			}
			ticker.Reset(pollInterval)
		}
		select {
		case <-children:
		case <-ticker.C:
		case <-g.next:
			g.advance()
		case sig := <-own:
			if number, ok := sig.(syscall.Signal); ok {
				g.signals.reached(number, time.Now())
			}
			g.pass()
		case <-g.passing:
			g.pass()
		case o, ok := <-orders:
			if !ok {
				// The program is gone, and with it the reason for the command to
				// run, such as a lock.
				orders = nil
				g.enter(killing)
				continue
			}
			g.handle(o)
		}
	}
}

func (g *guardian) handle(o order) {
	switch {
	case o.Signal != 0:
		g.signals.pass(o.Signal, time.Now())
		g.pass()
	case o.Continue:
		group, ok := foreground(os.Stdin)
		if ok && g.hadTerminal && group == g.start.Group {
			giveTerminal(os.Stdin, g.family.leader)
		}
		if g.suspended {
			// As after fg: only the guard continues it. The next Ctrl-Z may come soon.
			g.suspended = false
			g.family.signalGroup(syscall.SIGCONT)
			return
		}
		g.signals.pass(syscall.SIGCONT, time.Now())
		g.pass()
	case o.End:
		if g.stage < terminating {
			g.enter(terminating)
		}
	}
}

// pass passes on the signals that are due.
func (g *guardian) pass() {
	for _, sig := range g.signals.due(time.Now()) {
		g.family.signalGroup(sig)
	}
	g.passing = nil
	if at, ok := g.signals.next(); ok {
		g.passing = time.After(time.Until(at))
	}
}

// pollState handles the changes of the command's state.
func (g *guardian) pollState() {
	for !g.exited {
		switch e := g.family.pollState(); {
		case e.exited:
			g.exited = true
			g.report(report{Exited: &e.status})
			if g.stage == running {
				g.enter(settling)
			}
		case e.stopped != 0:
			g.stopped(e.stopped)
		default:
			return
		}
	}
}

// stopped handles that the command was stopped by sig.
func (g *guardian) stopped(sig syscall.Signal) {
	group, ok := foreground(os.Stdin)
	if !ok {
		return // no terminal, no job control
	}
	asks := sig == syscall.SIGTTIN || sig == syscall.SIGTTOU
	switch {
	case asks && (group == g.start.Group || group == g.family.leader):
		// It needs the terminal, and the guard can give it.
		g.hadTerminal = true
		giveTerminal(os.Stdin, g.family.leader)
		g.family.signalGroup(syscall.SIGCONT)
	case g.stage == running:
		// The program must stop too, so that the shell takes the terminal.
		g.suspended = true
		g.takeTerminal()
		g.report(report{Stopped: true})
	}
}

// takeTerminal gives the terminal back to the program if the command has it.
func (g *guardian) takeTerminal() {
	if group, ok := foreground(os.Stdin); ok && group == g.family.leader {
		giveTerminal(os.Stdin, g.start.Group)
	}
}

// enter begins a stage.
func (g *guardian) enter(s stage) {
	g.stage = s
	switch s {
	case settling:
		g.next = time.After(settleTime)
	case terminating:
		g.family.signal(syscall.SIGTERM)
		g.family.signal(syscall.SIGCONT) // a stopped process cannot end
		g.next = time.After(g.start.Grace)
	case killing:
		g.family.signal(syscall.SIGKILL)
		g.next = time.After(killTimeout)
	}
}

// advance enters the next stage when the time of a stage is over.
func (g *guardian) advance() {
	switch g.stage {
	case settling:
		g.enter(terminating)
	case terminating:
		g.enter(killing)
	case killing:
		g.next = nil
		g.report(report{Stuck: g.family.String()})
	}
}
