package pgserver

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pglock-go/pglock/internal/lazyregexp"
)

// A Server is a throwaway Postgres server, or an existing one (see [Options.Database]).
// It is safe for concurrent use.
type Server struct {
	options    Options
	address    address
	existingDB string // the database in an existing server's connection string

	// Unset for an existing server.
	bin    Binaries
	id     identity
	folder string
	guard  *guard

	mu   sync.Mutex // guards what follows
	pid  int
	kept []*pgconn.PgConn // idle sessions; see Options.KeepSessions
}

var errExistingServer = errors.New("pgserver: cannot stop or start an existing server; use one that Start started")

// Start starts a server, or connects to the one of [Options.Database], and returns when
// it accepts connections. ctx covers only the start: the server lives until Stop, or
// until this process ends.
func Start(ctx context.Context, o Options) (*Server, error) {
	if o.Database != "" {
		return connectTo(ctx, o)
	}
	f, err := newFinder(o)
	if err != nil {
		return nil, err
	}
	bin, err := f.find(ctx)
	if err != nil {
		return nil, err
	}
	template, err := f.cache.template(ctx, bin, f.id, o)
	if err != nil {
		return nil, err
	}
	// Another program may take the free port before the server does.
	for try := 1; ; try++ {
		s, err := startOwn(ctx, f, bin, template)
		if err == nil || try == 5 || !o.TCP || !strings.Contains(err.Error(), "Address already in use") {
			return s, err
		}
	}
}

// Prepare finds or fetches the binaries and creates the data folder that Start copies, so
// that a later Start is quick.
func Prepare(ctx context.Context, o Options) (Binaries, error) {
	f, err := newFinder(o)
	if err != nil {
		return Binaries{}, err
	}
	bin, err := f.find(ctx)
	if err != nil {
		return Binaries{}, err
	}
	_, err = f.cache.template(ctx, bin, f.id, o)
	return bin, err
}

func startOwn(ctx context.Context, f *finder, bin Binaries, template string) (_ *Server, err error) {
	s := &Server{options: f.Options, bin: bin, id: f.id}
	port := 5432 // only names the socket, unless TCP is set
	if s.options.TCP {
		if port, err = FreePort(ctx); err != nil {
			return nil, err
		}
	}
	if err := s.makeFolder(port); err != nil {
		return nil, err
	}
	started := false
	defer func() {
		if !started {
			err = errors.Join(err, s.Stop())
		}
	}()
	data, hba := filepath.Join(s.folder, "data"), filepath.Join(s.folder, "pg_hba.conf")
	if _, err := s.id.run(ctx, nil, strings.NewReader(s.options.config(s.folder, port, hba)),
		"/bin/sh", "-c", `cp -Rp "$1" "$2" && cat >>"$2/postgresql.conf"`, "sh", template, data); err != nil {
		return nil, fmt.Errorf("pgserver: copying the data folder: %w", err)
	}
	lines := slices.Concat(s.options.HBA, []string{"local all all trust", "local replication all trust", "host all all 127.0.0.1/32 trust"})
	if _, err := s.id.run(ctx, nil, strings.NewReader(strings.Join(lines, "\n")+"\n"),
		"/bin/sh", "-c", `cat >"$1"`, "sh", hba); err != nil {
		return nil, fmt.Errorf("pgserver: writing pg_hba.conf: %w", err)
	}
	if err := s.launch(ctx); err != nil {
		return nil, err
	}
	started = true
	return s, nil
}

// makeFolder starts the guard, which creates the server's folder: in TMPDIR if set, else
// in memory, else in /tmp. Its path must be short, because the path of a socket is
// limited to 107 bytes, on macOS to 103.
func (s *Server) makeFolder(port int) error {
	var failures []error
	for _, parent := range folderParents() {
		name, err := randomName("pglock-")
		if err != nil {
			return err
		}
		s.folder = filepath.Join(parent, name)
		if socket := fmt.Sprintf("%s/.s.PGSQL.%d.lock", s.folder, port); len(socket) > 103 || !safePath().MatchString(parent) {
			continue
		}
		s.guard, err = startGuard(s.id, s.bin.Env, s.folder,
			filepath.Join(s.bin.Dir, "postgres"), "-D", filepath.Join(s.folder, "data"))
		if err == nil {
			s.address = address{host: s.folder, port: port, user: "postgres"}
			return nil
		}
		failures = append(failures, err)
	}
	return fmt.Errorf("pgserver: no folder for the server; set TMPDIR to a short path that %s can write to: %w", s.id.name, errors.Join(failures...))
}

// folderParents returns the candidates for the parent of a server's folder, best first.
func folderParents() []string {
	return []string{os.Getenv("TMPDIR"), memoryDir(), "/tmp", "/var/tmp"}
}

// safePath matches paths that need no quoting in postgresql.conf and connection strings.
var safePath = lazyregexp.New(`^/[A-Za-z0-9._/+-]*$`)

func randomName(prefix string) (string, error) {
	var b [5]byte
	if _, err := rand.Read(b[:]); err != nil {
		return "", err
	}
	return prefix + hex.EncodeToString(b[:]), nil
}

