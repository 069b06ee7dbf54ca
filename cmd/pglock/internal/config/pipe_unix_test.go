//go:build unix

package config_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/pglock-go/pglock/cmd/pglock/internal/config"
)

// A pipe is read. A pipe without a writer does not block.
func TestLoadPipe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe.yaml")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := config.Load(path); err == nil || !strings.Contains(err.Error(), "pipe.yaml: the config file cannot be read: no process writes to this pipe") {
		t.Errorf("%v", err)
	}
	if _, err := config.Load("/dev/zero"); err == nil || !strings.Contains(err.Error(), "larger than 1 MiB") {
		t.Errorf("%v", err)
	}
}

// As in <(command) of a shell.
func TestLoadProcessSubstitution(t *testing.T) {
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	go func() {
		defer writer.Close()
		for _, part := range []string{"defaults:\n", "  limit: 7\n"} {
			_, _ = writer.WriteString(part)
		}
	}()
	c, err := config.Load("/dev/fd/" + strconv.Itoa(int(reader.Fd())))
	if err != nil || *c.Defaults.Limit != 7 {
		t.Errorf("%+v, %v", c, err)
	}
}
