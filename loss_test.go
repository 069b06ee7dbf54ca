package pglock_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/driver"
	"github.com/pglock-go/pglock/internal/pgserver"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
	"github.com/pglock-go/pglock/internal/sessiontest"
	"github.com/pglock-go/pglock/pgxlock"
	"github.com/pglock-go/pglock/sqllock"
)

// cable is a connection between client and server that can be pulled: then both ends stay
// open, and nothing is transmitted.
type cable struct {
	listener net.Listener
	to       string
	pulled   atomic.Bool
	mu       sync.Mutex
	conns    []net.Conn
	wg       sync.WaitGroup
}

func newCable(t *testing.T, to string) *cable {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	c := &cable{listener: listener, to: to}
	c.wg.Go(c.accept)
	t.Cleanup(func() {
		listener.Close()
		c.cut()
		c.wg.Wait()
	})
	return c
}

func (c *cable) port() int { return c.listener.Addr().(*net.TCPAddr).Port }

func (c *cable) accept() {
	for {
		client, err := c.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", c.to)
		if err != nil {
			client.Close()
			continue
		}
		c.mu.Lock()
		c.conns = append(c.conns, client, server)
		c.mu.Unlock()
		for _, way := range [][2]net.Conn{{client, server}, {server, client}} {
			c.wg.Go(func() {
				var b [4096]byte
				for {
					n, err := way[0].Read(b[:])
					if c.pulled.Load() {
						if err != nil {
							return // the other end is not notified
						}
						continue
					}
					if _, werr := way[1].Write(b[:n]); err != nil || werr != nil {
						way[1].Close()
						return
					}
				}
			})
		}
	}
}

// cut resets the connections, as a firewall may do.
func (c *cable) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.conns {
		if tcp, ok := conn.(*net.TCPConn); ok {
			tcp.SetLinger(0)
		}
		conn.Close()
	}
	c.conns = nil
}

// A pulled cable notifies neither end. The holder detects it within the heartbeat, and so
// does Unlock; a reset connection is detected at once.
func TestCablePulled(t *testing.T) {
	t.Parallel()
	server := pgtest.Own(t, pgserver.Options{TCP: true})
	for name, source := range map[string]func(dsn string) driver.Source{
		"pgx":                  func(dsn string) driver.Source { return pgxlock.ConnString(dsn) },
		"database/sql, lib/pq": func(dsn string) driver.Source { return sqllock.ConnString("postgres", dsn) },
	} {
		for _, what := range []string{"holding", "unlocking", "waiting", "reset"} {
			t.Run(name+" "+what, func(t *testing.T) {
				t.Parallel()
				d := databaseOn(t, server)
				cable := newCable(t, fmt.Sprintf("127.0.0.1:%d", server.Port()))
				const heartbeat = 600 * time.Millisecond
				locker := newLocker(t, source(fmt.Sprintf("host=127.0.0.1 port=%d user=postgres dbname=postgres sslmode=disable", cable.port())),
					pglock.Heartbeat(heartbeat))
				key := pglock.Name(t.Name())
				held := lock(t, locker, key)
				began := time.Now()
				switch what {
				case "holding":
					cable.pulled.Store(true)
					<-held.Done()
					wantErr(t, held.Unlock(), pglock.ErrLost)
				case "unlocking":
					cable.pulled.Store(true)
					err := held.Unlock()
					if !errors.Is(err, pglock.ErrUnconfirmed) && !errors.Is(err, pglock.ErrLost) {
						t.Errorf("Unlock: %v", err)
					}
				case "waiting":
					other := d.locker()
					theirs := lock(t, other, pglock.Name("theirs of "+name))
					// Long enough that a slow machine sees it wait before the cable is pulled.
					got := start(locker, t.Context(), theirs.Keys()[0], pglock.Wait(10*heartbeat))
					d.untilWaiting(1, theirs.Keys()[0])
					began = time.Now()
					cable.pulled.Store(true)
					if err := (<-got).err; err == nil {
						t.Error("the lock was acquired")
					}
					<-held.Done()
					must(t, theirs.Unlock())
				case "reset":
					cable.cut()
					<-held.Done()
					wantErr(t, held.Err(), pglock.ErrLost)
				}
				took := time.Since(began)
				t.Logf("told after %v", took)
				// Without a heartbeat the holder would never be notified. The rest is for
				// slow machines, and for a failed query for the holders.
				most := 5*heartbeat + 20*time.Second
				if took > most {
					t.Errorf("notified after %v, with a heartbeat of %v", took, heartbeat)
				}
				cable.cut() // close the server's end, too
				classid, objid, _ := key.PgLocks()
				d.until(`SELECT count(*) = 0 FROM pg_locks WHERE locktype = 'advisory' AND classid = $1 AND objid = $2 AND `+inThisDatabase, classid, objid)
				cable.pulled.Store(false)
				again, err := locker.Lock(t.Context(), key)
				for errors.Is(err, pglock.ErrUnavailable) && time.Since(began) < 2*most {
					// The cable was cut while a session was being opened through it.
					again, err = locker.Lock(t.Context(), key)
				}
				must(t, err)
				must(t, again.Unlock())
				must(t, locker.Close())
			})
		}
	}
}

