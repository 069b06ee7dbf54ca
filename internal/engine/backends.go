package engine

import (
	"sync"
	"time"
)

// ownBackends records the backends of all Engines of this process. It is the only state
// that is per process instead of per Engine: a lock in a transaction knows no Engine, and
// Postgres does not know that two sessions belong to one process, so only this registry
// can show that the process waits for itself.
var ownBackends struct {
	mu       sync.Mutex // guards backends
	backends map[backendID]struct{}
}

// A backendID identifies a backend. It includes the start, since PIDs are reused.
type backendID struct {
	pid   int32
	start int64 // microseconds since 1970
}

// OfThisProcess reports whether the backend with this PID and start belongs to an Engine
// of this process.
func OfThisProcess(pid int32, start time.Time) bool {
	ownBackends.mu.Lock()
	defer ownBackends.mu.Unlock()
	_, ok := ownBackends.backends[backendID{pid, start.UnixMicro()}]
	return ok
}

// registerBackend adds a backend of this process, and returns a function that removes it.
func registerBackend(pid int32, start time.Time) (remove func()) {
	b := backendID{pid, start.UnixMicro()}
	ownBackends.mu.Lock()
	defer ownBackends.mu.Unlock()
	if ownBackends.backends == nil {
		ownBackends.backends = make(map[backendID]struct{})
	}
	ownBackends.backends[b] = struct{}{}
	return func() {
		ownBackends.mu.Lock()
		defer ownBackends.mu.Unlock()
		delete(ownBackends.backends, b)
	}
}
