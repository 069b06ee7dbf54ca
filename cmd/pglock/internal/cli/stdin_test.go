package cli

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Each run of a command reads the same from a pipe or a file.
func TestReplay(t *testing.T) {
	path := filepath.Join(t.TempDir(), "in")
	text := strings.Repeat("0123456789abcdef", 40_000)
	if err := os.WriteFile(path, []byte("read before "+text), 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := io.ReadFull(file, make([]byte, len("read before "))); err != nil {
		t.Fatal(err)
	}
	from, to, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		_, _ = to.WriteString(text)
		to.Close()
	}()
	for name, source := range map[string]io.Reader{"file": file, "pipe": from, "reader": strings.NewReader(text)} {
		r := newReplay(source)
		for _, read := range []int{10, 0, 100_000, len(text), len(text)} {
			stdin, started, ended, err := r.open()
			if err != nil {
				t.Fatal(name, err)
			}
			got := make([]byte, read)
			if _, err := io.ReadFull(stdin, got); err != nil {
				t.Fatal(name, err)
			}
			if !bytes.Equal(got, []byte(text[:read])) {
				t.Errorf("%s: %d bytes differ", name, read)
			}
			if read == len(text) {
				if rest, err := io.ReadAll(stdin); err != nil || len(rest) > 0 {
					t.Errorf("%s: %d bytes more, %v", name, len(rest), err)
				}
			}
			started()
			ended()
		}
	}
}

// A long input reaches the first run, and there is no other run.
func TestReplayOfLongInput(t *testing.T) {
	const size = maxReplay + 1<<20
	r := newReplay(io.LimitReader(zeros{}, size))
	stdin, started, ended, err := r.open()
	if err != nil {
		t.Fatal(err)
	}
	defer started()
	defer ended()
	if n, err := io.Copy(io.Discard, stdin); err != nil || n != size {
		t.Errorf("read %d bytes, %v", n, err)
	}
	if _, _, _, err := r.open(); err != errTooMuchInput || !r.isFull() {
		t.Errorf("got %v", err)
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }
