package engine

import (
	"sync"
	"time"
)

// ours are the backends of all Engines of this process. This is the one thing that is
// known for the process as a whole and not for an Engine: who waits in a transaction for
// a lock knows of no Engine, and Postgres does not know that two of its sessions belong
// to one process, so nobody else could say that the process waits for itself.
var ours struct {
	mu       sync.Mutex // guards backends
	backends map[ownBackend]struct{}
}

// An ownBackend is one for as long as its server runs: a PID can be used again.
type ownBackend struct {
	pid   int32
	start int64 // microseconds since 1970
}

// OfThisProcess reports whether the backend that began at start belongs to an Engine of
// this process.
func OfThisProcess(pid int32, start time.Time) bool {
	ours.mu.Lock()
	defer ours.mu.Unlock()
	_, ok := ours.backends[ownBackend{pid, start.UnixMicro()}]
	return ok
}

// register adds a backend to those of this process, and returns what removes it.
func register(pid int32, start time.Time) (remove func()) {
	b := ownBackend{pid, start.UnixMicro()}
	ours.mu.Lock()
	defer ours.mu.Unlock()
	if ours.backends == nil {
		ours.backends = make(map[ownBackend]struct{})
	}
	ours.backends[b] = struct{}{}
	return func() {
		ours.mu.Lock()
		defer ours.mu.Unlock()
		delete(ours.backends, b)
	}
}
