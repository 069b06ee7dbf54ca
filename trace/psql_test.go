package trace_test

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pglock-go/pglock/internal/pgserver"
	"github.com/pglock-go/pglock/trace"
)

// A recorder is a server that psql connects to, and that does nothing but record the
// statements it gets.
type recorder struct {
	listener net.Listener
	done     chan struct{}
	got      []string
	data     []string // of each COPY
}

func record(t *testing.T) *recorder {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &recorder{listener: listener, done: make(chan struct{})}
	go func() {
		defer close(r.done)
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		r.serve(pgproto3.NewBackend(conn, conn), conn)
	}()
	t.Cleanup(func() { listener.Close(); <-r.done })
	return r
}

// serve answers each statement as if it had worked.
func (r *recorder) serve(b *pgproto3.Backend, conn net.Conn) {
	for {
		startup, err := b.ReceiveStartupMessage()
		if err != nil {
			return
		}
		if _, ok := startup.(*pgproto3.StartupMessage); ok {
			break
		}
		if _, err := conn.Write([]byte("N")); err != nil { // no encryption
			return
		}
	}
	b.Send(&pgproto3.AuthenticationOk{})
	for name, value := range map[string]string{"server_version": "15.0", "client_encoding": "UTF8", "standard_conforming_strings": "on"} {
		b.Send(&pgproto3.ParameterStatus{Name: name, Value: value})
	}
	for {
		b.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
		if b.Flush() != nil {
			return
		}
		message, err := b.Receive()
		query, ok := message.(*pgproto3.Query)
		if err != nil || !ok {
			return
		}
		r.got = append(r.got, query.String)
		if copyFrom.MatchString(withoutComments(query.String)) {
			b.Send(&pgproto3.CopyInResponse{})
			if b.Flush() != nil {
				return
			}
			var data strings.Builder
			for {
				message, err := b.Receive()
				if err != nil {
					return
				}
				part, ok := message.(*pgproto3.CopyData)
				if !ok {
					break
				}
				data.Write(part.Data)
			}
			text := data.String()
			for _, end := range []string{"\\.\r\n", "\\.\n"} { // psql also sends the end
				text = strings.TrimSuffix(text, end)
			}
			r.data = append(r.data, text)
		}
		b.Send(&pgproto3.CommandComplete{CommandTag: []byte("OK")})
	}
}

var copyFrom = regexp.MustCompile(`(?is)^copy\s.*\sfrom\s+stdin`)

// withoutComments returns a statement without space and comments before it, and without
// its semicolon.
func withoutComments(s string) string {
	for {
		s = strings.TrimSpace(s)
		switch {
		case strings.HasPrefix(s, "--"):
			_, s, _ = strings.Cut(s, "\n")
		case strings.HasPrefix(s, "/*"):
			s = s[commentEnd(s):]
		default:
			return strings.TrimSpace(strings.TrimSuffix(s, ";"))
		}
	}
}

// commentEnd returns the length of a comment, which may have others in it.
func commentEnd(s string) int {
	depth := 0
	for i := range len(s) {
		switch {
		case strings.HasPrefix(s[i:], "/*"):
			depth++
		case i > 1 && s[i-2:i] == "*/":
			if depth--; depth == 0 {
				return i
			}
		}
	}
	return len(s)
}

// byPsql returns the statements that psql finds in a file, and the data of each COPY.
func byPsql(t *testing.T, psql pgserver.Program, file string) (found, data []string) {
	t.Helper()
	r := record(t)
	host, port, err := net.SplitHostPort(r.listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	cmd := psql.Command(t.Context(), "-X", "-q", "-f", file,
		"host="+host+" port="+port+" user=u dbname=d sslmode=disable gssencmode=disable")
	cmd.Env = append(cmd.Env, "PGCLIENTENCODING=UTF8")
	if out, err := cmd.CombinedOutput(); err != nil && !strings.Contains(string(out), "unterminated") {
		t.Logf("psql: %v: %s", err, out)
	}
	r.listener.Close()
	<-r.done
	for _, q := range r.got {
		if q = withoutComments(q); q != "" {
			found = append(found, q)
		}
	}
	return found, r.data
}

// findPsql returns psql, which is fetched if the machine has none.
func findPsql(t *testing.T) pgserver.Program {
	t.Helper()
	psql, err := pgserver.FindProgram(t.Context(), "psql", os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	return psql
}

// blankLines matches lines that psql leaves out.
var blankLines = regexp.MustCompile(`\n([ \t]*\n)+`)

// compare compares what this package finds in a file with what psql finds.
func compare(t *testing.T, psql pgserver.Program, file string) int {
	t.Helper()
	script, err := trace.Read(file, trace.As(trace.Plain))
	if err != nil {
		t.Fatal(err)
	}
	want, data := byPsql(t, psql, file)
	var got, gotData []string
	for _, p := range script.Pieces {
		got = append(got, withoutComments(p.SQL))
		if p.Copy {
			gotData = append(gotData, p.Data)
		}
	}
	for i := range max(len(got), len(want)) {
		switch {
		case i >= len(got):
			t.Fatalf("psql also finds %q", want[i])
		case i >= len(want):
			t.Fatalf("psql does not find %q", got[i])
		case blankLines.ReplaceAllString(got[i], "\n") != blankLines.ReplaceAllString(want[i], "\n"):
			t.Fatalf("statement %d:\ngot  %q\npsql %q", i+1, got[i], want[i])
		}
	}
	if !slices.Equal(gotData, data) {
		t.Fatalf("COPY: %q, psql %q", gotData, data)
	}
	return len(got)
}

// psql finds the same statements in the same texts.
func TestSplitAsPsql(t *testing.T) {
	psql := findPsql(t)
	file := filepath.Join(t.TempDir(), "f.sql")
	for text := range splits() {
		if strings.Contains(text, "SELECT E'a'") || strings.Contains(text, "AS end") || strings.Contains(text, "/* ; SELECT 2") || strings.Contains(text, `\restrict`) {
			continue // psql is wrong, since it reads a line at a time; sends nothing, or is too old
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if !t.Run(text, func(t *testing.T) { compare(t, psql, file) }) {
			return
		}
	}
}

// psql finds the same statements in all .sql files below the folder PGLOCK_TRACE_FILES,
// such as the migrations of other projects. scripts/trace-files makes one.
func TestFilesAsPsql(t *testing.T) {
	folder := os.Getenv("PGLOCK_TRACE_FILES")
	if folder == "" {
		t.Skip("PGLOCK_TRACE_FILES is not set")
	}
	psql := findPsql(t)
	files, statements, refused := 0, 0, 0
	err := filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".sql") {
			return err
		}
		syntax := new(trace.SyntaxError)
		if _, err := trace.Read(path, trace.As(trace.Plain)); errors.As(err, &syntax) {
			refused++
			t.Log(err)
			return nil
		}
		files++
		t.Run(path, func(t *testing.T) { statements += compare(t, psql, path) })
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d files with %d statements; %d refused", files, statements, refused)
}
