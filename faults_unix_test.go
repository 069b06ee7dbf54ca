//go:build unix

package pglock_test

import (
	"syscall"
	"testing"
	"time"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/internal/pgserver"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
)

// A backend that hangs holds its locks, but not for us.
func TestServerHangs(t *testing.T) {
	t.Parallel()
	server := pgtest.Own(t, pgserver.Options{})
	d := on(t, server)
	locker := d.locker(pglock.Heartbeat(300 * time.Millisecond))
	key := pglock.Name("job")
	held := lock(t, locker, key)
	must(t, syscall.Kill(int(held.PID()), syscall.SIGSTOP))
	<-held.Done()
	wantErr(t, held.Unlock(), pglock.ErrLost)
	_, err := locker.TryLock(t.Context(), key)
	wantErr(t, err, pglock.ErrNotAcquired) // by what is left of our old session
	must(t, syscall.Kill(int(held.PID()), syscall.SIGCONT))
	must(t, lock(t, locker, key).Unlock())
}
