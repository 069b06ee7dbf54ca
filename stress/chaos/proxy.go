package chaos

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"syscall"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/Shopify/toxiproxy/v2/toxics"
	"github.com/rs/zerolog"

	"github.com/pglock-go/pglock/internal/pgserver"
)

// A Proxy forwards connections from a port of 127.0.0.1 to a server, and can disturb
// them. Its methods must not be called concurrently.
type Proxy struct {
	proxy *toxiproxy.Proxy
}

// NewProxy listens on a free port and forwards connections to upstream, for example
// "127.0.0.1:5432". Close ends it.
func NewProxy(upstream string) (*Proxy, error) {
	toxics.Register(holeName, new(hole))
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	for tries := 1; ; tries++ {
		port, err := pgserver.FreePort(context.Background())
		if err != nil {
			return nil, fmt.Errorf("chaos: %w", err)
		}
		p := &Proxy{toxiproxy.NewProxy(server, "postgres", fmt.Sprintf("127.0.0.1:%d", port), upstream)}
		err = p.proxy.Start()
		if err == nil {
			return p, nil
		}
		// Another program may have taken the port since.
		if tries == maxPorts || !errors.Is(err, syscall.EADDRINUSE) {
			return nil, fmt.Errorf("chaos: starting a proxy for %s: %w", upstream, err)
		}
	}
}

// maxPorts limits how many free ports NewProxy tries.
const maxPorts = 10

// Port returns the port that the proxy listens on. It never changes.
func (p *Proxy) Port() int {
	p.proxy.Lock()
	defer p.proxy.Unlock()
	_, port, _ := net.SplitHostPort(p.proxy.Listen)
	n, _ := strconv.Atoi(port) // a listener's port is a number
	return n
}

// ConnString returns dsn, which is in libpq's key=value form, with the address of the
// proxy. The last value of a key counts.
func (p *Proxy) ConnString(dsn string) string {
	return fmt.Sprintf("%s host=127.0.0.1 port=%d", dsn, p.Port())
}

// Cut closes all connections on both sides at once. It accepts new ones immediately.
func (p *Proxy) Cut() error {
	p.Refuse()
	return p.Accept()
}

// Refuse closes all connections on both sides at once, and refuses new ones.
func (p *Proxy) Refuse() { p.proxy.Stop() }

// Accept accepts connections again after Refuse.
func (p *Proxy) Accept() error { return p.proxy.Start() }

// BlackHole silently drops everything that is sent in either direction, like a pulled
// cable: neither side is notified. New connections are accepted, and are just as silent.
// Unlike with a pulled cable, if one side closes its connection, so does the other.
func (p *Proxy) BlackHole() error {
	return p.add(holeName, `{}`, "upstream", "downstream")
}

// Deafen drops everything that the server sends, but still delivers what is sent to it.
func (p *Proxy) Deafen() error {
	return p.add(holeName, `{}`, "downstream")
}

// Slow delays what is sent in each direction by latency, plus or minus up to jitter.
func (p *Proxy) Slow(latency, jitter time.Duration) error {
	return p.add("latency", fmt.Sprintf(`{"latency": %d, "jitter": %d}`, latency.Milliseconds(), jitter.Milliseconds()), "upstream", "downstream")
}

// Heal ends BlackHole, Deafen and Slow. Dropped data stays lost, and connections that were in
// the black hole are closed.
func (p *Proxy) Heal() { p.proxy.Toxics.ResetToxics(context.Background()) }

// Close ends the proxy and all connections through it.
func (p *Proxy) Close() {
	p.Heal()
	p.proxy.Stop()
}

func (p *Proxy) add(kind, attributes string, directions ...string) error {
	for _, direction := range directions {
		toxic := fmt.Sprintf(`{"type": %q, "stream": %q, "attributes": %s}`, kind, direction, attributes)
		if _, err := p.proxy.Toxics.AddToxicJson(strings.NewReader(toxic)); err != nil {
			return fmt.Errorf("chaos: %s: %w", kind, err)
		}
	}
	return nil
}

// A hole is the toxic behind BlackHole. The timeout toxic of toxiproxy does the same, but
// leaks a goroutine if it is removed while data arrives.
type hole struct{}

const holeName = "hole"

// Pipe drops all data.
func (*hole) Pipe(stub *toxics.ToxicStub) {
	for {
		select {
		case <-stub.Interrupt:
			return
		case chunk := <-stub.Input:
			if chunk == nil {
				stub.Close()
				return
			}
		}
	}
}

// Cleanup closes the connection, and drains it until both sides have noticed.
func (*hole) Cleanup(stub *toxics.ToxicStub) {
	stub.Close()
	go func() {
		for range stub.Input {
		}
	}()
}
