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
	"github.com/spf13/cobra"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/cmd/pglock/internal/render"
	"github.com/pglock-go/pglock/cmd/pglock/internal/supervise"
	"github.com/pglock-go/pglock/inspect"
	"github.com/pglock-go/pglock/internal/pgserver"
	"github.com/pglock-go/pglock/pgxlock"
)

const demoHelp = `Shows pglock at work on a throwaway Postgres server, in about ten seconds: two
workers that need one lock, who holds it and who waits, how it passes from one to the
other, and what happens if a worker is killed. Every command shown is really run.

The Postgres binaries are found on this machine or downloaded. The server listens on
a Unix socket in a temporary directory and is removed at the end. With --keep it runs
until Ctrl-C, and pglock prints how to connect to it.`

func (a *app) demoCommand() *cobra.Command {
	var keep bool
	cmd := &cobra.Command{
		Use:                   "demo [--keep]",
		Short:                 "Show pglock at work on a throwaway server",
		Long:                  demoHelp,
		Example:               "  pglock demo\n  pglock demo --keep",
		Annotations:           map[string]string{offline: "true"},
		DisableFlagsInUseLine: true,
		Args:                  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.demo(cmd.Context(), keep)
		},
	}
	cmd.Flags().BoolVar(&keep, "keep", false, "keep the server running until Ctrl-C")
	return cmd
}

// demo starts a server, plays the demo, and stops the server.
func (a *app) demo(ctx context.Context, keep bool) (err error) {
	ctx, stop := untilSignal(ctx)
	defer stop()

	fmt.Fprintln(a.Out, "Starting a throwaway Postgres server.")
	options, err := pgserver.FromEnv()
	if err != nil {
		return err
	}
	options.Database = "" // always a server of the demo's own
	options.Log = a.Err
	server, err := pgserver.Start(ctx, options)
	if err != nil {
		return signalOr(ctx, err)
	}
	defer func() {
		if stopErr := server.Stop(); stopErr != nil {
			err = errors.Join(err, stopErr)
			return
		}
		fmt.Fprintln(a.Out, "\nThe server was stopped and removed.")
	}()
	database, err := server.CreateDatabase(ctx)
	if err != nil {
		return signalOr(ctx, err)
	}
	s, err := a.newDemo(ctx, server, database)
	if err != nil {
		return signalOr(ctx, err)
	}
	defer s.end()
	if err := s.play(ctx); err != nil {
		return signalOr(ctx, err)
	}
	if !keep {
		return nil
	}
	fmt.Fprintf(a.Out, "\nThe server runs until Ctrl-C. In another terminal:\n\n")
	for _, kv := range server.Env(database) {
		name, value, _ := strings.Cut(kv, "=")
		fmt.Fprintf(a.Out, "  export %s=%s\n", name, shellQuote(value))
	}
	fmt.Fprintf(a.Out, "\n  pglock run my-lock -- sleep 60 &\n  pglock ls\n")
	<-ctx.Done()
	fmt.Fprintln(a.Out)
	return nil
}

// play runs the demo's commands and explains them.
func (s *demo) play(ctx context.Context) error {
	const report = "nightly-report"
	job := []string{"pglock", "run", report, "--", "sh", "-c", "echo at work; sleep 4; echo done"}

	s.explain("Two machines both run a nightly report, but only one may run it at a time. Worker A\nstarts, and holds the lock while its command runs:")
	a, err := s.start("A", job...)
	if err != nil {
		return err
	}
	if err := a.await(ctx, a.atWork); err != nil {
		return err
	}
	s.explain("Worker B starts the same command:")
	b, err := s.start("B", job...)
	if err != nil {
		return err
	}
	if err := s.awaitLock(ctx, report, 1, 1); err != nil {
		return err
	}
	s.explain("B's command has not started: B waits for the lock. Who holds it, and who waits?")
	if _, err := s.run(ctx, "pglock", "ls"); err != nil {
		return err
	}
	s.explain("A third worker does not want to wait:")
	code, err := s.run(ctx, "pglock", "run", "--no-wait", report, "--", "echo", "never")
	if err != nil {
		return err
	}
	s.write(fmt.Sprintf("(exit code %d)\n", code))

	s.explain("When A is done, B acquires the lock:")
	if err := a.await(ctx, a.exited); err != nil {
		return err
	}
	if err := b.await(ctx, b.atWork); err != nil {
		return err
	}
	s.explain("Now C waits for B, and B's pglock is killed, as if its machine had crashed. It has no\nchance to clean up:")
	c, err := s.start("C", "pglock", "run", report, "--", "sh", "-c", "echo at work; echo done")
	if err != nil {
		return err
	}
	if err := s.awaitLock(ctx, report, 1, 1); err != nil {
		return err
	}
	killed := time.Now()
	if _, err := s.run(ctx, "kill", "-9", fmt.Sprint(b.cmd.Process.Pid)); err != nil {
		return err
	}
	if err := c.await(ctx, c.exited); err != nil {
		return err
	}
	s.explain(fmt.Sprintf("Within %s B's command was killed too, Postgres released the lock, and C did its work.\nNow nobody holds the lock:", render.Duration(time.Since(killed))))
	if _, err := s.run(ctx, "pglock", "ls"); err != nil {
		return err
	}
	return b.await(ctx, b.exited)
}

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
	atWork chan struct{} // closed at the first line of output
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
			arg = shellQuote(arg)
		}
		quoted[i] = arg
	}
	line := "$ " + strings.Join(quoted, " ")
	if s.color {
		line = render.Paint(render.Bold, line)
	}
	s.write(who + line + "\n")
}

// shellQuote quotes s for a shell.
func shellQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

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
	atWork := make(chan struct{})
	out := &prefixWriter{demo: s, prefix: who, first: atWork}
	a := &process{cmd: s.command(args, out), atWork: atWork, exited: make(chan struct{})}
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
	key := pglock.Int(pglock.Name(name).ID()) // pg_locks has no names
	for {
		locks, err := inspect.Locks(ctx, pgxlock.Conn(s.conn))
		if err != nil {
			return err
		}
		held, waiting := 0, 0
		for _, l := range locks {
			switch {
			case !l.HasKey || l.Key != key:
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

// await waits for a step of the process, and fails if it ends without that.
func (a *process) await(ctx context.Context, step <-chan struct{}) error {
	select {
	case <-step:
		return nil
	case <-a.exited:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-step:
		return nil
	default:
		return fmt.Errorf("demo failed: %q ended without output", a.cmd.Args)
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
	first  chan struct{} // closed after the first line, and nil then
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
		if w.first != nil {
			close(w.first)
			w.first = nil
		}
	}
}
