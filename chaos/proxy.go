package chaos

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/Shopify/toxiproxy/v2/toxics"
	"github.com/rs/zerolog"

	"github.com/pglock-go/pglock/internal/pgserver"
)

// A Proxy stands between clients and a server, on a port of 127.0.0.1, and harms
// what passes. Its methods are for one goroutine at a time.
type Proxy struct {
	proxy *toxiproxy.Proxy
}

// NewProxy begins to listen on a free port and to pass on to upstream, such as
// "127.0.0.1:5432". Close ends it.
func NewProxy(upstream string) (*Proxy, error) {
	toxics.Register(holeName, new(hole))
	port, err := pgserver.FreePort(context.Background())
	if err != nil {
		return nil, fmt.Errorf("chaos: %w", err)
	}
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	p := &Proxy{toxiproxy.NewProxy(server, "postgres", fmt.Sprintf("127.0.0.1:%d", port), upstream)}
	if err := p.proxy.Start(); err != nil {
		return nil, fmt.Errorf("chaos: starting a proxy before %s: %w", upstream, err)
	}
	return p, nil
}

// Port is where it listens. It stays the same as long as the Proxy lives.
func (p *Proxy) Port() int {
	p.proxy.Lock()
	defer p.proxy.Unlock()
	_, port, _ := net.SplitHostPort(p.proxy.Listen)
	n, _ := strconv.Atoi(port) // it came from a listener
	return n
}

// ConnString is dsn, in libpq's key=value form, through the proxy: what stands
// last counts.
func (p *Proxy) ConnString(dsn string) string {
	return fmt.Sprintf("%s host=127.0.0.1 port=%d", dsn, p.Port())
}

// Cut closes all connections, on both sides at once. New ones are possible
// straight away.
func (p *Proxy) Cut() error {
	p.Refuse()
	return p.Accept()
}

// Refuse closes all connections, on both sides at once, and refuses new ones.
func (p *Proxy) Refuse() { p.proxy.Stop() }

// Accept ends what Refuse began.
func (p *Proxy) Accept() error { return p.proxy.Start() }

// BlackHole swallows all that is sent, in both directions, without a word, as a
// network does whose cable is pulled: neither side is told. New connections are
// accepted, and as silent. One difference remains: when one side closes its
// connection, the other is told.
func (p *Proxy) BlackHole() error {
	return p.add(holeName, `{}`)
}

// Slow delays what is sent, in each direction, by latency, and by up to jitter
// more or less.
func (p *Proxy) Slow(latency, jitter time.Duration) error {
	return p.add("latency", fmt.Sprintf(`{"latency": %d, "jitter": %d}`, latency.Milliseconds(), jitter.Milliseconds()))
}

// Heal ends BlackHole and Slow. What was swallowed stays lost: connections that
// were in the black hole are closed.
func (p *Proxy) Heal() { p.proxy.Toxics.ResetToxics(context.Background()) }

// Close ends the proxy and all connections through it.
func (p *Proxy) Close() {
	p.Heal()
	p.proxy.Stop()
}

func (p *Proxy) add(kind, attributes string) error {
	for _, direction := range []string{"upstream", "downstream"} {
		toxic := fmt.Sprintf(`{"type": %q, "stream": %q, "attributes": %s}`, kind, direction, attributes)
		if _, err := p.proxy.Toxics.AddToxicJson(strings.NewReader(toxic)); err != nil {
			return fmt.Errorf("chaos: %s: %w", kind, err)
		}
	}
	return nil
}

// hole is the toxic behind BlackHole. The timeout toxic of toxiproxy does the same,
// but leaves a goroutine behind, for ever, when it is taken away while data comes.
type hole struct{}

const holeName = "hole"

// Pipe drops all that comes.
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

// Cleanup closes the connection, and takes what still comes until both sides know.
func (*hole) Cleanup(stub *toxics.ToxicStub) {
	stub.Close()
	go func() {
		for range stub.Input {
		}
	}()
}
