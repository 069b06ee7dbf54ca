//go:build unix

package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/internal/pgserver"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
)

// TestAsPsql runs psql and pglock with the same flags, files and environment, and compares
// their connections. libpqRows has the rules.
func TestAsPsql(t *testing.T) {
	t.Parallel()
	w := newLibpqWorld(t)
	for _, row := range libpqRows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			w.compare(t, row)
		})
	}
}

// compare checks a row with psql and with pglock.
func (w *libpqWorld) compare(t *testing.T, row libpqRow) {
	t.Helper()
	for _, p := range w.psqls {
		if row.mount != defaultFolder || p.folder == "/var/run/postgresql" {
			w.check(t, row, p)
		}
	}
	w.checkPglock(t, row)
}

// A libpqRow is a rule of libpq, and a connection that tests it.
type libpqRow struct {
	name  string
	env   []string
	args  []string // flags that psql and pglock share
	files files    // in HOME
	mount string   // shell commands that mount files in a new namespace

	// want describes the session, as sessionSQL does, or is "" if there is none.
	want string

	// If pglock does not connect: its exit code, and a part of its error.
	code int
	says string

	// since is the first major version of libpq with the rule, or 0 for all. With an
	// older one, older is wanted.
	since int
	older string

	// differs is why pglock differs from psql, for which psqlWant or dependsOnBuild is
	// wanted.
	differs, psqlWant string
}

// dependsOnBuild means that the result depends on how libpq was built.
const dependsOnBuild = "?"

// files holds texts by file name. A name may end with a mode: ".pgpass 0644".
type files map[string]string

// A libpqWorld holds the servers and programs for the rows.
type libpqWorld struct {
	pglock           string
	psqls            []psql
	primary, standby database
	replace          *strings.Replacer
	osUser           string
	certs            map[string]string // PEM by name

	mu sync.Mutex // guards the sessions that observe
}

// A psql is psql with one version of libpq.
type psql struct {
	path   string
	env    []string
	major  int
	folder string // where it looks for a socket
}

func newLibpqWorld(t *testing.T) *libpqWorld {
	t.Helper()
	w := &libpqWorld{pglock: build(t, "."), psqls: findPsqls(t), certs: makeCertificates(t)}
	current, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	w.osUser = current.Username
	server := pgtest.Own(t, pgserver.Options{TCP: true, HBA: []string{
		"local all alice,trail,colon scram-sha-256",
		"hostssl all carl 127.0.0.1/32 cert",
		"host all carl 127.0.0.1/32 reject",
		"hostssl all tessa 127.0.0.1/32 trust",
		"host all tessa 127.0.0.1/32 reject",
		"hostnossl all nora 127.0.0.1/32 trust",
		"host all nora 127.0.0.1/32 reject",
		"host all alice,trail,colon 127.0.0.1/32 scram-sha-256",
		"host all martin 127.0.0.1/32 md5",
		"host all clara 127.0.0.1/32 password",
		"host all rex 127.0.0.1/32 reject",
	}})
	w.primary = connectTo(t, server.ConnString("postgres"))
	w.primary.exec(t, `SET password_encryption = 'scram-sha-256'`)
	for role, password := range map[string]string{"alice": "secret of alice", "trail": "ends in a space ", "colon": `co:lon\back`, "clara": "in clear"} {
		w.primary.exec(t, "CREATE ROLE "+role+" LOGIN PASSWORD '"+password+"'")
	}
	w.primary.exec(t, "SET password_encryption = 'md5'")
	w.primary.exec(t, "CREATE ROLE martin LOGIN PASSWORD 'old style'")
	for _, role := range []string{"erin", "rex", "carl", "tessa", "nora"} {
		w.primary.exec(t, "CREATE ROLE "+role+" LOGIN")
	}
	w.primary.exec(t, "CREATE ROLE limited LOGIN CONNECTION LIMIT 0")
	name := pgx.Identifier{w.osUser}.Sanitize()
	if w.osUser != "postgres" {
		w.primary.exec(t, "CREATE ROLE "+name+" LOGIN")
		w.primary.exec(t, "CREATE DATABASE "+name)
	}
	w.primary.exec(t, "CREATE DATABASE erin")
	w.primary.exec(t, `CREATE DATABASE "a=b"`)
	w.serveTLS(t, server)
	standbyServer := pgtest.Standby(t, server)
	w.standby = connectTo(t, standbyServer.ConnString("postgres"))
	pairs := []string{
		"{osuser}", w.osUser,
		"{dir}", server.Host(), "{port}", fmt.Sprint(server.Port()),
		"{dir%}", strings.ReplaceAll(server.Host(), "/", "%2F"),
		"{sdir}", standbyServer.Host(), "{sport}", fmt.Sprint(standbyServer.Port()),
		"{dead}", fmt.Sprint(deadPort(t)),
		"{starting}", fmt.Sprint(fakeServer(t, refuseWith("57P03", "the database system is starting up"))),
		"{full}", fmt.Sprint(fakeServer(t, refuseWith("53300", "sorry, too many clients already"))),
		"{eof}", fmt.Sprint(fakeServer(t, func(net.Conn) {})),
		"{hang}", fmt.Sprint(fakeServer(t, func(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) })),
	}
	for name, text := range w.certs {
		pairs = append(pairs, "{"+name+"}", text)
	}
	w.replace = strings.NewReplacer(pairs...)
	return w
}

