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

	"github.com/pglock-go/pglock/internal/pgserver"
)

const demoHelp = `Shows pglock at work on a throwaway Postgres server, in about ten seconds: two
workers and one lock, who holds it and who waits, the hand-over, and a worker that
is killed. Every command that it shows is really run.

The server is found on this machine or fetched, listens on a Unix socket in a
folder of its own, and is gone at the end. With --keep it stays until Ctrl-C, and
how to connect to it is printed.`

func (a *app) demoCommand() *cobra.Command {
	var keep bool
	cmd := &cobra.Command{
		Use:                   "demo [--keep]",
		Short:                 "See it all on a throwaway server",
		Long:                  demoHelp,
		Example:               "  pglock demo\n  pglock demo --keep",
		Annotations:           map[string]string{offline: "true"},
		DisableFlagsInUseLine: true,
		Args:                  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.demo(cmd.Context(), keep)
		},
	}
	cmd.Flags().BoolVar(&keep, "keep", false, "leave the server up until Ctrl-C")
	return cmd
}

// demo has a server for as long as the story takes.
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

	fmt.Fprintln(a.Out, "A throwaway Postgres server comes first.")
	options, err := pgserver.FromEnv()
	if err != nil {
		return err
	}
	options.Database = "" // of the demo's own, always
	options.Log = a.Err
	server, err := pgserver.Start(ctx, options)
	if err != nil {
		return causeOr(ctx, err)
	}
	defer func() {
		if stopErr := server.Stop(); stopErr != nil {
			err = errors.Join(err, stopErr)
			return
		}
		fmt.Fprintln(a.Out, "\nThe server is stopped and removed.")
	}()
	database, err := server.CreateDatabase(ctx)
	if err != nil {
		return causeOr(ctx, err)
	}
	s, err := a.newStory(ctx, server, database)
	if err != nil {
		return causeOr(ctx, err)
	}
	defer s.end()
	if err := s.tell(ctx); err != nil {
		return causeOr(ctx, err)
	}
	if !keep {
		return nil
	}
	fmt.Fprintf(a.Out, "\nThe server stays until Ctrl-C. In another terminal:\n\n")
	for _, kv := range server.Env(database) {
		name, value, _ := strings.Cut(kv, "=")
		fmt.Fprintf(a.Out, "  export %s='%s'\n", name, strings.ReplaceAll(value, "'", `'\''`))
	}
	fmt.Fprintf(a.Out, "\n  pglock run my-lock -- sleep 60 &\n  pglock ls\n")
	<-ctx.Done()
	fmt.Fprintln(a.Out)
	return nil
}

// causeOr is the signal that ended ctx, where one did, rather than the error that
// came of it.
func causeOr(ctx context.Context, err error) error {
	interrupted := new(signalError)
	if errors.As(context.Cause(ctx), &interrupted) {
		return interrupted
	}
	return err
}

// tell tells the story.
func (s *story) tell(ctx context.Context) error {
	const report = "nightly-report"
	job := []string{"pglock", "run", report, "--", "sh", "-c", "echo at work; sleep 4; echo done"}

	s.say("Two machines shall make a report each night, but never both at once. Worker A\nbegins, and holds the lock while its command runs:")
	a, err := s.start("A", job...)
	if err != nil {
		return err
	}
	if err := s.await(ctx, report, 1, 0); err != nil {
		return err
	}
	s.say("Worker B comes with the same command:")
	b, err := s.start("B", job...)
	if err != nil {
		return err
	}
	if err := s.await(ctx, report, 1, 1); err != nil {
		return err
	}
	s.say("B's command has not begun: it waits. Who holds the lock, and who waits?")
	if _, err := s.run(ctx, "pglock", "ls"); err != nil {
		return err
	}
	s.say("A third one would rather not wait:")
	code, err := s.run(ctx, "pglock", "run", "--no-wait", report, "--", "echo", "never")
	if err != nil {
		return err
	}
	s.write(fmt.Sprintf("(exit code %d)\n", code))

	s.say("When A has done its work, the lock goes to B:")
	if err := a.wait(ctx); err != nil {
		return err
	}
	if err := s.await(ctx, report, 1, 0); err != nil {
		return err
	}
	s.say("Now C waits behind B, and B's pglock is killed, as if its machine went down. It\ncan tidy up nothing any more:")
	c, err := s.start("C", "pglock", "run", report, "--", "sh", "-c", "echo at work; echo done")
	if err != nil {
		return err
	}
	if err := s.await(ctx, report, 1, 1); err != nil {
		return err
	}
	killed := time.Now()
	if _, err := s.run(ctx, "kill", "-9", fmt.Sprint(b.cmd.Process.Pid)); err != nil {
		return err
	}
	if err := c.wait(ctx); err != nil {
		return err
	}
	s.say(fmt.Sprintf("Within %s B's command was ended with it, Postgres had freed the lock, and C had\ndone its work. Nobody holds it any more:", shortDuration(time.Since(killed))))
	if _, err := s.run(ctx, "pglock", "ls"); err != nil {
		return err
	}
	return b.wait(ctx)
}
