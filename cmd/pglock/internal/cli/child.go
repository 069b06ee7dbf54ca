package cli

import (
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"github.com/pglock-go/pglock/cmd/pglock/internal/supervise"
)

// A child is the command of run or prioritize. Before it starts, a signal that ends
// programs ends the wait for a lock or a session. From its start on, signals are passed
// to it.
type child struct {
	command     supervise.Command
	signals     chan os.Signal
	endReaping  func()
	interrupted bool // follow passed on a signal that ends programs
}

// endsPrograms reports whether a signal ends programs by default, and people send it to
// end them.
func endsPrograms(sig os.Signal) bool {
	return slices.Contains([]os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT}, sig)
}

// newChild finds the command and begins to catch signals. It fails if the command cannot
// be run, so that nobody waits for a lock to run a missing command.
func (a *app) newChild(command []string, grace time.Duration) (*child, error) {
	path, err := supervise.Find(command[0], a.env)
	if err != nil {
		return nil, err
	}
	if err := supervise.Check(); err != nil {
		return nil, err
	}
	c := &child{
		command: supervise.Command{Path: path, Args: command, Stdin: a.In, Stdout: a.Out, Stderr: a.Err, Grace: grace},
		signals: make(chan os.Signal, 64),
	}
	for _, sig := range supervise.Forwarded() {
		if endsPrograms(sig) {
			signal.Notify(c.signals, sig)
		}
	}
	supervise.SurviveClosedPipes()
	c.endReaping = supervise.ReapOrphans()
	return c, nil
}

// close stops catching signals.
func (c *child) close() {
	signal.Stop(c.signals)
	c.endReaping()
}

// start starts the command in an environment. The connections in hold stay open until
// nothing of the command is left.
func (c *child) start(env []string, hold ...syscall.Conn) (*supervise.Process, error) {
	signal.Notify(c.signals, append(supervise.Forwarded(), supervise.Continued()...)...)
	c.endReaping()
	c.command.Env, c.command.Hold = env, hold
	return supervise.Start(c.command)
}

// A followed says what to do while the command runs. The functions are called one at a
// time.
type followed struct {
	ended   <-chan struct{} // closed when the command must end
	end     func()          // called once, when ended is closed
	resumed func()          // pglock was stopped and continues; may be nil
	stuck   func(processes string)
}

// follow passes signals to the process until nothing of the command is left.
func (c *child) follow(process *supervise.Process, f followed) {
	for {
		select {
		case <-f.ended:
			f.ended = nil
			f.end()
		case sig := <-c.signals:
			if slices.Contains(supervise.Continued(), sig) {
				if f.resumed != nil {
					f.resumed()
				}
				process.Continue()
			} else if number, ok := sig.(syscall.Signal); ok {
				c.interrupted = c.interrupted || endsPrograms(sig)
				process.Signal(number)
			}
		case e, ok := <-process.Events():
			switch {
			case !ok:
				return
			case e.Stopped:
				if !supervise.Stop() {
					process.Continue()
				}
			case e.Stuck != "":
				f.stuck(e.Stuck)
			}
		}
	}
}
