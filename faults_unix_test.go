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

// A hanging backend keeps its locks, but our handles report their loss.
func TestServerHangs(t *testing.T) {
	t.Parallel()
	server := pgtest.Own(t, pgserver.Options{})
	d := databaseOn(t, server)
	locker := d.locker(pglock.Heartbeat(300 * time.Millisecond))
	key := pglock.Name("job")
	held := lock(t, locker, key)
	must(t, syscall.Kill(int(held.PID()), syscall.SIGSTOP))
	<-held.Done()
	wantErr(t, held.Unlock(), pglock.ErrLost)
	_, err := locker.TryLock(t.Context(), key)
	wantErr(t, err, pglock.ErrNotAcquired) // our old session still holds it
	must(t, syscall.Kill(int(held.PID()), syscall.SIGCONT))
	must(t, lock(t, locker, key).Unlock())
}
