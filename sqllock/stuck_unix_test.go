//go:build unix

package sqllock_test

import (
	"context"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/pglock-go/pglock/internal/pgserver"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
	"github.com/pglock-go/pglock/sqllock"
)

// A backend that neither replies nor reacts to a cancel request behaves like one behind a
// broken network.
func TestCloseWhenTheServerIsStuck(t *testing.T) {
	server := pgtest.Own(t, pgserver.Options{})
	for _, driverName := range drivers {
		t.Run(driverName, func(t *testing.T) {
			session := open(t, sqllock.ConnString(driverName, server.ConnString("postgres")))
			pid, err := strconv.Atoi(ask(t, session, `SELECT pg_backend_pid()::text`))
			if err != nil {
				t.Fatal(err)
			}
			if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { syscall.Kill(pid, syscall.SIGCONT) })

			result := make(chan error, 1)
			asked := make(chan bool)
			go func() {
				close(asked)
				_, err := session.QueryText(context.Background(), `SELECT 'a'`)
				result <- err
			}()
			<-asked
			time.Sleep(50 * time.Millisecond) // there is no event for a running statement
			began := time.Now()
			session.Close()
			if took := time.Since(began); took > 20*time.Second { // the backend would take forever
				t.Errorf("Close took %v", took)
			}
			select {
			case err := <-result:
				if err == nil {
					t.Error("a stopped backend replied")
				}
			case <-time.After(20 * time.Second):
				t.Error("QueryText continues after Close")
			}
		})
	}
}
