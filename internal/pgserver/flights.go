package pgserver

import (
	"fmt"
	"net"
	"sync"

	"github.com/jackc/pgx/v5/pgconn"
)

// Flights counts how often the clients of a connection string wait for the server: the
// round trips, whatever messages they consist of.
type Flights struct {
	listener        net.Listener
	dsn             string
	network, server string // the server's address
	wg              sync.WaitGroup

	mu     sync.Mutex // guards what follows
	n      int
	open   []net.Conn
	closed bool
}

// CountFlights starts a proxy in front of the server of dsn, which counts until it is closed.
func CountFlights(dsn string) (*Flights, error) {
	config, err := pgconn.ParseConfig(dsn)
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	f := &Flights{listener: listener, dsn: fmt.Sprintf("host=127.0.0.1 port=%d user=%s dbname=%s sslmode=disable",
		listener.Addr().(*net.TCPAddr).Port, config.User, config.Database)}
	if config.Password != "" {
		f.dsn += " password=" + config.Password
	}
	f.network, f.server = pgconn.NetworkAddress(config.Host, config.Port)
	f.wg.Go(f.accept)
	return f, nil
}

// Close closes the proxy and all connections through it.
func (f *Flights) Close() error {
	err := f.listener.Close()
	f.mu.Lock()
	f.closed = true
	for _, conn := range f.open {
		conn.Close()
	}
	f.mu.Unlock()
	f.wg.Wait()
	return err
}

// ConnString returns the connection string whose flights are counted.
func (f *Flights) ConnString() string { return f.dsn }

// Take returns the number of flights since the last Take.
func (f *Flights) Take() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.n
	f.n = 0
	return n
}

func (f *Flights) accept() {
	for {
		client, err := f.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial(f.network, f.server)
		if err != nil {
			client.Close()
			continue
		}
		waiting := false // the client has sent something since the server last did
		f.mu.Lock()
		if f.closed {
			client.Close()
			server.Close()
		}
		f.open = append(f.open, client, server)
		f.mu.Unlock()
		f.wg.Go(func() {
			f.pass(client, server, func() {
				if !waiting {
					waiting = true
					f.n++
				}
			})
		})
		f.wg.Go(func() { f.pass(server, client, func() { waiting = false }) })
	}
}

// pass copies what one end sends to the other. It calls note for each part, with f.mu held.
func (f *Flights) pass(from, to net.Conn, note func()) {
	defer to.Close()
	var b [1 << 16]byte
	for {
		n, err := from.Read(b[:])
		if n > 0 {
			if b[0] != 'X' || n != 5 { // no reply follows Terminate
				f.mu.Lock()
				note()
				f.mu.Unlock()
			}
			if _, err := to.Write(b[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