// holderEnv turns the test binary into a process that holds a lock until it is killed.
const holderEnv = "PGLOCK_TEST_HOLD"

func TestHolderProcess(t *testing.T) {
	dsn := os.Getenv(holderEnv)
	if dsn == "" {
		return // only for startHolder
	}
	locker, err := pglock.New(pgxlock.ConnString(dsn))
	must(t, err)
	held := lock(t, locker, pglock.Name("job"))
	fmt.Println("held by", held.PID())
	select {}
}

// startHolder starts a process that holds the lock "job".
func startHolder(t testing.TB, dsn string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, "-test.run=^TestHolderProcess$", "-test.v")
	cmd.Env = append(os.Environ(), holderEnv+"="+dsn)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	var b [256]byte
	var output []byte
	for !bytes.Contains(output, []byte("held by")) {
		n, err := out.Read(b[:])
		if err != nil {
			t.Fatalf("the holder ended: %v\n%s", err, output)
		}
		output = append(output, b[:n]...)
	}
	go io.Copy(io.Discard, out)
	return cmd
}

// A killed process leaves no lock behind: a waiter in another process acquires it next.
func TestHolderProcessKilled(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	cmd := startHolder(t, d.dsn)
	key := pglock.Name("job")
	d.wantAvailable(key, false)
	locker := d.locker()
	got := start(locker, context.Background(), key)
	d.untilWaiting(1, key)
	must(t, cmd.Process.Kill())
	second := <-got
	must(t, second.err)
	must(t, second.lock.Unlock())
}

// quantiles reports the median and the maximum of the measured durations.
func quantiles(b *testing.B, times []time.Duration) {
	b.Helper()
	slices.Sort(times)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(times[len(times)/2].Microseconds())/1000, "median-ms")
	b.ReportMetric(float64(times[len(times)-1].Microseconds())/1000, "max-ms")
}

// BenchmarkLossNoticed measures the time from the termination of a backend until the ctx
// of the work under its lock is canceled.
func BenchmarkLossNoticed(b *testing.B) {
	dsn := pgtest.Database(b)
	locker, err := pglock.New(pgxlock.ConnString(dsn))
	if err != nil {
		b.Fatal(err)
	}
	defer locker.Close()
	admin := sessiontest.Connect(b, dsn, "admin")
	var times []time.Duration
	for b.Loop() {
		held, err := locker.Lock(b.Context(), pglock.Name("job"))
		if err != nil {
			b.Fatal(err)
		}
		// The holder works, and does not lock or unlock.
		sessiontest.Until(b, admin, "an idle holder", `SELECT EXISTS (SELECT FROM pg_stat_activity
			WHERE pid = $1 AND state = 'idle' AND clock_timestamp() - state_change > '20 ms'::interval)`, held.PID())
		began := time.Now()
		if _, err := admin.Exec(b.Context(), `SELECT pg_terminate_backend($1)`, held.PID()); err != nil {
			b.Fatal(err)
		}
		<-held.Done()
		times = append(times, time.Since(began))
	}
	quantiles(b, times)
}

// BenchmarkHolderKilled measures the time from killing (SIGKILL) a process that holds a
// lock until a waiter in another process has acquired it.
func BenchmarkHolderKilled(b *testing.B) {
	dsn := pgtest.Database(b)
	locker, err := pglock.New(pgxlock.ConnString(dsn))
	if err != nil {
		b.Fatal(err)
	}
	defer locker.Close()
	admin := sessiontest.Connect(b, dsn, "admin")
	var times []time.Duration
	for b.Loop() {
		cmd := startHolder(b, dsn)
		got := start(locker, context.Background(), pglock.Name("job"))
		sessiontest.Until(b, admin, "a wait in Postgres",
			`SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND `+inThisDatabase+`)`)
		began := time.Now()
		if err := cmd.Process.Kill(); err != nil {
			b.Fatal(err)
		}
		second := <-got
		if second.err != nil {
			b.Fatal(second.err)
		}
		times = append(times, time.Since(began))
		if err := second.lock.Unlock(); err != nil {
			b.Fatal(err)
		}
	}
	quantiles(b, times)
}
