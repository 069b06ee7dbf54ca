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
	// settle is how long what the command left behind may take to end by itself
	// before it is told to: bash's >(tee log) ends just after bash does.
	settle = 100 * time.Millisecond

	// poll is how often the guard looks whether all is gone, while it ends it.
	// The end of what is not its own child is told to it in no other way.
	poll = 10 * time.Millisecond

	// patience is when the guard says who does not end even by SIGKILL.
	patience = 5 * time.Second
)

// Guard is what the program is when it was started as [GuardName]: it starts a
// command and does not return before nothing of it is left. args are those after
// the name. It returns the exit code, of which nothing depends.
func Guard(args []string, stderr io.Writer) int {
	// The kernel kills the command when the thread that started it ends (see
	// SysProcAttr.Pdeathsig), so this thread must last as long as the process.
	runtime.LockOSThread()
	if err := guard(args); err != nil {
		fmt.Fprintf(stderr, "%s: %v\n", GuardName, err)
		return 1
	}
	return 0
}

func guard(args []string) error {
	if len(args) != 1 {
		return errors.New("this is a part of pglock run, not to be started by hand")
	}
	fds, err := parseFDs(args[0])
	if err != nil {
		return err
	}
	if err := adoptOrphans(); err != nil {
		return err
	}
	nameProcess(GuardName)
	// Ends of the program's pipes; the other fds are only held open.
	orders := os.NewFile(uintptr(fds[0]), "orders")
	reports := os.NewFile(uintptr(fds[1]), "reports")

	g := &guardian{reports: json.NewEncoder(reports), orders: make(chan order)}
	decoder := json.NewDecoder(orders)
	if err := decoder.Decode(&g.start); err == io.EOF {
		return nil // the program is gone already
	} else if err != nil {
		return fmt.Errorf("no command to start: %w", err)
	}

	// What is meant for the command is not for the guard.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	own := make(chan os.Signal, 64)
	signal.Notify(own, append(Forwarded(), Continued()...)...)
	children := make(chan os.Signal, 1)
	signal.Notify(children, syscall.SIGCHLD)

	pid, err := g.start.fork()
	// Signals until now were sent to all processes when the command was not one of
	// them: they must not keep it from getting those that the program passes on.
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
				return // the program is gone, or says nothing more
			}
			g.orders <- o
		}
	}()
	g.run(children, own)
	g.takeTerminal()
	g.report(report{Done: true})
	return nil
}

// fork starts the command. An executable script without a #! line runs in the
// shell, as execvp(3) has it.
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

// guardian is the guard at work.
type guardian struct {
	start   start
	reports *json.Encoder
	orders  chan order
	family  family

	hadTerminal bool // the command had the terminal
	suspended   bool // the command was stopped at its terminal, and not continued
	exited      bool // the command has ended
	stage       stage
	next        <-chan time.Time // when the next stage begins

	signals broadcast        // those to be passed on
	passing <-chan time.Time // when the first of them is
}

// stage is how far the guard is with ending the family.
type stage int

const (
	running     stage = iota
	settling          // the command has ended; the rest may do so by itself
	terminating       // they were told to
	killing           // they are killed
)

// report fails only when the program is gone, which the orders tell.
func (g *guardian) report(r report) { _ = g.reports.Encode(r) }

// run returns when nothing is left.
func (g *guardian) run(children, own <-chan os.Signal) {
	ticker := time.NewTicker(poll)
	defer ticker.Stop()
	ticker.Stop()
	orders := g.orders
	for {
		g.look()
		if g.exited || g.stage == killing {
			if g.stage == killing {
				g.family.signal(syscall.SIGKILL)
			}
			if g.family.gone() && g.exited {
				return
			}
			ticker.Reset(poll)
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
				// The program is gone, and with it whatever made it right that
				// the command runs.
				orders = nil
				g.enter(killing)
				continue
			}
			g.obey(o)
		}
	}
}

func (g *guardian) obey(o order) {
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
			// As after fg: nobody else continues it, and the next Ctrl-Z may come soon.
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

// look asks the kernel what became of the command.
func (g *guardian) look() {
	for !g.exited {
		switch e := g.family.look(); {
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

// stopped is called when the command was stopped by sig.
func (g *guardian) stopped(sig syscall.Signal) {
	group, ok := foreground(os.Stdin)
	if !ok {
		return // no terminal, no job control
	}
	asks := sig == syscall.SIGTTIN || sig == syscall.SIGTTOU
	switch {
	case asks && (group == g.start.Group || group == g.family.leader):
		// It wants the terminal, and we have it to give.
		g.hadTerminal = true
		giveTerminal(os.Stdin, g.family.leader)
		g.family.signalGroup(syscall.SIGCONT)
	case g.stage == running:
		// Now the program stops too, so that the shell takes the terminal.
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
		g.next = time.After(settle)
	case terminating:
		g.family.signal(syscall.SIGTERM)
		g.family.signal(syscall.SIGCONT) // what is stopped cannot end
		g.next = time.After(g.start.Grace)
	case killing:
		g.family.signal(syscall.SIGKILL)
		g.next = time.After(patience)
	}
}

// advance is called when a stage's time is over.
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
