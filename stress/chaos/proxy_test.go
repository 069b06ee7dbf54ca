package chaos_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pglock-go/pglock/internal/pgserver"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
	"github.com/pglock-go/pglock/stress/chaos"
)

func TestProxy(t *testing.T) {
	t.Parallel()
	server := pgtest.Own(t, pgserver.Options{TCP: true})
	proxy, err := chaos.NewProxy(fmt.Sprintf("127.0.0.1:%d", server.Port()))
	if err != nil {
		t.Fatal(err)
	}
	defer proxy.Close()
	connect := func() *pgx.Conn {
		t.Helper()
		conn, err := pgx.Connect(t.Context(), proxy.ConnString(server.TCPConnString("postgres")))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close(context.Background()) })
		return conn
	}
	ask := func(conn *pgx.Conn, patience time.Duration) error {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		_, err := conn.Exec(ctx, "SELECT 1")
		return err
	}
	const long, short = time.Minute, 300 * time.Millisecond

	conn := connect()
	if err := ask(conn, long); err != nil {
		t.Fatal("through an undisturbed proxy:", err)
	}

	if err := proxy.Slow(200*time.Millisecond, 0); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := ask(conn, long); err != nil {
		t.Fatal("slow:", err)
	}
	if d := time.Since(began); d < 400*time.Millisecond {
		t.Errorf("slow: a round trip took %v", d)
	}
	proxy.Heal()
	if err := ask(conn, long); err != nil {
		t.Fatal("no longer slow:", err)
	}

	if err := proxy.BlackHole(); err != nil {
		t.Fatal(err)
	}
	if err := ask(conn, short); !errors.Is(err, context.DeadlineExceeded) {
		t.Error("in the black hole:", err)
	}
	proxy.Heal()

	conn = connect()
	if err := proxy.Cut(); err != nil {
		t.Fatal(err)
	}
	if err := ask(conn, long); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Error("after the cut:", err)
	}

	conn = connect()
	proxy.Refuse()
	if err := ask(conn, long); err == nil {
		t.Error("through a proxy that refuses")
	}
	if conn, err := pgx.Connect(t.Context(), proxy.ConnString(server.TCPConnString("postgres"))); err == nil {
		conn.Close(t.Context())
		t.Error("a proxy that refuses accepts")
	}
	if err := proxy.Accept(); err != nil {
		t.Fatal(err)
	}
	if err := ask(connect(), long); err != nil {
		t.Error("a proxy that accepts again:", err)
	}
}

// A black hole may end while data arrives. pgtest.Main finds leaked goroutines.
func TestProxyHealsWhileDataComes(t *testing.T) {
	t.Parallel()
	sink, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer sink.Close()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		for {
			conn, err := sink.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				conn.Write([]byte("!"))
				io.Copy(io.Discard, conn)
				conn.Close()
			})
		}
	})
	proxy, err := chaos.NewProxy(sink.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	for range 50 {
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", proxy.Port()))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil { // connected through the proxy
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			for chunk := make([]byte, 1000); ; {
				if _, err := conn.Write(chunk); err != nil {
					return
				}
			}
		}()
		if err := proxy.BlackHole(); err != nil {
			t.Fatal(err)
		}
		proxy.Heal()
		<-done // the connection is closed
		conn.Close()
	}
	proxy.Close()
	sink.Close()
}
