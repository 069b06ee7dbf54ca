// Package host starts the servers that the benchmarks need, in temporary directories
// and for this machine only, and describes the machine.
package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
	etcd "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/pglock-go/pglock/internal/pgserver"
	"github.com/pglock-go/pglock/stress/bench/internal/peer"
)

// A Host owns the servers of the benchmarks. Each starts on its first use. A Host must
// not be used by several goroutines at once.
type Host struct {
	Log io.Writer // receives messages about slow steps

	plain, big *pgserver.Server
	redis      *pgserver.Process
	etcd       *pgserver.Process
	redisTCP   string
	at         peer.Addresses
	versions   map[peer.Server]string
	missing    map[peer.Server]error
	closers    []func() error
}

// Plain returns a Postgres server with default settings, except that it accepts more
// connections, and that its data does not survive a crash.
func (h *Host) Plain(ctx context.Context) (*pgserver.Server, error) {
	return h.postgres(ctx, &h.plain, map[string]string{"max_connections": "300"})
}

// Big returns a Postgres server with room for 450,000 locks and 1,000 sessions. It has no
// deadlock checks, because hundreds of waiting sessions would keep it busy with them.
func (h *Host) Big(ctx context.Context) (*pgserver.Server, error) {
	return h.postgres(ctx, &h.big, map[string]string{
		"max_connections": "1000", "max_locks_per_transaction": "450", "deadlock_timeout": "1h",
	})
}

func (h *Host) postgres(ctx context.Context, server **pgserver.Server, settings map[string]string) (*pgserver.Server, error) {
	if *server != nil {
		return *server, nil
	}
	o, err := pgserver.FromEnv()
	if err != nil {
		return nil, err
	}
	o.Database = "" // start servers that nobody else uses
	o.Settings, o.TCP, o.Log = settings, true, h.Log
	s, err := pgserver.Start(ctx, o)
	if err != nil {
		return nil, err
	}
	h.closers = append(h.closers, s.Stop)
	*server = s
	h.setVersion(peer.Postgres, s.Binaries().Version)
	return s, nil
}

func (h *Host) setVersion(s peer.Server, version string) {
	if h.versions == nil {
		h.versions = map[peer.Server]string{}
	}
	h.versions[s] = version
}

// Versions returns the versions of the servers that were started.
func (h *Host) Versions() map[peer.Server]string { return h.versions }

// Missing returns the servers that could not be started, and why.
func (h *Host) Missing() map[peer.Server]error { return h.missing }

// Addresses starts the plain server and those of the peers, and returns their
// addresses. If a peer's server cannot be started, its address is empty and
// [Host.Missing] has the reason.
func (h *Host) Addresses(ctx context.Context) (peer.Addresses, error) {
	if h.at.Postgres != "" {
		return h.at, nil
	}
	s, err := h.Plain(ctx)
	if err != nil {
		return h.at, err
	}
	h.missing = map[peer.Server]error{}
	if err := h.startRedis(ctx); err != nil {
		h.missing[peer.Redis] = err
	}
	if err := h.startEtcd(ctx); err != nil {
		h.missing[peer.Etcd] = err
	}
	h.at.Postgres = s.ConnString("postgres")
	return h.at, nil
}

func (h *Host) startRedis(ctx context.Context) error {
	program, err := pgserver.FindProgram(ctx, "redis-server", h.Log)
	if err != nil {
		return err
	}
	port, err := freePort(ctx)
	if err != nil {
		return err
	}
	var socket string
	h.redis, err = program.Start(ctx, func(folder string) (map[string]string, []string) {
		socket = folder + "/redis"
		return nil, []string{
			"--unixsocket", socket, "--bind", "127.0.0.1", "--port", port,
			"--save", "", "--appendonly", "no", "--dir", folder,
		}
	})
	if err != nil {
		return err
	}
	h.closers = append(h.closers, h.redis.Stop)
	client := redis.NewClient(&redis.Options{Network: "unix", Addr: socket})
	defer client.Close()
	if err := waitReady(ctx, h.redis, func(ctx context.Context) error { return client.Ping(ctx).Err() }); err != nil {
		return fmt.Errorf("host: Redis does not respond: %w; its log:\n%s", err, h.redis.Logs())
	}
	info, err := client.InfoMap(ctx, "server").Result()
	if err != nil {
		return err
	}
	h.setVersion(peer.Redis, info["Server"]["redis_version"])
	h.at.Redis = "unix " + socket
	h.redisTCP = "127.0.0.1:" + port
	return nil
}

// RedisMemory returns how much memory Redis has allocated, in bytes.
func (h *Host) RedisMemory(ctx context.Context) (int64, error) {
	client := redis.NewClient(&redis.Options{Addr: h.redisTCP})
	defer client.Close()
	info, err := client.InfoMap(ctx, "memory").Result()
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(info["Memory"]["used_memory"], 10, 64)
}

func (h *Host) startEtcd(ctx context.Context) error {
	program, err := pgserver.FindProgram(ctx, "etcd", h.Log)
	if err != nil {
		return err
	}
	client, err := freePort(ctx)
	if err != nil {
		return err
	}
	others, err := freePort(ctx)
	if err != nil {
		return err
	}
	address := "127.0.0.1:" + client
	h.etcd, err = program.Start(ctx, func(folder string) (map[string]string, []string) {
		return nil, []string{
			"--data-dir", folder + "/data", "--log-level", "error", "--logger", "zap",
			"--listen-client-urls", "http://" + address, "--advertise-client-urls", "http://" + address,
			"--listen-peer-urls", "http://127.0.0.1:" + others, "--initial-advertise-peer-urls", "http://127.0.0.1:" + others,
			"--initial-cluster", "default=http://127.0.0.1:" + others,
		}
	})
	if err != nil {
		return err
	}
	h.closers = append(h.closers, h.etcd.Stop)
	c, err := etcd.New(etcd.Config{Endpoints: []string{address}, Logger: zap.NewNop()})
	if err != nil {
		return err
	}
	defer c.Close()
	if err := waitReady(ctx, h.etcd, func(ctx context.Context) error {
		status, err := c.Status(ctx, address)
		if err == nil {
			h.setVersion(peer.Etcd, status.Version)
		}
		return err
	}); err != nil {
		return fmt.Errorf("host: etcd does not respond: %w; its log:\n%s", err, h.etcd.Logs())
	}
	h.at.Etcd = address
	return nil
}

// waitReady calls ask until it succeeds, which means that the server is ready.
func waitReady(ctx context.Context, p *pgserver.Process, ask func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		once, cancelOnce := context.WithTimeout(ctx, 2*time.Second)
		err := ask(once)
		cancelOnce()
		if err == nil || ctx.Err() != nil {
			return err
		}
		if !p.Running() {
			return errors.Join(errors.New("the server exited"), err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func freePort(ctx context.Context) (string, error) {
	port, err := pgserver.FreePort(ctx)
	return strconv.Itoa(port), err
}

// Close stops all servers.
func (h *Host) Close() error {
	var errs []error
	for i := len(h.closers) - 1; i >= 0; i-- {
		errs = append(errs, h.closers[i]())
	}
	h.closers = nil
	return errors.Join(errs...)
}

// TempDir creates a directory that Close removes.
func (h *Host) TempDir() (string, error) {
	dir, err := os.MkdirTemp("", "pglock-bench-")
	if err != nil {
		return "", err
	}
	h.closers = append(h.closers, func() error { return os.RemoveAll(dir) })
	return dir, nil
}