// serveTLS makes a server offer TLS. The server itself writes the files that must belong
// to its user.
func (w *libpqWorld) serveTLS(t *testing.T, server *pgserver.Server) {
	t.Helper()
	for name, text := range map[string]string{"server.crt": w.certs["server.crt"], "server.key": w.certs["server.key"], "ca.crt": w.certs["ca.crt"]} {
		path := filepath.Join(server.Host(), name)
		w.primary.exec(t, fmt.Sprintf(`COPY (SELECT regexp_split_to_table($pem$%s$pem$, E'\n')) TO PROGRAM 'umask 077; cat >%s'`, text, path))
		setting := map[string]string{"server.crt": "ssl_cert_file", "server.key": "ssl_key_file", "ca.crt": "ssl_ca_file"}[name]
		w.primary.exec(t, "ALTER SYSTEM SET "+setting+" = '"+path+"'")
	}
	w.primary.exec(t, "ALTER SYSTEM SET ssl = on")
	w.primary.exec(t, "SELECT pg_reload_conf()")
	eventually(t, "the server offers TLS", func() bool {
		conn, err := pgx.Connect(t.Context(), server.TCPConnString("postgres")+" sslmode=require")
		if err == nil {
			conn.Close(t.Context())
		}
		return err == nil
	})
}

// deadPort returns a port on which nothing listens.
func deadPort(t *testing.T) int {
	t.Helper()
	// Bind the port, so that no other process gets it, but do not listen.
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	address, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return address.(*syscall.SockaddrInet4).Port
}

// fakeServer accepts connections on a port of 127.0.0.1 and closes each when serve
// returns.
func fakeServer(t *testing.T, serve func(net.Conn)) int {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			serve(conn)
			conn.Close()
		}
	}()
	t.Cleanup(func() {
		listener.Close()
		<-done
	})
	return listener.Addr().(*net.TCPAddr).Port
}

// refuseWith answers every startup with an error.
func refuseWith(code, text string) func(net.Conn) {
	return func(conn net.Conn) {
		backend := pgproto3.NewBackend(conn, conn)
		for {
			message, err := backend.ReceiveStartupMessage()
			if err != nil {
				return
			}
			switch message.(type) {
			case *pgproto3.SSLRequest, *pgproto3.GSSEncRequest:
				_, _ = conn.Write([]byte("N"))
				continue
			}
			backend.Send(&pgproto3.ErrorResponse{Severity: "FATAL", SeverityUnlocalized: "FATAL", Code: code, Message: text})
			_ = backend.Flush()
			return
		}
	}
}

