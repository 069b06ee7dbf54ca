package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/pglock-go/pglock/cmd/pglock/internal/supervise"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
)

// TestMain makes the test binary the command itself when it is started under the
// command's name, or the guard's.
func TestMain(m *testing.M) {
	switch filepath.Base(os.Args[0]) {
	case "pglock", supervise.GuardName:
		main()
	}
	pgtest.Main(m)
}
