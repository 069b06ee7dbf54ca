package pgserver

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
)

// The ports that [FreePort] chooses from: below those that systems give to outgoing
// connections (from 32768 on on Linux, 49152 on others). So the port of a server that
// is stopped for a while is not somebody's when it starts again.
const (
	firstPort = 10_000
	lastPort  = 29_999
)

// FreePort finds a port of 127.0.0.1 that nobody listens on, for a server or a proxy
// that may be stopped and started again. Nothing keeps it free. ctx covers the
// looking.
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
