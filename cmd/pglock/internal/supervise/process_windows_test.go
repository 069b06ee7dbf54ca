package supervise

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/windows"
)

// TestMain makes the test binary one of the commands that the tests start.
func TestMain(m *testing.M) {
	role := os.Getenv("SUPERVISE_TEST_AS")
	if role == "" {
		os.Exit(m.Run())
	}
	switch role {
	case "sleeper": // ends at Ctrl-Break, which it does not handle
		time.Sleep(time.Hour)
	case "stubborn":
		signal.Ignore(os.Interrupt)
		time.Sleep(time.Hour)
	case "parent": // leaves a child behind
		fmt.Println(startChild("sleeper"))
	case "tree": // lives on with a child
		fmt.Println(startChild("stubborn"))
		time.Sleep(time.Hour)
	case "program": // runs a tree, as pglock does, until it is killed
		p, err := Start(command("tree", os.Stdout))
		if err != nil {
			panic(err)
		}
		_, _ = p.Wait()
	}
	os.Exit(3)
}

// self returns the path of the test binary.
func self() string {
	path, err := os.Executable()
	if err != nil {
		panic(err)
	}
	return path
}

func as(role string) []string {
	var env []string
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "SUPERVISE_TEST_AS=") {
			env = append(env, kv)
		}
	}
	return append(env, "SUPERVISE_TEST_AS="+role)
}

func command(role string, stdout io.Writer) Command {
	return Command{Path: self(), Args: []string{role}, Env: as(role), Stdout: stdout, Stderr: os.Stderr, Grace: time.Minute}
}

func startChild(role string) int {
	cmd := exec.Command(self())
	cmd.Env = as(role)
	if err := cmd.Start(); err != nil {
		panic(err)
	}
	return cmd.Process.Pid
}

// start starts a command that prints a number first.
func start(t *testing.T, c Command) (*Process, windows.Handle) {
	t.Helper()
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { out.Close() })
	c.Stdout = in
	p, err := Start(c)
	in.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.job.kill)
	return p, child(t, out)
}

// child opens the process whose PID is on the first line.
func child(t *testing.T, out io.Reader) windows.Handle {
	t.Helper()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	process, err := windows.OpenProcess(windows.SYNCHRONIZE, false, uint32(pid))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { windows.CloseHandle(process) })
	return process
}

// alive reports whether a process is still running after this time.
func alive(process windows.Handle, within time.Duration) bool {
	event, err := windows.WaitForSingleObject(process, uint32(within.Milliseconds()))
	return err == nil && event == uint32(windows.WAIT_TIMEOUT)
}

func TestExitCode(t *testing.T) {
	p, err := Start(command("ended", nil))
	if err != nil {
		t.Fatal(err)
	}
	if status, err := p.Wait(); err != nil || status.ExitCode() != 3 {
		t.Errorf("it ended with %+v, %v, not with 3", status, err)
	}
}

func TestStartError(t *testing.T) {
	_, err := Start(Command{Path: `C:\no\such\command.exe`, Args: []string{"command"}})
	if e := new(StartError); !errors.As(err, &e) || !e.NotFound {
		t.Errorf("the error is %v, not NotFound", err)
	}
	if _, err := Find("no-such-command", nil); err == nil {
		t.Error("a missing command was found")
	}
}

// The processes that the command leaves behind have ended when Wait returns.
func TestLeftBehind(t *testing.T) {
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	p, err := Start(command("parent", in))
	in.Close()
	if err != nil {
		t.Fatal(err)
	}
	left := child(t, out)
	status, err := p.Wait()
	if err != nil || status.ExitCode() != 3 {
		t.Errorf("it ended with %+v, %v, not with 3", status, err)
	}
	if alive(left, 0) {
		t.Error("a process that the command left behind is alive")
	}
}

// A command that ignores Ctrl-Break is killed after the grace, with all it started.
func TestEnd(t *testing.T) {
	c := command("tree", nil)
	c.Grace = 50 * time.Millisecond
	p, stubborn := start(t, c)
	if !alive(stubborn, 0) {
		t.Fatal("the command's child has ended too early")
	}
	p.End()
	if _, err := p.Wait(); err != nil {
		t.Error(err)
	}
	if alive(stubborn, 0) {
		t.Error("the command's child is still alive")
	}
}

// If the program is killed, so is the command, with all it started.
func TestKilledProgram(t *testing.T) {
	program := exec.Command(self())
	program.Env = as("program")
	out, err := program.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := program.Start(); err != nil {
		t.Fatal(err)
	}
	stubborn := child(t, out)
	if err := program.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if alive(stubborn, 30*time.Second) {
		t.Error("the command's child is still alive")
	}
	_ = program.Wait()
}