// findPsqls returns psql with its own libpq, and with the server's libpq if that differs.
func findPsqls(t *testing.T) []psql {
	t.Helper()
	program, err := pgserver.FindProgram(t.Context(), "psql", os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	path := program.Path
	if target, err := filepath.EvalSymlinks(path); err == nil && filepath.Base(target) == "pg_wrapper" {
		// Debian's psql is a script with its own settings and defaults.
		real, _ := filepath.Glob("/usr/lib/postgresql/*/bin/psql")
		if len(real) == 0 {
			t.Fatalf("%s is a script, and there is no psql in /usr/lib/postgresql; install postgresql-client", path)
		}
		path = real[len(real)-1]
	}
	ask := exec.Command(path, "-V")
	ask.Env = append(os.Environ(), program.Env()...)
	version, err := ask.Output()
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	major, err := strconv.Atoi(regexp.MustCompile(`\d+`).FindString(string(version)))
	if err != nil {
		t.Fatalf("%s prints %q", path, version)
	}
	psqls := []psql{{path: path, env: program.Env(), major: major}}
	o, err := pgserver.FromEnv()
	if err != nil {
		t.Fatal(err)
	}
	bin, err := pgserver.Find(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	lib := filepath.Join(filepath.Dir(bin.Dir), "lib")
	if _, err := os.Stat(filepath.Join(lib, "libpq.so.5")); err == nil && bin.Major != major {
		psqls = append(psqls, psql{path: path, env: []string{"LD_LIBRARY_PATH=" + lib}, major: bin.Major})
	}
	for i, p := range psqls {
		cmd := exec.Command(p.path, "-Xw", "-p", "1", "-c", "")
		cmd.Env = append([]string{"LC_ALL=C"}, p.env...)
		output, _ := cmd.CombinedOutput() // nothing listens
		m := regexp.MustCompile(`"(/.*)/\.s\.PGSQL\.1"`).FindSubmatch(output)
		if m == nil {
			t.Fatalf("psql without a host prints %q", output)
		}
		psqls[i].folder = string(m[1])
	}
	return psqls
}

// home creates a directory with the files of a row.
func (w *libpqWorld) home(t *testing.T, row libpqRow) (folder string, fill func(string) string) {
	t.Helper()
	folder = t.TempDir()
	fill = func(s string) string { return strings.ReplaceAll(w.replace.Replace(s), "{home}", folder) }
	for name, text := range row.files {
		mode := os.FileMode(0o600)
		if base, octal, ok := strings.Cut(name, " "); ok {
			n, err := strconv.ParseUint(octal, 8, 32)
			if err != nil {
				t.Fatal(err)
			}
			name, mode = base, os.FileMode(n)
		}
		path := filepath.Join(folder, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(fill(text)), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	return folder, fill
}

// command returns a program with the flags and the environment of a row.
func (w *libpqWorld) command(ctx context.Context, t *testing.T, row libpqRow, path string, args ...string) (cmd *exec.Cmd, fill func(string) string) {
	t.Helper()
	home, fill := w.home(t, row)
	argv := []string{path}
	if row.mount != "" {
		argv = inWorldOfItsOwn(t, fill(row.mount), path)
	}
	for _, arg := range args {
		if arg != "{flags}" {
			argv = append(argv, arg)
			continue
		}
		for _, flag := range row.args {
			argv = append(argv, fill(flag))
		}
	}
	cmd = exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "PGLOCK_CONFIG=" + os.DevNull, "HOME=" + home}
	for _, kv := range row.env {
		if name, ok := strings.CutPrefix(kv, "-"); ok {
			cmd.Env = slices.DeleteFunc(cmd.Env, func(kv string) bool { return strings.HasPrefix(kv, name+"=") })
			continue
		}
		cmd.Env = append(cmd.Env, fill(kv))
	}
	cmd.Dir = home
	// No terminal to prompt for a password.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.WaitDelay = time.Second
	return cmd, fill
}

// sessionSQL describes the session that %s selects.
const sessionSQL = `SELECT format('%%s@%%s %%s%%s %%s%%s%%s', usename, datname,
	CASE WHEN client_addr IS NULL THEN 'unix' ELSE 'tcp' END, CASE WHEN ssl THEN '+tls' ELSE '' END,
	CASE WHEN pg_is_in_recovery() THEN 'standby' ELSE 'primary' END,
	CASE WHEN application_name IN ('', 'psql', 'pglock') OR application_name ~ '^pglock run libpq' THEN '' ELSE ' app=' || application_name END,
	CASE state WHEN 'disabled' THEN ' options' ELSE '' END)
	FROM pg_stat_activity JOIN pg_stat_ssl USING (pid) WHERE pid = %s`

// check runs psql, and checks its connection.
func (w *libpqWorld) check(t *testing.T, row libpqRow, p psql) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), bound)
	defer cancel()
	cmd, _ := w.command(ctx, t, row, p.path, "-XAtw", "{flags}", "-c", fmt.Sprintf(sessionSQL, "pg_backend_pid()"))
	cmd.Env = append(cmd.Env, p.env...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	want := row.want
	switch {
	case row.differs != "":
		want = row.psqlWant
	case row.since > p.major:
		want = row.older
	}
	want = w.replace.Replace(want)
	if got := strings.TrimSuffix(stdout.String(), "\n"); got != want && want != dependsOnBuild {
		t.Errorf("psql with libpq %d: %q, want %q; stderr: %s", p.major, got, want, stderr.String())
	}
}

// checkPglock runs pglock, and checks its connection.
func (w *libpqWorld) checkPglock(t *testing.T, row libpqRow) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), bound)
	defer cancel()
	name := "libpq " + row.name
	cmd, fill := w.command(ctx, t, row, w.pglock, "run", "-w", "{flags}", name, "--", "cat")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan struct{})
	go func() {
		defer close(exited)
		_ = cmd.Wait()
	}()
	got := w.session(ctx, t, name, exited)
	stdin.Close()
	<-exited
	code := cmd.ProcessState.ExitCode()
	want := w.replace.Replace(row.want)
	if strings.HasSuffix(want, " standby") {
		want = "" // a standby has no advisory locks, which pglock reports
	}
	if got != want || code != row.code {
		t.Errorf("pglock: %q and exit code %d, want %q and %d; stderr: %s", got, code, want, row.code, stderr.String())
	}
	if !strings.Contains(stderr.String(), fill(row.says)) || row.says == "" && row.want != "" && stderr.Len() > 0 {
		t.Errorf("pglock prints %q, want %q", stderr.String(), row.says)
	}
	for line := range strings.Lines(stderr.String()) {
		if !strings.HasPrefix(line, "pglock: ") {
			t.Errorf("pglock says %q", line)
		}
	}
}

