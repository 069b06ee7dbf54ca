package examples_test

import (
	"bufio"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/pglock-go/pglock"
	"github.com/pglock-go/pglock/internal/pgserver"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
	"github.com/pglock-go/pglock/pglocktest"
	"github.com/pglock-go/pglock/pgxlock"
)

// pythonHash is a Python program that hashes names as django-pglock does. It reads one
// name in base64 per line and writes its number.
const pythonHash = `
import base64, hashlib, sys
for line in sys.stdin:
    name = base64.b64decode(line).decode("utf-8")
    number = int.from_bytes(hashlib.sha256(name.encode("utf-8")).digest()[:8], byteorder="little", signed=True)
    print(number, flush=True)
`

// find finds a program that the tests need. It fails the test if there is none.
func find(t *testing.T, name string) pgserver.Program {
	t.Helper()
	// Not t.Context: the first call may have to download the program.
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	program, err := pgserver.FindProgram(ctx, name, os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	return program
}

// A dialogue is a running program that answers each line with a line.
type dialogue struct {
	t   testing.TB
	in  io.WriteCloser
	out *bufio.Reader
}

// start starts a program, which exits at the end of the test, when its input ends.
func start(t *testing.T, program pgserver.Program, args ...string) *dialogue {
	t.Helper()
	cmd := program.Command(context.Background(), args...)
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	must(t, cmd.Start())
	d := &dialogue{t, in, bufio.NewReader(out)}
	t.Cleanup(func() {
		in.Close() // the program exits
		if err := cmd.Wait(); err != nil || stderr.Len() > 0 {
			t.Errorf("%s: %v: %s", cmd.Path, err, stderr.String())
		}
	})
	return d
}

func (d *dialogue) send(line string) {
	d.t.Helper()
	if _, err := io.WriteString(d.in, line+"\n"); err != nil {
		d.t.Fatal(err)
	}
}

func (d *dialogue) call(line string) string {
	d.t.Helper()
	d.send(line)
	answer, err := d.out.ReadString('\n')
	if err != nil {
		d.t.Fatalf("%s: %v", line, err)
	}
	return strings.TrimSpace(answer)
}

// A name is the same lock in Go and in Python.
func TestNamesInPython(t *testing.T) {
	t.Parallel()
	python := start(t, find(t, "python3"), "-c", pythonHash)
	check := func(t interface {
		Fatalf(string, ...any)
	}, name string,
	) {
		answer := python.call(base64.StdEncoding.EncodeToString([]byte(name)))
		if number, err := strconv.ParseInt(answer, 10, 64); err != nil || number != pglock.Name(name).ID() {
			t.Fatalf("Python returns %s for %.100q, Go %d", answer, name, pglock.Name(name).ID())
		}
	}
	for _, name := range []string{
		"", "a", "nightly-report", "ünïcödé", "日本語", "🔒👩‍👩‍👧‍👧", "a\x00b", "\x00", "new\nline", "\u0065\u0301", "\u00e9",
		"\ufeff", "\U0010ffff", strings.Repeat("long ", 200_000),
	} {
		check(t, name)
	}
	negative := 0
	rapid.Check(t, func(rt *rapid.T) {
		name := rapid.String().Draw(rt, "name")
		if !utf8.ValidString(name) {
			rt.Skip("not valid UTF-8")
		}
		if pglock.Name(name).ID() < 0 {
			negative++
		}
		check(rt, name)
	})
	if negative == 0 {
		t.Error("no name has a negative number")
	}
}

// A lock that psql acquires by its number excludes ours, and the other way round.
func TestLocksInPsql(t *testing.T) {
	t.Parallel()
	server := pgtest.Server(t)
	database := pgtest.DatabaseOn(t, server)
	psql := start(t, find(t, "psql"), "-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", server.ConnString(database))
	source := pgxlock.ConnString(server.ConnString(database))
	locker, err := pglock.New(source)
	must(t, err)
	defer locker.Close()

	keys := map[string]pglock.Key{
		"name":           pglock.Name("nightly-report"),
		"empty name":     pglock.Name(""),
		"negative name":  pglock.Name("new\nline"),
		"number":         pglock.Int(42),
		"least number":   pglock.Int(-1 << 63),
		"greatest":       pglock.Int(1<<63 - 1),
		"pair":           pglock.Pair(7, -9),
		"least pair":     pglock.Pair(-1<<31, -1<<31),
		"number of pair": pglock.Int(pglock.Pair(7, -9).ID()), // a different lock than the pair's
	}
	for name, key := range keys {
		t.Run(name, func(t *testing.T) {
			psql.t = t
			args := fmt.Sprint(key.ID())
			if class, object, ok := key.Pair(); ok {
				args = fmt.Sprintf("%d, %d", class, object)
			}
			// psql holds it.
			if answer := psql.call("SELECT 'locked' FROM pg_advisory_lock(" + args + ");"); answer != "locked" {
				t.Fatalf("psql returned %q", answer)
			}
			if _, err := locker.TryLock(t.Context(), key); !errors.Is(err, pglock.ErrNotAcquired) {
				t.Errorf("TryLock of %v while psql holds it: %v", key, err)
			}
			// We acquire it when psql releases it, and not before.
			result := make(chan error, 1)
			var lock *pglock.Lock
			go func() {
				var err error
				lock, err = locker.Lock(t.Context(), key)
				result <- err
			}()
			pglocktest.Key(t, source, key).AwaitWaiters(1)
			if answer := psql.call("SELECT pg_advisory_unlock(" + args + ");"); answer != "t" {
				t.Fatalf("psql: unlock returned %q", answer)
			}
			must(t, <-result)

			// We hold it.
			if answer := psql.call("SELECT pg_try_advisory_lock(" + args + ");"); answer != "f" {
				t.Errorf("psql acquired %v while we hold it: %q", key, answer)
			}
			must(t, lock.Unlock())
			if answer := psql.call("SELECT pg_try_advisory_lock(" + args + ");"); answer != "t" {
				t.Errorf("psql did not acquire %v although it is free: %q", key, answer)
			}
			if answer := psql.call("SELECT pg_advisory_unlock(" + args + ");"); answer != "t" {
				t.Fatalf("psql: unlock returned %q", answer)
			}
		})
	}
}

// The lock of a pair is never that of a number.
func TestPairsAreNoNumbersInPsql(t *testing.T) {
	t.Parallel()
	server := pgtest.Server(t)
	database := pgtest.DatabaseOn(t, server)
	psql := start(t, find(t, "psql"), "-X", "-A", "-t", "-q", server.ConnString(database))
	pair := pglock.Pair(7, -9)
	if answer := psql.call(fmt.Sprintf("SELECT 'locked' FROM pg_advisory_lock(%d);", pair.ID())); answer != "locked" {
		t.Fatalf("psql returned %q", answer)
	}
	pglocktest.Key(t, pgxlock.ConnString(server.ConnString(database)), pair).WantFree()
}
