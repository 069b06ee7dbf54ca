package connect

import (
	"context"
	"net"
	"sync"
	"syscall"

	"github.com/jackc/pgx/v5"
)

// Sockets are the network connections that were made with a configuration.
type Sockets struct {
	mu    sync.Mutex
	conns []net.Conn
}

// WatchSockets notes from now on which network connections config makes.
func WatchSockets(config *pgx.ConnConfig) *Sockets {
	s := &Sockets{}
	dial := config.DialFunc
	config.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err == nil {
			s.add(conn)
		}
		return conn, err
	}
	return s
}

func (s *Sockets) add(conn net.Conn) {
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

// Open are those that are open.
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
