//go:build unix

package doctest

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/pglock-go/pglock/internal/pgserver/pgtest"
)

// TestMain runs one of the programs that the guides call if the test binary was started
// under its name, else the tests.
func TestMain(m *testing.M) {
	if run, ok := extras[filepath.Base(os.Args[0])]; ok {
		if err := run(os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	pgtest.Main(m)
}
