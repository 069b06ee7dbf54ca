//go:build unix

package supervise

import (
	"errors"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
)

// signaledGuard is a variable that makes the guard signal itself before it starts.
const signaledGuard = "SUPERVISE_TEST_SIGNALED_GUARD"

// TestMain makes the test binary the guard if it is started under that name.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) != GuardName {
		os.Exit(m.Run())
	}
	if sig, err := strconv.Atoi(os.Getenv(signaledGuard)); err == nil {
		_ = syscall.Kill(os.Getpid(), syscall.Signal(sig))
	}
	os.Exit(Guard(os.Args[1:], os.Stderr))
}

// A signal to all processes before the command was started ends the guard, which is not an
// error of the guard.
func TestInterruptedStart(t *testing.T) {
	for _, test := range []struct {
		signal      syscall.Signal
		interrupted bool
	}{
		{syscall.SIGTERM, true},
		{syscall.SIGHUP, true},
		{syscall.SIGKILL, false},
	} {
		if signal.Ignored(test.signal) { // as under nohup, and then it ends nothing
			t.Logf("NOT TESTED: these tests were started with %v ignored", test.signal)
			continue
		}
		_, err := Start(Command{
			Path: "/bin/sh", Args: []string{"sh", "-c", "exit 0"}, Stderr: os.Stderr,
			Env: []string{signaledGuard + "=" + strconv.Itoa(int(test.signal))},
		})
		interrupted := new(InterruptedError)
		switch is := errors.As(err, &interrupted); {
		case err == nil || is != test.interrupted:
			t.Errorf("%v: the error is %v", test.signal, err)
		case is && interrupted.Signal != test.signal:
			t.Errorf("%v: the error is about %v", test.signal, interrupted.Signal)
		}
	}
}
