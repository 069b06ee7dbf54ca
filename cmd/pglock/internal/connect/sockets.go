package connect

import (
	"net"
	"sync"
	"syscall"
)

// Sockets tracks the network connections made to a target.
type Sockets struct {
	mu    sync.Mutex
	conns []net.Conn
}

// WatchSockets starts to track the network connections that t makes.
func (t *Target) WatchSockets() *Sockets {
	t.sockets = &Sockets{}
	return t.sockets
}

// add records conn and forgets closed connections. It does nothing if s is nil.
func (s *Sockets) add(conn net.Conn) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	open := s.conns[:0]
	for _, c := range s.conns {
		if isOpen(c) {
			open = append(open, c)
		}
	}
	s.conns = append(open, conn)
}

// Open returns the connections that are still open.
func (s *Sockets) Open() []syscall.Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	var open []syscall.Conn
	for _, c := range s.conns {
		if raw, ok := c.(syscall.Conn); ok && isOpen(c) {
			open = append(open, raw)
		}
	}
	return open
}

func isOpen(conn net.Conn) bool {
	c, ok := conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := c.SyscallConn()
	return err == nil && raw.Control(func(uintptr) {}) == nil
}
