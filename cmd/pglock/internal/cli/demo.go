package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/pglock-go/pglock/cmd/pglock/internal/render"
	"github.com/pglock-go/pglock/internal/pgserver"
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
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)
	go func() {
		select {
		case sig := <-signals:
			if number, ok := sig.(syscall.Signal); ok {
				cancel(&signalError{number})
			}
		case <-ctx.Done():
		}
	}()

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
		fmt.Fprintf(a.Out, "  export %s='%s'\n", name, strings.ReplaceAll(value, "'", `'\''`))
	}
	fmt.Fprintf(a.Out, "\n  pglock run my-lock -- sleep 60 &\n  pglock ls\n")
	<-ctx.Done()
	fmt.Fprintln(a.Out)
	return nil
}

// signalOr returns the signal that ended ctx, if one did, or else err.
func signalOr(ctx context.Context, err error) error {
	interrupted := new(signalError)
	if errors.As(context.Cause(ctx), &interrupted) {
		return interrupted
	}
	return err
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
	if err := s.awaitLock(ctx, report, 1, 0); err != nil {
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
	if err := a.wait(ctx); err != nil {
		return err
	}
	if err := s.awaitLock(ctx, report, 1, 0); err != nil {
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
	if err := c.wait(ctx); err != nil {
		return err
	}
	s.explain(fmt.Sprintf("Within %s B's command was killed too, Postgres released the lock, and C did its work.\nNow nobody holds the lock:", render.Duration(time.Since(killed))))
	if _, err := s.run(ctx, "pglock", "ls"); err != nil {
		return err
	}
	return b.wait(ctx)
}