// launch starts the server process and waits until it accepts connections.
func (s *Server) launch(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, time.Minute, errors.New("it did not accept connections within a minute"))
	defer cancel()
	pid, err := s.guard.start()
	if err != nil {
		return fmt.Errorf("pgserver: starting Postgres %s: %w", s.bin.Version, err)
	}
	s.setPID(pid)
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for {
		conn, err := s.connect(ctx, "postgres")
		if err == nil {
			return conn.Close(ctx)
		}
		alive, guardErr := s.guard.running()
		switch {
		case ctx.Err() != nil:
			return fmt.Errorf("pgserver: starting Postgres %s: %w: %w; its log ends:\n%s", s.bin.Version, context.Cause(ctx), err, s.Logs())
		case guardErr != nil:
			return fmt.Errorf("pgserver: starting Postgres %s: %w", s.bin.Version, guardErr)
		case !alive:
			s.setPID(0)
			return fmt.Errorf("pgserver: Postgres %s did not start; its log ends:\n%s", s.bin.Version, s.Logs())
		}
		select {
		case <-ctx.Done():
		case <-ticker.C:
		}
	}
}

func (s *Server) setPID(pid int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pid = pid
}

// Stop ends the server, regardless of its sessions, and removes its folder. A second Stop
// does nothing. An existing server is not stopped.
func (s *Server) Stop() error {
	s.endKept()
	if s.guard == nil {
		return nil
	}
	err := s.guard.end()
	if exists(s.folder) {
		return fmt.Errorf("pgserver: the guard process did not clean up (%v); end process %d and remove %s", err, s.PID(), s.folder)
	}
	s.setPID(0)
	return nil
}

// Binaries returns the server's binaries, or the zero value for an existing server.
func (s *Server) Binaries() Binaries { return s.bin }

// PID returns the PID of the postmaster, or 0 if it does not run.
func (s *Server) PID() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pid
}

// Folder returns the folder that holds the server's data, log and socket.
func (s *Server) Folder() string { return s.folder }

// Host returns the host to connect to: the folder of the socket, or the host of an
// existing server.
func (s *Server) Host() string { return s.address.host }

// Port returns the port, which also names the socket.
func (s *Server) Port() int { return s.address.port }

// ConnString returns the connection string for a database of the server.
func (s *Server) ConnString(database string) string {
	if s.options.Database != "" {
		return withDatabase(s.options.Database, database)
	}
	return s.address.connString(database)
}

// TCPConnString returns the connection string for a database through TCP. The server must
// have been started with [Options.TCP].
func (s *Server) TCPConnString(database string) string {
	a := s.address
	a.host = "127.0.0.1"
	return a.connString(database)
}

// Env returns the PG variables that make a child process connect to a database of the
// server.
func (s *Server) Env(database string) []string { return s.address.env(database) }

// Logs returns the end of the server's log, or "" if it cannot be read.
func (s *Server) Logs() string {
	b, err := os.ReadFile(filepath.Join(s.folder, "log"))
	if err != nil {
		return ""
	}
	const most = 16 << 10
	if len(b) > most {
		b = b[len(b)-most:]
	}
	return string(b)
}

// A Mode is how a server shuts down.
type Mode string

// The modes of Postgres: smart waits until the sessions end, fast ends them, and
// immediate skips the checkpoint and needs recovery at the next start.
const (
	Smart     Mode = "TERM"
	Fast      Mode = "INT"
	Immediate Mode = "QUIT"
)

// Shutdown shuts the server down and keeps its data for Restart. ctx covers the wait for
// its end.
func (s *Server) Shutdown(ctx context.Context, mode Mode) error {
	if s.guard == nil {
		return errExistingServer
	}
	s.endKept() // a smart shutdown would wait for them
	if _, err := s.guard.send("signal " + string(mode)); err != nil {
		return fmt.Errorf("pgserver: shutting down: %w", err)
	}
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for {
		alive, err := s.guard.running()
		if err != nil {
			return fmt.Errorf("pgserver: shutting down: %w", err)
		}
		if !alive {
			s.setPID(0)
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("pgserver: shutting down: %w", context.Cause(ctx))
		case <-ticker.C:
		}
	}
}

// Kill kills the server like a crash of its machine (SIGKILL), and keeps its data for
// Restart. It also kills the sessions, if the system can list them.
func (s *Server) Kill() error {
	if s.guard == nil {
		return errExistingServer
	}
	if _, err := s.guard.send("kill"); err != nil {
		return fmt.Errorf("pgserver: killing the server: %w", err)
	}
	s.setPID(0)
	return nil
}

// Restart starts the server again, with the same address and data, after a fast shutdown
// if it runs.
func (s *Server) Restart(ctx context.Context) error {
	if s.guard == nil {
		return errExistingServer
	}
	if err := s.Shutdown(ctx, Fast); err != nil {
		return err
	}
	return s.launch(ctx)
}

func (s *Server) connect(ctx context.Context, database string) (*pgconn.PgConn, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return pgconn.Connect(ctx, s.ConnString(database))
}

// An address is where a server listens.
type address struct {
	host           string
	port           int
	user, password string
}

func (a address) connString(database string) string {
	quote := strings.NewReplacer(`\`, `\\`, `'`, `\'`)
	return fmt.Sprintf("host='%s' port=%d user=%s dbname='%s' sslmode=disable", quote.Replace(a.host), a.port, a.user, quote.Replace(database))
}

func (a address) env(database string) []string {
	env := []string{"PGHOST=" + a.host, "PGPORT=" + strconv.Itoa(a.port), "PGUSER=" + a.user, "PGDATABASE=" + database}
	if a.password != "" {
		env = append(env, "PGPASSWORD="+a.password)
	}
	return env
}
