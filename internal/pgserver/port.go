package pgserver

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
)

// FreePort chooses from firstPort to lastPort, below the ports of outgoing connections
// (from 32768 on Linux, from 49152 on others). So the port of a stopped server stays free
// until it starts again.
const (
	firstPort = 10_000
	lastPort  = 29_999
)

// FreePort returns a port of 127.0.0.1 that is not in use, for a server or a proxy that
// may be stopped and started again. The port is not reserved. ctx covers the search.
func FreePort(ctx context.Context) (int, error) {
	var err error
	for range 100 {
		port := firstPort + rand.IntN(lastPort-firstPort+1)
		var l net.Listener
		if l, err = new(net.ListenConfig).Listen(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			return port, l.Close()
		}
	}
	return 0, fmt.Errorf("pgserver: finding a free port: %w", err)
}
