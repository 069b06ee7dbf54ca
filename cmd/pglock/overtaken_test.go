//go:build linux

package main

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/pglock-go/pglock"
)

// pglock is stopped, its session is terminated, and another run acquires the lock while
// the command runs. When pglock continues after its command has ended, it must exit with
// 76, whether it notices the loss or the end of the command first.
func TestStoppedAndOvertaken(t *testing.T) {
	t.Parallel()
	for n := range 9 {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			c := s.start(t, "run", "x", "--", "sh", "-c", "echo $$; read line; exit 0")
			child := c.pid()
			stop(t, c.cmd.Process.Pid)
			s.exec(t, "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND objid = $1"+
				" AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
				uint32(pglock.Name("x").ID()))
			other := s.start(t, "run", "x", "--", "echo", "beside")
			if got := other.line(); got != "beside" {
				t.Errorf("the other one printed %q", got)
			}
			other.want(0)
			fmt.Fprintln(c.stdin)
			eventually(t, "the command has ended", func() bool {
				state, _, ok := processStatus(child)
				return !ok || state == "Z"
			})
			proceed(t, c.cmd.Process.Pid)
			c.want(76)
			if e := c.errors(); !strings.Contains(e, "lost") {
				t.Errorf("stderr: %s", e)
			}
		})
	}
}

// A server that accepts connections but does not reply has not refused the lock: the exit
// code is 69, even with --no-wait and -E.
func TestSilentServer(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	host, port, _ := net.SplitHostPort(listener.Addr().String())
	s := newSite(t)
	for _, args := range [][]string{{"--wait", "300ms"}, {"--no-wait"}, {"--no-wait", "-E", "0"}} {
		args = append(append([]string{"-h", host, "-p", port, "run"}, args...), "x", "--", "echo", "ran")
		stdout, stderr, code := s.once(t, nil, args...)
		if code != 69 || stdout != "" {
			t.Errorf("%v: exit code %d, %s%s", args, code, stdout, stderr)
		}
	}
}
