package host

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/pglock-go/pglock/stress/bench/internal/peer"
)

// Slow returns addresses of the servers behind a network with the given delay each way.
// They work until stop is called. etcd is left out.
func (h *Host) Slow(ctx context.Context, delay time.Duration) (at peer.Addresses, stop func(), err error) {
	if _, err := h.Addresses(ctx); err != nil {
		return at, nil, err
	}
	api := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(prometheus.NewRegistry()), zerolog.New(io.Discard))
	var proxies []*toxiproxy.Proxy
	stop = func() {
		for _, p := range proxies {
			p.Stop()
		}
	}
	open := func(name, upstream string) (string, error) {
		p := toxiproxy.NewProxy(api, name, "127.0.0.1:0", upstream)
		if err := p.Start(); err != nil {
			return "", err
		}
		proxies = append(proxies, p)
		for _, stream := range []string{"upstream", "downstream"} {
			toxic := fmt.Sprintf(`{"type": "latency", "stream": %q, "attributes": {"latency": %d}}`, stream, delay.Milliseconds())
			if _, err := p.Toxics.AddToxicJson(strings.NewReader(toxic)); err != nil {
				return "", err
			}
		}
		return p.Listen, nil
	}
	listen, err := open("postgres", fmt.Sprintf("127.0.0.1:%d", h.plain.Port()))
	if err != nil {
		stop()
		return at, nil, err
	}
	host, port, _ := strings.Cut(listen, ":")
	at.Postgres = fmt.Sprintf("host=%s port=%s user=postgres dbname=postgres sslmode=disable", host, port)
	if h.redisTCP != "" {
		listen, err := open("redis", h.redisTCP)
		if err != nil {
			stop()
			return at, nil, err
		}
		at.Redis = "tcp " + listen
	}
	return at, stop, nil
}
