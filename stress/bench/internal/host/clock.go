package host

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"

	"github.com/pglock-go/pglock/stress/bench/internal/peer"
)

// tick is Linux's unit of processor time in /proc.
const tick = 10 * time.Millisecond

// A CPUClock measures the processor time of a server.
type CPUClock struct {
	server peer.Server
	conn   *pgx.Conn     // to Postgres
	redis  *redis.Client // to Redis
	before map[int]time.Duration
}

// CPUClock returns a clock for the server of at.
func (h *Host) CPUClock(ctx context.Context, server peer.Server, at peer.Addresses) (c *CPUClock, err error) {
	c = &CPUClock{server: server}
	switch server {
	case peer.Postgres:
		c.conn, err = pgx.Connect(ctx, at.Postgres)
	case peer.Redis:
		c.redis = redis.NewClient(&redis.Options{Addr: h.redisTCP})
	default:
		err = fmt.Errorf("host: no clock for %s", server)
	}
	return c, err
}

// Close closes the clock's connection.
func (c *CPUClock) Close() error {
	if c.redis != nil {
		return c.redis.Close()
	}
	return c.conn.Close(context.Background())
}

// Start starts the measurement.
func (c *CPUClock) Start(ctx context.Context) (err error) {
	c.before, _, err = c.read(ctx)
	return err
}

// Stop returns the processor time since Start. It returns false if the system does not
// report it.
func (c *CPUClock) Stop(ctx context.Context) (used time.Duration, ok bool, err error) {
	after, ok, err := c.read(ctx)
	for pid, t := range after {
		used += t - c.before[pid]
	}
	return used, ok, err
}

// read returns the processor time by PID.
func (c *CPUClock) read(ctx context.Context) (times map[int]time.Duration, ok bool, err error) {
	if c.redis != nil {
		info, err := c.redis.InfoMap(ctx, "cpu").Result()
		if err != nil {
			return nil, false, err
		}
		var sum float64
		for _, name := range []string{"used_cpu_sys", "used_cpu_user"} {
			seconds, err := strconv.ParseFloat(info["CPU"][name], 64)
			if err != nil {
				return nil, false, fmt.Errorf("host: %s of Redis: %w", name, err)
			}
			sum += seconds
		}
		return map[int]time.Duration{0: time.Duration(sum * float64(time.Second))}, true, nil
	}
	rows, err := c.conn.Query(ctx, "SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
	if err != nil {
		return nil, false, err
	}
	pids, err := pgx.CollectRows(rows, pgx.RowTo[int32])
	if err != nil {
		return nil, false, err
	}
	times = map[int]time.Duration{}
	for _, pid := range pids {
		if t, known := processCPU(int(pid)); known {
			times[int(pid)], ok = t, true
		}
	}
	return times, ok, nil
}

// processCPU returns the processor time of a process since its start.
func processCPU(pid int) (time.Duration, bool) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, false
	}
	// The second field is a name in parentheses, which may contain spaces.
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(fields) < 13 {
		return 0, false
	}
	user, err1 := strconv.Atoi(fields[11])
	system, err2 := strconv.Atoi(fields[12])
	return time.Duration(user+system) * tick, err1 == nil && err2 == nil
}
