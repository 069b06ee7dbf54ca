package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/cmd/pglock/internal/render"
	"github.com/pglock-go/pglock/cmd/pglock/internal/supervise"
	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/internal/pgserver"
	"github.com/pglock-go/pglock/pgxlock"
)

// A demo runs the commands of pglock demo and shows their output.
type demo struct {
	out       io.Writer
	color     bool
	program   string // pglock itself
	env       []string
	conn      *pgx.Conn // observes the locks
	processes []*process
	mu        sync.Mutex // guards out: one line at a time
}

// A process is a command that runs in the background.
type process struct {
	cmd    *exec.Cmd
	exited chan struct{}
}

func (a *app) newDemo(ctx context.Context, server *pgserver.Server, database string) (*demo, error) {
	program, err := supervise.Executable()
	if err != nil {
		return nil, err
	}
	conn, err := pgx.Connect(ctx, server.ConnString(database))
	if err != nil {
		return nil, err
	}
	var env []string
	for _, kv := range a.env {
		// The demo must not use the database of the user's variables.
		if !strings.HasPrefix(kv, "PG") {
			env = append(env, kv)
		}
	}
	columns := a.width()
	if columns == 0 {
		columns = 120
	}
	env = append(env, "COLUMNS="+strconv.Itoa(columns))
	return &demo{
		out:     a.Out,
		color:   a.useColor(),
		program: program,
		env:     append(env, server.Env(database)...),
		conn:    conn,
	}, nil
}

// explain prints a text about the next step.
func (s *demo) explain(text string) { s.write("\n" + text + "\n\n") }

// write writes whole lines. It ignores errors, so that a closed pipe does not stop the demo.
func (s *demo) write(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, _ = io.WriteString(s.out, text)
}

// show prints a command as it would be typed.
func (s *demo) show(who string, args []string) {
	quoted := make([]string, len(args))
	for i, arg := range args {
		if strings.ContainsAny(arg, " ;'\"$") {
			arg = "'" + strings.ReplaceAll(arg, "'", `'\''`) + "'"
		}
		quoted[i] = arg
	}
	line := "$ " + strings.Join(quoted, " ")
	if s.color {
		line = render.Paint(render.Bold, line)
	}
	s.write(who + line + "\n")
}

// command returns a command to run as shown. It uses the shell's own kill: not every
// machine has the program (on Debian it is in procps).
func (s *demo) command(args []string, out io.Writer) *exec.Cmd {
	if args[0] == "kill" {
		args = []string{"sh", "-c", strings.Join(args, " ")}
	}
	path := s.program
	if args[0] != "pglock" {
		path = args[0]
		if found, err := exec.LookPath(path); err == nil {
			path = found
		}
	}
	return &exec.Cmd{Path: path, Args: args, Env: s.env, Stdout: out, Stderr: out, WaitDelay: 5 * time.Second}
}

// start starts a worker, whose lines are shown after its name.
func (s *demo) start(name string, args ...string) (*process, error) {
	who := name + "  "
	s.show(who, args)
	out := &prefixWriter{demo: s, prefix: who}
	a := &process{cmd: s.command(args, out), exited: make(chan struct{})}
	if err := a.cmd.Start(); err != nil {
		return nil, err
	}
	s.processes = append(s.processes, a)
	go func() {
		defer close(a.exited)
		_ = a.cmd.Wait() // the demo shows how it ends
	}()
	return a, nil
}

// run runs a command, shows its output, and returns its exit code.
func (s *demo) run(ctx context.Context, args ...string) (code int, err error) {
	if args[0] == "pglock" && args[1] == "ls" {
		args = append(args, "-o", "table") // its stdout is not a terminal
	}
	s.show("", args)
	var out bytes.Buffer
	cmd := s.command(args, &out)
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	select {
	case err = <-done:
	case <-ctx.Done():
		_ = cmd.Process.Signal(syscall.SIGTERM)
		<-done
		return 0, ctx.Err()
	}
	s.write(out.String())
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode(), nil
	}
	return 0, err
}

// awaitLock waits until the lock has this many holders and waiters.
func (s *demo) awaitLock(ctx context.Context, name string, holders, waiters int) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	id := pglock.Name(name).ID()
	for {
		locks, err := inspect.Locks(ctx, pgxlock.Conn(s.conn))
		if err != nil {
			return err
		}
		held, waiting := 0, 0
		for _, l := range locks {
			switch {
			case !l.HasKey || l.Key.ID() != id || l.Key.IsPair():
			case l.Granted:
				held++
			default:
				waiting++
			}
		}
		if held == holders && waiting == waiters {
			return nil
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("demo failed: %d sessions hold the lock and %d wait for it: %w", held, waiting, ctx.Err())
		}
	}
}

// wait waits until a worker has ended.
func (a *process) wait(ctx context.Context) error {
	select {
	case <-a.exited:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// end ends the commands that still run, and closes the connection.
func (s *demo) end() {
	for _, a := range s.processes {
		_ = a.cmd.Process.Signal(syscall.SIGTERM) // an error means that it has ended
		<-a.exited
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = s.conn.Close(ctx)
}

// A prefixWriter writes whole lines with a prefix.
type prefixWriter struct {
	demo   *demo
	prefix string
	rest   []byte
}

func (w *prefixWriter) Write(p []byte) (int, error) {
	w.rest = append(w.rest, p...)
	for {
		line, rest, ok := bytes.Cut(w.rest, []byte("\n"))
		if !ok {
			return len(p), nil
		}
		w.demo.write(w.prefix + string(line) + "\n")
		w.rest = bytes.Clone(rest)
	}
}
