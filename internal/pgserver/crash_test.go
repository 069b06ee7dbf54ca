//go:build unix

package pgserver_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"testing"

	"github.com/pglock-go/pglock/internal/pgserver"
)

// childEnv makes this test binary a program that starts a server and ends without
// stopping it.
const childEnv = "PGSERVER_TEST_CHILD"

func child(how string) {
	o, err := pgserver.FromEnv()
	if err != nil {
		panic(err)
	}
	o.Database = ""
	server, err := pgserver.Start(context.Background(), o)
	if err != nil {
		panic(err)
	}
	// A child that inherits everything and outlives the program must not keep the
	// server running.
	sleeper := exec.Command("sleep", "60")
	if err := sleeper.Start(); err != nil {
		panic(err)
	}
	if how == "SIGINT ignored" {
		signal.Ignore(syscall.SIGINT)
	}
	fmt.Println(server.Folder())
	fmt.Println(sleeper.Process.Pid)
	switch how {
	case "panic":
		panic("as asked")
	case "exit":
		os.Exit(3)
	}
	io.Copy(io.Discard, os.Stdin) // until a signal comes, or the test closes it
	if how == "SIGINT ignored" {
		if _, err := server.CreateDatabase(context.Background()); err != nil {
			panic(err)
		}
		if err := server.Stop(); err != nil {
			panic(err)
		}
	}
}

// program starts the child and returns the folder of its server.
func program(t *testing.T, how string) (cmd *exec.Cmd, stdin io.Closer, folder string) {
	t.Helper()
	cmd = exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+how)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stdin.Close() })
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var sleeper int
	if _, err := fmt.Fscan(bufio.NewReader(stdout), &folder, &sleeper); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Kill(sleeper, syscall.SIGKILL) })
	return cmd, stdin, folder
}

// A program may handle Ctrl-C itself, and still needs its server then.
func TestCtrlCDoesNotReachTheServer(t *testing.T) {
	cmd, stdin, _ := program(t, "SIGINT ignored")
	if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	stdin.Close()
	if err := cmd.Wait(); err != nil {
		t.Errorf("the program failed: %v", err)
	}
}

func TestTheServerEndsWithItsProgram(t *testing.T) {
	for _, how := range []string{"panic", "exit", "SIGKILL", "SIGINT", "SIGTERM", "SIGHUP"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			number, ok := map[string]syscall.Signal{
				"SIGKILL": syscall.SIGKILL, "SIGINT": syscall.SIGINT,
				"SIGTERM": syscall.SIGTERM, "SIGHUP": syscall.SIGHUP,
			}[how]
			if ok && signal.Ignored(number) {
				t.Skipf("%s is ignored where the tests were started, as nohup does", how)
			}
			cmd, _, folder := program(t, how)
			var err error
			if how == "SIGKILL" {
				err = cmd.Process.Kill() // the program alone
			} else if ok {
				err = syscall.Kill(-cmd.Process.Pid, number) // its whole group, as a terminal does
			}
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Wait(); err == nil {
				t.Error("the program succeeded")
			}
			await(t, "the folder to go", func() bool {
				_, err := os.Lstat(folder)
				return errors.Is(err, os.ErrNotExist)
			})
			await(t, "the processes to go", func() bool { return len(processes(folder)) == 0 })
		})
	}
}
