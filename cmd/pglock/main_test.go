//go:build unix

package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/pglock-go/pglock/cmd/pglock/internal/supervise"
	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
)

// TestMain makes the test binary the command or the guard if it is started under that
// name.
func TestMain(m *testing.M) {
	switch filepath.Base(os.Args[0]) {
	case "pglock", supervise.GuardName:
		main()
	case migratorName:
		os.Exit(migrator(os.Args[1:]))
	case counterName:
		os.Exit(counter())
	}
	if os.Getenv("GORACE") == "" {
		// Otherwise each process would sleep for a second at its end.
		os.Setenv("GORACE", goRace)
	}
	// Ignore the config file of the user who runs the tests.
	os.Setenv("PGLOCK_CONFIG", os.DevNull)
	pgtest.Main(m)
}

const goRace = "atexit_sleep_ms=0"