// session waits for the session that holds the lock of pglock run, and describes it.
// It is "" if pglock exits instead.
func (w *libpqWorld) session(ctx context.Context, t *testing.T, lock string, exited <-chan struct{}) string {
	t.Helper()
	classid, objid, objsubid := pglock.Name(lock).PgLocks()
	sql := fmt.Sprintf(sessionSQL, fmt.Sprintf(`(SELECT pid FROM pg_locks WHERE locktype = 'advisory'
		AND classid = %d AND objid = %d AND objsubid = %d AND granted)`, classid, objid, objsubid))
	for {
		for _, d := range []database{w.primary, w.standby} {
			var text string
			w.mu.Lock()
			err := d.conn.QueryRow(ctx, sql).Scan(&text)
			w.mu.Unlock()
			if err == nil {
				return text
			}
			if !errors.Is(err, pgx.ErrNoRows) {
				t.Fatal(err)
			}
		}
		select {
		case <-exited:
			return ""
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// makeCertificates makes a CA, a certificate for localhost and 127.0.0.1, one with only a
// common name, one for carl, and another CA.
func makeCertificates(t *testing.T) map[string]string {
	t.Helper()
	certs := map[string]string{}
	make := func(name string, template, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
		t.Helper()
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		template.SerialNumber = big.NewInt(int64(len(certs) + 1))
		template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
		template.BasicConstraintsValid = true
		if parent == nil {
			template.IsCA = true
			template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
			parent, parentKey = template, key
		}
		der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, parentKey)
		if err != nil {
			t.Fatal(err)
		}
		keyDER, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		certs[name+".crt"] = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
		certs[name+".key"] = string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}))
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return cert, key
	}
	ca, key := make("ca", &x509.Certificate{Subject: pkix.Name{CommonName: "the CA"}}, nil, nil)
	make("other", &x509.Certificate{Subject: pkix.Name{CommonName: "another CA"}}, nil, nil)
	make("server", &x509.Certificate{Subject: pkix.Name{CommonName: "database.example"}, DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}, ca, key)
	make("carl", &x509.Certificate{Subject: pkix.Name{CommonName: "carl"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, ca, key)
	return certs
}

// inWorldOfItsOwn returns a command that runs program in a mount namespace that script
// sets up. It needs Linux, and root or unprivileged user namespaces.
func inWorldOfItsOwn(t *testing.T, script, program string) []string {
	t.Helper()
	unshare := []string{"unshare", "--mount"}
	if os.Geteuid() != 0 {
		unshare = append(unshare, "--map-root-user")
	}
	if output, err := exec.Command(unshare[0], append(unshare[1:], "mount", "--bind", "/", "/")...).CombinedOutput(); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("creating a mount namespace: %v: %s", err, output)
		}
		t.Skipf("this needs mounts of its own, so Linux, and root or unprivileged user namespaces: %v: %s", err, output)
	}
	return append(unshare, "/bin/sh", "-c", "set -e; "+script+`; exec "$0" "$@"`, program)
}
