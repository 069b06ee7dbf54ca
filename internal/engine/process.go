package engine

import (
	"sync"
	"time"
)

// ours records the backends of all Engines of this process. It is the only state that is
// per process instead of per Engine: a lock in a transaction knows no Engine, and Postgres
// does not know that two sessions belong to one process, so only this registry can show
// that the process waits for itself.
var ours struct {
	mu       sync.Mutex // guards backends
	backends map[ownBackend]struct{}
}

// An ownBackend identifies a backend. It includes the start, since PIDs are reused.
type ownBackend struct {
	pid   int32
	start int64 // microseconds since 1970
}

// OfThisProcess reports whether the backend with this PID and start belongs to an Engine
// of this process.
func OfThisProcess(pid int32, start time.Time) bool {
	ours.mu.Lock()
	defer ours.mu.Unlock()
	_, ok := ours.backends[ownBackend{pid, start.UnixMicro()}]
	return ok
}

// register adds a backend of this process, and returns a function that removes it.
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
